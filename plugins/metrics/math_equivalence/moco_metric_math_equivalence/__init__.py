"""Math equivalence: the expression a reply gives is mathematically the reference."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, Scored, hookimpl, option
from moco_metric_math_equivalence.equivalence import Checker
from moco_toolkit_answers import read_math

__all__ = ["MathEquivalence", "Options", "moco_metric"]


@attrs.frozen(kw_only=True)
class Options:
    """How long and how exactly expressions are compared."""

    seconds: float = option(5.0, gt=0, help="processor time for one comparison before it is given up")
    digits: int = option(6, ge=1, le=15, help="decimals that two numbers must share in a symbolic comparison")


_Options = Options  # inside the class the name means the attribute


class MathEquivalence(Metric[Options]):
    """1 if the answer equals one of the references mathematically, else 0.

    In order: equal text after LaTeX cleaning, equal numbers, words compared as words, lists and intervals item by item,
    and last math-verify, in a process of its own that is killed when it takes too long (``meta["undecided"]``).
    """

    Options = Options

    def __init__(self, options: _Options) -> None:
        super().__init__(options)
        self._checker = Checker(seconds=options.seconds, digits=options.digits)

    def read(self, question: Question, text: str) -> Answer:
        """Return the expression a reply gives; the key is a rational if it is a number, else cleaned LaTeX."""
        return read_math(question, text)

    async def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply."""
        answer = read_math(example.question, reply.text)
        if answer.key is None:
            return Score(value=0.0, answer=answer)
        undecided = ""
        for reference in example.references:
            verdict = self._checker.cheap(reference, answer.text)
            if verdict is None:
                # the worker answers one comparison at a time; the loop must not wait for it
                verdict, problem = await asyncio.to_thread(self._checker.compare, reference, answer.text)
                undecided = undecided or problem
            if verdict:
                return Score(value=1.0, answer=answer)
        return Score(value=0.0, answer=answer, meta={"undecided": undecided} if undecided else {})

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """The share of replies whose comparison was given up or could not be parsed; they score 0."""
        return {"undecided": sum("undecided" in r.score.meta for r in rows) / len(rows)} if rows else {}

    def utility(self, question: Question, a: Answer, b: Answer) -> float:
        """Return 1 if two answers are equal; the comparison is made both ways."""
        if a.key is None or b.key is None:
            return 0.0
        if a.key == b.key:
            return 1.0
        return float(self._checker.equal(a.text, b.text) and self._checker.equal(b.text, a.text))


@hookimpl
def moco_metric() -> type[MathEquivalence]:
    return MathEquivalence
