"""Exact match: the answer a reply gives equals a reference, compared by its kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import attrs

from moco_core import Answer, Context, Example, Metric, Question, Reply, Score, Scored, Unit, hookimpl, option
from moco_toolkit_answers import (
    answer_type,
    canonical_choice,
    close,
    decimals_of,
    lists_match,
    math_key,
    normalise_unicode,
    number_key,
    parse_list,
    parse_number,
    parse_value,
    read,
    round_to,
    squad_tokens,
    text_key,
    token_list,
)
from moco_toolkit_answers.phrases import FALSE, TRUE

__all__ = ["ExactMatch", "Options", "macro_f1", "moco_metric"]


@attrs.frozen(kw_only=True)
class Options:
    """How numbers of typed answers are compared, and how groups score."""

    tolerance: float = option(0.01, ge=0, lt=1, help="relative tolerance of typed floats", paper="0.04 (TheoremQA)")
    ordered: bool = option(True, help="lists of typed answers are compared in order", paper="False (TheoremQA)")
    grouped: bool = option(True, help="examples with a group score together: 1 only if all of them are right")


class ExactMatch(Metric[Options]):
    """1 if the answer equals one of the references under the rule of the question's ``answer_kind``, else 0.

    Numbers are exact rationals; a decimal is rounded to the decimals that the reference shows (if it shows any); typed
    floats have the tolerance of the options. There is no other tolerance. Examples that carry a ``group`` form one
    unit: the product of their scores; a group with fewer members than ``meta["group_size"]`` is left out.
    """

    Options = Options

    def read(self, question: Question, text: str) -> Answer:
        """Return the answer a reply gives, read by the question's kind."""
        return read(question, text)

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        """Score one reply."""
        answer = read(example.question, reply.text)
        return Score(value=float(self.matches(example, answer)), answer=answer)

    def matches(self, example: Example, answer: Answer) -> bool:
        """Whether an answer that was read equals one of the references."""
        if answer.key is None:
            return False
        question = example.question
        if question.answer_kind == "choice" and example.answer is not None:
            return answer.key == str(canonical_choice(question, example.answer))
        return any(self._equal(question, answer, reference) for reference in example.references)

    def _equal(self, question: Question, answer: Answer, reference: str) -> bool:
        kind = question.answer_kind
        key = answer.key or ""
        if kind == "typed":
            return self._typed(answer_type(question), answer, reference)
        if kind == "decimal":
            decimals = decimals_of(reference)
            gold, value = _number(reference), _number(key)
            if gold is None or value is None:
                return key == _reference_key("text", reference)
            return round_to(value, decimals) == gold if decimals else value == gold
        return key == _reference_key(kind, reference)

    def _typed(self, kind: str, answer: Answer, reference: str) -> bool:
        key = answer.key or ""
        if kind == "bool":
            return key == _reference_key("boolean", reference)
        if kind == "option":
            return key == _reference_key("letter", reference)
        if kind.startswith("list"):
            gold, values = parse_list(reference), parse_list(key)
            tolerance = self.options.tolerance if kind == "list of float" else 0.0
            return (
                gold is not None and values is not None and lists_match(values, gold, tolerance, self.options.ordered)
            )
        if kind in ("integer", "float"):
            number, value = parse_value(reference), _number(key)
            if number is None or value is None:
                return False
            return value == number if kind == "integer" else close(value, number, self.options.tolerance)
        return key == _reference_key("text", reference)

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        """One unit per question, or per group of questions."""
        out: list[Unit] = []
        groups: dict[str, list[Scored]] = defaultdict(list)
        for row in rows:
            if row.score.value is None:
                continue
            if self.options.grouped and row.example.group:
                groups[row.example.group].append(row)
            else:
                out.append(Unit(row.example.id, row.score.value, row.example.question.subset))
        for name, members in groups.items():
            size = members[0].example.meta.get("group_size", len(members))
            if len({m.example.id for m in members}) < size:
                continue  # an incomplete group would be easier than a whole one
            value = 1.0
            for member in members:
                value *= member.score.value or 0.0
            out.append(Unit(name, value, members[0].example.question.subset))
        return out

    def extra_metrics(self, rows: Sequence[Scored]) -> dict[str, float]:
        """Macro F1 where all answers are labels; of groups, the score per member and how many groups lack members."""
        rows = [r for r in rows if r.score.value is not None]
        out: dict[str, float] = {}
        if rows and all(r.example.question.answer_kind == "label" for r in rows):
            out["macro_f1"] = macro_f1(rows)
        if self.options.grouped and (members := [r for r in rows if r.example.group]):
            out["member_score"] = sum(r.score.value or 0.0 for r in members) / len(members)
            groups = {r.example.group for r in members}
            out["groups_left_out"] = float(len(groups - {u.id for u in self.units(members)}))
        return out


@lru_cache(maxsize=65536)
def _number(text: str) -> Fraction | None:
    return parse_number(normalise_unicode(text), comma=True)


@lru_cache(maxsize=65536)
def _reference_key(kind: str, reference: str) -> str:
    """Return the key that a right answer of that kind has."""
    text = normalise_unicode(reference)
    if kind == "integer":
        number = parse_number(text)
        return text_key(text) if number is None else number_key(number)
    if kind == "math":
        return math_key(text)
    if kind == "letter":
        return text.strip(" ()[]{}.\"'").upper()
    if kind == "label":
        return " ".join(text.casefold().split())
    if kind == "boolean":
        word = text.strip().casefold()
        return "true" if word in TRUE else "false" if word in FALSE else word
    if kind == "tokens":
        return " ".join(token_list(text))
    if kind == "short":
        return " ".join(squad_tokens(text)) or " ".join(text.casefold().split())
    if kind == "open":
        return " ".join(text.split())
    return text_key(text)


def macro_f1(rows: Sequence[Scored]) -> float:
    """Return the unweighted mean of the F1 of every label that occurs as a reference; unparsed replies name none."""
    true: dict[str, int] = defaultdict(int)
    said: dict[str, int] = defaultdict(int)
    gold: dict[str, int] = defaultdict(int)
    for row in rows:
        label = _reference_key("label", row.example.references[0])
        gold[label] += 1
        if row.score.answer.key is not None:
            said[row.score.answer.key] += 1
            true[label] += row.score.answer.key == label
    return sum(2 * true[x] / (said[x] + gold[x]) for x in gold) / len(gold) if gold else 0.0


@hookimpl
def moco_metric() -> type[ExactMatch]:
    return ExactMatch
