"""Scoring candidates of a weight search on the dev split: greedily decoded, through cache and scheduler, one at a time.

Every candidate is a derived model, so its replies are cached under its recipe: a killed search runs again at the cost of
looking its past up. Candidates share one evaluation module, which is why they are scored one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import ConfigError, Context, Example, Model, Pool
from moco_toolkit_merging.merges import Merge
from moco_toolkit_merging.workspace import Workspace, quarter_of_memory

__all__ = ["Search"]


class Search:
    """The dev evaluations of one fit. ``trace`` has one entry per candidate: label, score and best so far.

    ``limit`` uses the first so many dev examples. Raises ConfigError for an empty dev split.
    """

    def __init__(
        self,
        pool: Pool,
        dev: Sequence[Example],
        context: Context,
        *,
        limit: int | None = None,
        total: int | None = None,
    ) -> None:
        if not dev:
            raise ConfigError(
                "dev split is empty; this method chooses weights by their dev score, give it dev examples"
            )
        self.pool = pool
        self.dev = tuple(dev[:limit] if limit else dev)
        self.total = total
        self.trace: list[dict[str, Any]] = []
        self.workspace = Workspace(quarter_of_memory())
        self._context = context
        self._sampling = attrs.evolve(context.sampling, temperature=0.0)
        self._known: dict[str, float] = {}

    @property
    def best(self) -> float:
        """The best score so far; minus infinity before the first."""
        return max((t["score"] for t in self.trace), default=float("-inf"))

    async def score(self, candidate: Merge | Model, label: str, **facts: Any) -> float:
        """Return the mean dev score of a candidate, deterministically; ``facts`` go into trace and fit log.

        Raises ConfigError if the metric scores nothing.
        """
        model = candidate.model(self.pool, label, self.workspace) if isinstance(candidate, Merge) else candidate
        score = self._known.get(model.fingerprint)
        if score is None:
            evaluation = await self._context.evaluate([model], self.dev, self._sampling, label=label)
            known = [s for s in evaluation.scores[0] if s is not None]
            if not known:
                raise ConfigError(
                    "the metric scored no dev example; choose a dataset with references or another metric"
                )
            score = math.fsum(known) / len(known)
            self._known[model.fingerprint] = score
        self.record(label, score, **facts)
        return score

    def record(self, label: str, score: float, **facts: Any) -> None:
        """Add a step to trace, fit log and progress."""
        step = len(self.trace)
        best = max(self.best, score)
        self.trace.append({"step": step, "label": label, "score": score, "best": best, **facts})
        self._context.note(step=step, label=label, score=score, best=best, **facts)
        self._context.progress("search", step + 1, self.total, f"best {best:.3f}")

    async def singles(self, models: Sequence[Model]) -> list[float]:
        """Return the dev score of each model alone, in order."""
        return [await self.score(m, m.name) for m in models]

    def close(self) -> None:
        """Free what was kept between candidates."""
        self.workspace.limit = 0
        self.workspace.clear()
