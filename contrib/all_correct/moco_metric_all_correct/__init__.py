"""All correct: exactly the right options are named, or a number is close enough (ChemBench)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, Scored, hookimpl, option
from moco_toolkit_answers import (
    canonical_choice,
    evidence,
    parse_number,
    plain_markdown,
    read_choice,
    read_number,
    visible,
)
from moco_toolkit_answers.letters import labels_of

__all__ = ["AllCorrect", "Options", "moco_metric", "read_choices"]


@attrs.frozen(kw_only=True)
class Options:
    """How close a number must be."""

    tolerance: float = option(0.01, ge=0, help="largest relative error of a number that counts as right", paper="0.01")


def read_choices(question: Question, text: str) -> Answer:
    """Read all options that a reply names where it declares its answer; ``key`` holds their indices, joined by commas."""
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    labels = labels_of(question.letters)
    plain = plain_markdown(labels.folded(body))
    for piece in evidence(body, plain, initials=False):
        found = {labels.index[n.letter] for n in labels.named(labels.folded(piece.text)) if n.letter in labels.index}
        if found:
            indices = sorted({canonical_choice(question, i) for i in found})
            return Answer(key=",".join(map(str, indices)), text=piece.text, status="parsed")
    return Answer()


class AllCorrect(Metric[Options]):
    """1 if all right options are named and no other, or a number is within 1 % (Mirza et al. 2024, arXiv 2404.01475).

    A question with ``meta["several"]`` asks for all right options; the example's ``meta["right"]`` holds their indices. Other
    questions with choices have one right answer, those without have a number as their reference.
    """

    Options = Options

    def read(self, question: Question, text: str) -> Answer:
        """Return the options or the number that a reply declares."""
        if not question.choices:
            return read_number(question, text)
        return read_choices(question, text) if question.meta.get("several") else read_choice(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply; an example that says neither right options nor a number is not scored."""
        question, answer = example.question, self.read(example.question, reply.text)
        if question.choices:
            given = example.meta.get("right") or ([] if example.answer is None else [example.answer])
            right = {canonical_choice(question, int(i)) for i in given if 0 <= int(i) < len(question.choices)}
            if right:
                return Score(value=float(answer.key == ",".join(map(str, sorted(right)))), answer=answer)
        else:
            wanted = next((n for n in map(parse_number, example.references) if n is not None), None)
            if wanted is not None:
                said = None if answer.key is None else parse_number(answer.key)
                room = Fraction(str(self.options.tolerance)) * abs(wanted)
                return Score(value=float(said is not None and abs(said - wanted) <= room), answer=answer)
        context.warn(f"question {example.id!r} is not scored: it has neither right options nor a number as its reference")
        return Score(value=None, answer=answer)

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """The mean over questions with one right option, over those with several, and over those with a number."""
        kinds: dict[str, list[float]] = {}
        for row in rows:
            if row.score.value is not None:
                question = row.example.question
                kind = ("several" if question.meta.get("several") else "one") if question.choices else "number"
                kinds.setdefault(kind, []).append(row.score.value)
        return {kind: sum(values) / len(values) for kind, values in sorted(kinds.items())}


@hookimpl
def moco_metric() -> type[AllCorrect]:
    return AllCorrect
