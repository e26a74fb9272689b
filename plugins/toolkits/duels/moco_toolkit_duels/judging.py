"""A judge's score of one reply, from 1 to 10: written as JSON, or expected under the probabilities of the ten.

What is judged is quoted, so that nothing in it is read as markup, and cut to the judge's context.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from moco_core import CAPABILITIES, Context, Message, Model, ModelCallError, Question, Sampling
from moco_core.types import ContinuationScore
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_duels.options import DuelOptions
from moco_toolkit_quoting import Sheet, ask, fence, send, transcript

__all__ = ["expected_score", "judge", "judge_problems", "judge_sheet", "written_score"]

LOW, HIGH = 1, 10

_SCORE = re.compile(r"[\"']?\bscore[\"']?\s*[:=]\s*[\"']?(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_SCORES = tuple(f'{{"score": {score}}}' for score in range(LOW, HIGH + 1))


def judge_sheet(question: Question, reply: str) -> Sheet:
    """Return what a judge reads of one reply: it alone, never beside its opponent's."""

    def compose(quotes: Sequence[str]) -> str:
        return (
            f"Rate the reply to the instruction from {LOW} (useless) to {HIGH} (perfect): is it correct, does it do what was "
            f"asked, is it clear?\n\n{fence('instruction', transcript(question))}\n\n{fence('reply', quotes[0])}\n\n"
            'Give the score alone, in this form: {"score": X}'
        )

    return Sheet([reply], compose)


def written_score(text: str) -> float | None:
    """Return the last score that a judge wrote as JSON; None if there is none, or none from 1 to 10."""
    found = _SCORE.findall(strip_reasoning(text) or "")
    return float(found[-1]) if found and LOW <= float(found[-1]) <= HIGH else None


def expected_score(scored: Sequence[ContinuationScore]) -> float | None:
    """Return the expectation of the ten scores under their probabilities; None if these are not finite."""
    logs = [s.logprob for s in scored]
    top = max(logs)
    if not math.isfinite(top):
        return None
    weights = [math.exp(log - top) for log in logs]
    return math.fsum((LOW + i) * w for i, w in enumerate(weights)) / math.fsum(weights)


async def judge(model: Model, question: Question, reply: str, options: DuelOptions, context: Context) -> float | None:
    """Return a judge's score of a reply, the mean over rounds; None if it abstains: nothing readable, or its calls fail."""
    sheet = judge_sheet(question, reply)
    if options.judging == "expected":

        async def weigh(messages: Sequence[Message]) -> Sequence[ContinuationScore]:
            return await context.score(model, messages, _SCORES)

        try:
            return expected_score((await send(weigh, model, sheet, 16)).reply)
        except ModelCallError:
            return None
    sampling = Sampling(temperature=options.judge_temperature, max_new_tokens=options.judge_max_new_tokens)
    asked = await context.gather(
        (ask(context, model, sheet, sampling, sample=number) for number in range(options.rounds)),
        tolerate=ModelCallError,
    )
    scores = [written_score(one.reply.text) for one in asked if not isinstance(one, ModelCallError)]
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known else None


def judge_problems(pool: Sequence[Model], options: DuelOptions) -> list[str]:
    """Return what keeps models from judging as the options say, one sentence each."""
    if options.judging != "expected":
        return []
    return [
        f"judging: model {model.name!r} cannot {CAPABILITIES['score']} (capability 'score'); choose judging=written"
        for model in pool
        if not model.can("score")
    ]
