"""Drawing solutions: the same in fit and respond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import Answer, Context, Generation, Model, ModelCallError, Pool, Question, Sampling
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, characters_per_token
from moco_toolkit_voting import ballots

__all__ = ["Solution", "draw", "ratio", "shuffled"]


@attrs.frozen(kw_only=True)
class Solution:
    """What a model wrote, or why it wrote nothing. ``text`` is shown to the aggregator, without reasoning."""

    model: Model
    sample: int
    text: str = ""
    answer: Answer = attrs.field(factory=Answer)
    generation: Generation | None = None
    failure: ModelCallError | None = None

    def record(self) -> dict[str, Any]:
        """Return what the run record shows of it."""
        out = {"model": self.model.name, "sample": self.sample, "answer": self.answer.key}
        return out if self.failure is None else {**out, "failed": str(self.failure)}


async def draw(
    pool: Pool, planned: Sequence[tuple[int, int]], question: Question, context: Context, sampling: Sampling
) -> list[Solution]:
    """Draw the planned solutions, (model, number of its sample) each, and read their answers."""
    written = await context.gather(
        (context.generate(pool[model], question, sampling, sample=sample) for model, sample in planned),
        tolerate=ModelCallError,
    )
    replies = [reply if isinstance(reply, Generation) else None for reply in written]
    answers = ballots(context, question, [None if reply is None else reply.text for reply in replies])
    return [
        Solution(
            model=pool[model],
            sample=sample,
            text="" if reply is None else (strip_reasoning(reply.text) or "").strip(),
            answer=answer,
            generation=reply,
            failure=raw if isinstance(raw, ModelCallError) else None,
        )
        for (model, sample), reply, answer, raw in zip(planned, replies, answers, written, strict=True)
    ]


def ratio(model: Model, question: Question, solutions: Sequence[Solution]) -> float:
    """Return the fewest characters per token seen in what a model read and wrote; a cautious guess if it wrote nothing."""
    asked = "\n".join(turn.content for turn in question.messages())
    seen = [
        characters_per_token(asked, s.generation) for s in solutions if s.model is model and s.generation is not None
    ]
    return min(seen, default=CHARACTERS_PER_TOKEN)


def shuffled(solutions: Sequence[Solution], number: int, seed: int, context: Context) -> list[Solution]:
    """Return the solutions of a set that can be shown, in an order drawn for question and set."""
    shown = [s for s in solutions if s.text]
    context.rng("agglm", "order", seed, number).shuffle(shown)
    return shown
