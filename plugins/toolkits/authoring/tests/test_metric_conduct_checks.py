"""Every check of a metric's conduct fails on a metric with exactly that fault, and on no other."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
from conforming import GoodMetric

from moco_core import Answer, Context, Example, Question, Reply, Score, Scored, Unit
from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import metric_conduct, run_checks

Failures = Callable[..., list[str]]


class ReadsASet(GoodMetric):
    """Takes a word of several as the set has them."""

    def read(self, question: Question, text: str) -> Answer:
        words = "".join({*text.casefold().split()})
        return Answer(key=words, text=words, status="parsed") if words else Answer(status="unparsed")


class LooksTwice(GoodMetric):
    """Reads with a repetition within a repetition."""

    def read(self, question: Question, text: str) -> Answer:
        re.search(r"^(a+)+$", text[:30])
        return super().read(question, text)


class MarksExamples(GoodMetric):
    """Notes on an example that it was scored."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        dict.update(example.meta, scored=True)  # type: ignore[arg-type]
        return super().score(example, reply, context)


class CountsTheRight(GoodMetric):
    """Counts right replies only."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        return [unit for unit in super().units(rows) if unit.score]


class SetsVariables(GoodMetric):
    """Leaves a variable in the environment of the whole process, always the same."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        os.environ["SCORED"] = "yes"
        return super().score(example, reply, context)


BROKEN = {
    "hash_order_changes_nothing": ReadsASet,
    "reading_takes_no_time": LooksTwice,
    "what_is_given_stays_as_it_is": MarksExamples,
    "units_average_to_the_score": CountsTheRight,
    "scoring_leaves_nothing_behind": SetsVariables,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_alone(name: str, catalogue: Catalogue, failures: Failures) -> None:
    catalogue.register(BROKEN[name], "broken")
    assert failures("metric", "broken", catalogue, processes="hash" in name) == [name]


def test_every_check_of_conduct_has_its_broken_metric() -> None:
    assert set(BROKEN) == {c.name for c in metric_conduct.CHECKS}


class MarksReplies(GoodMetric):
    """Notes its verdict on the reply."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        dict.update(reply.meta, scored=True)  # type: ignore[arg-type]
        return super().score(example, reply, context)


class SortsItsRows(GoodMetric):
    """Brings the rows that it is given into an order of its own."""

    def extra_metrics(self, rows: Sequence[Scored]) -> Mapping[str, float]:
        rows.sort(key=lambda row: row.score.value or 0)  # type: ignore[attr-defined]
        return super().extra_metrics(rows)


class HalvesItsUnits(GoodMetric):
    """Counts half of every score."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        return [attrs.evolve(unit, score=unit.score / 2) for unit in super().units(rows)]


class CountsTheBest(GoodMetric):
    """Counts for every reply what the best one is worth."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        units = super().units(rows)
        return [attrs.evolve(unit, score=max(u.score for u in units)) for unit in units]


@pytest.mark.usefixtures("no_processes")
@pytest.mark.parametrize(
    ("cls", "check", "told"),
    [
        (MarksReplies, "what_is_given_stays_as_it_is", "score() changes the reply"),
        (SortsItsRows, "what_is_given_stays_as_it_is", "use sorted()"),
        (CountsTheBest, "units_average_to_the_score", "better replies do not raise the mean"),
        (HalvesItsUnits, "units_average_to_the_score", "scored 1, have the mean 0.5"),
    ],
)
def test_what_a_metric_changes_or_miscounts_is_named(cls: type, check: str, told: str, catalogue: Catalogue) -> None:
    catalogue.register(cls, "sample")
    wrong = {r.name: r.message for r in run_checks("metric", "sample", catalogue=catalogue) if not r.ok}
    assert list(wrong) == [check] and told in wrong[check]


class _Shared(GoodMetric):
    """Keeps what is scored on itself while it waits."""

    def score(self, example: Example, reply: Reply, context: Context) -> Any:
        return self._later(example, reply)

    async def _later(self, example: Example, reply: Reply) -> Score:
        self.text = reply.text
        await asyncio.sleep(0)
        answer = self.read(example.question, self.text)
        return Score(value=float(answer.key in {r.casefold() for r in example.references}), answer=answer)


class _Once(GoodMetric):
    """Scores nobody for what was said before."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.seen: set[tuple[str, str]] = set()

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        score = super().score(example, reply, context)
        again = (example.id, reply.text) in self.seen
        self.seen.add((example.id, reply.text))
        return attrs.evolve(score, value=0.0) if again else score


@pytest.mark.parametrize(("cls", "texts"), [(_Shared, ["red", "42", "paris"]), (_Once, ["red", "42", "paris"])])
def test_state_that_a_metric_keeps_between_calls_is_seen(
    cls: type, texts: list[str], catalogue: Catalogue, failures: Failures
) -> None:
    catalogue.register(cls, "broken")
    assert failures("metric", "broken", catalogue, texts=texts) == ["scoring_is_deterministic"]
