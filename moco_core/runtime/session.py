"""What the contexts of one run share, and what they collect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from moco_core.types import Generation, Sampling, Usage

if TYPE_CHECKING:
    from moco_core.data import Metric
    from moco_core.runtime.scheduler import Scheduler

__all__ = ["CallRecord", "Evaluation", "Session"]


@attrs.frozen(kw_only=True)
class CallRecord:
    """One finished model call, as run records show it. ``seen`` is what the model read, ``said`` what came back."""

    model: str
    kind: str
    phase: str
    key: str
    cached: bool
    usage: Usage
    seen: Any
    said: Any


@attrs.frozen(kw_only=True)
class Evaluation:
    """Dev scores: ``scores[i][j]`` is model i on example j (None if the metric does not score), ``replies`` likewise."""

    names: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    replies: tuple[tuple[Generation, ...], ...]

    def means(self) -> tuple[float, ...]:
        """The mean score of each model; 0 for a model without any score."""
        out = []
        for row in self.scores:
            known = [s for s in row if s is not None]
            out.append(sum(known) / len(known) if known else 0.0)
        return tuple(out)

    def best(self) -> int:
        """The index of the best model; ties go to the lowest index."""
        means = self.means()
        return max(range(len(means)), key=lambda i: (means[i], -i))


@attrs.define(kw_only=True, eq=False)
class Session:
    """What all contexts of one run share: seed, default decoding, metric, scheduler, and what is collected."""

    scheduler: Scheduler
    metric: Metric[Any]
    seed: int = 0
    sampling: Sampling = attrs.field(factory=Sampling)
    in_flight: int = 256
    usage: dict[tuple[str, str], Usage] = attrs.field(factory=dict)
    calls: Counter[tuple[str, str, bool]] = attrs.field(factory=Counter)
    money: dict[tuple[str, str], float] = attrs.field(factory=dict)
    warnings: list[str] = attrs.field(factory=list)
    on_progress: Callable[[str, int, int | None, str], None] = lambda phase, done, total, note: None
    on_note: Callable[[str, Mapping[str, Any]], None] = lambda phase, note: None
