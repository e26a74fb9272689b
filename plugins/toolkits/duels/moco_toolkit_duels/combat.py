"""Duels: two models answer one instruction, all others judge both replies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core import Context, Generation, Model, ModelCallError, Question
from moco_toolkit_duels.judging import judge
from moco_toolkit_duels.options import DuelOptions

__all__ = ["Duel", "Fought", "counted", "fight"]


@attrs.frozen(kw_only=True)
class Duel:
    """Who answers what. ``number`` tells a duel from all others of a fit: the same two may meet on the same question."""

    number: int
    question: Question
    a: int
    b: int


@attrs.frozen(kw_only=True)
class Fought:
    """A duel's replies (None: a duellist's call failed) and the scores of both by every judge that gave two."""

    duel: Duel
    replies: tuple[str, str] | None
    scores: Mapping[int, tuple[float, float]] = attrs.field(factory=dict)

    def means(self, weights: Sequence[float]) -> tuple[float, float] | None:
        """Return both mean scores, weighted by the judges' reputations; None if nobody judged."""
        total = math.fsum(weights[judge] for judge in self.scores)
        if not self.scores:
            return None
        a, b = (math.fsum(weights[j] * s[side] for j, s in self.scores.items()) / total for side in (0, 1))
        return a, b


async def fight(
    duels: Sequence[Duel], members: Sequence[Model], options: DuelOptions, context: Context, label: str = "duels"
) -> list[Fought]:
    """Hold all duels at once: replies are sampled, then every member that does not take part scores both.

    A judge without a readable score of either reply abstains on both.
    """
    done = 0

    async def one(duel: Duel) -> Fought:
        nonlocal done
        scope, sampling = context.on(duel.question), options.sampling(context.sampling)
        replies = await scope.gather(
            (scope.generate(members[i], duel.question, sampling, sample=duel.number) for i in (duel.a, duel.b)),
            tolerate=ModelCallError,
        )
        fought = Fought(duel=duel, replies=None)
        if all(isinstance(reply, Generation) for reply in replies):
            first, second = (reply.text.strip() for reply in replies)
            judges = [j for j in range(len(members)) if j not in (duel.a, duel.b)]
            scores = await scope.gather(
                judge(members[j], duel.question, text, options, scope.role("judge"))
                for j in judges
                for text in (first, second)
            )
            pairs = zip(judges, scores[::2], scores[1::2], strict=True)
            known = {j: (a, b) for j, a, b in pairs if a is not None and b is not None}
            fought = Fought(duel=duel, replies=(first, second), scores=known)
        done += 1
        context.progress(label, done, len(duels))
        return fought

    return await context.gather(one(duel) for duel in duels)


def counted(fought: Sequence[Fought], pairs: int) -> dict[str, Any]:
    """Return what came of duels, for the fit log: how many gave a pair, and why the others did not."""
    failed = sum(f.replies is None for f in fought)
    unjudged = sum(f.replies is not None and not f.scores for f in fought)
    even = len(fought) - failed - unjudged - pairs
    return {"duels": len(fought), "pairs": pairs, "failed": failed, "unjudged": unjudged, "even": even}
