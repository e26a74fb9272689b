"""Every metric check fails on a metric with exactly that fault, and on no other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import pytest
from conforming import GoodMetric

from moco_core import Answer, Context, Example, Question, Reply, Score, Scored, Unit
from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import metric as metric_module
from moco_toolkit_authoring import run_checks

Failures = Callable[..., list[str]]


class ChokesOnReading(GoodMetric):
    """Reading fails on an empty reply."""

    def read(self, question: Question, text: str) -> Answer:
        return Answer(key=text.casefold().split()[-1], status="parsed")


class MisstatesItsStatus(GoodMetric):
    """Says "parsed" without a key."""

    def read(self, question: Question, text: str) -> Answer:
        answer = super().read(question, text)
        return answer if answer.parsed else Answer(status="parsed")


_reads = itertools.count()


class ReadsByMood(GoodMetric):
    """Reads another answer every time."""

    def read(self, question: Question, text: str) -> Answer:
        answer = super().read(question, text)
        return attrs.evolve(answer, meta={"number": next(_reads)})


class ChokesOnScoring(GoodMetric):
    """Scoring fails on a reply without words, reading does not."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        reply.text.split()[0]
        return super().score(example, reply, context)


class OutOfRange(GoodMetric):
    """Scores in percent."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        score = super().score(example, reply, context)
        return attrs.evolve(score, value=100 * (score.value or 0))


class ScoresByMood(GoodMetric):
    """Scores by how often it was asked."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.asked = 0

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        self.asked += 1
        return Score(value=float(self.asked % 7 == 0), answer=self.read(example.question, reply.text))


class ReadsTheReference(GoodMetric):
    """Lets the reference decide what was read."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        score = super().score(example, reply, context)
        words = reply.text.casefold().split()
        found = next((r for r in example.references if r.casefold() in words[:1]), None)
        return score if found is None else Score(value=1.0, answer=Answer(key=f"={found}", status="parsed"))


class CountsInOrder(GoodMetric):
    """Numbers its units by position."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        return [Unit(f"row {i}", u.score) for i, u in enumerate(super().units(rows))]


class NeedsRows(GoodMetric):
    """Fails without any reply."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        rows[0]
        return super().units(rows)


class DividesByNothing(GoodMetric):
    """Has an extra metric that is no number where there is no reply."""

    def extra_metrics(self, rows: Sequence[Scored]) -> Mapping[str, float]:
        return {"replies_per_reply": len(rows) / len(rows) if rows else math.nan}


class Unsupportive(GoodMetric):
    """No answer supports itself."""

    def utility(self, question: Question, a: Answer, b: Answer) -> float:
        return 0.0


class RewardsSilence(GoodMetric):
    """Scores 1 for an empty reply."""

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        score = super().score(example, reply, context)
        return score if reply.text else attrs.evolve(score, value=1.0)


BROKEN = {
    "nothing_earns_nothing": RewardsSilence,
    "reading_never_raises": ChokesOnReading,
    "reading_states_its_status": MisstatesItsStatus,
    "reading_is_deterministic": ReadsByMood,
    "scoring_never_raises": ChokesOnScoring,
    "scores_are_in_range": OutOfRange,
    "scoring_is_deterministic": ScoresByMood,
    "scoring_reads_as_read_does": ReadsTheReference,
    "units_ignore_order": CountsInOrder,
    "no_rows_give_no_units": NeedsRows,
    "extra_metrics_are_finite_numbers": DividesByNothing,
    "utility_is_a_similarity": Unsupportive,
}


def test_the_good_metric_passes_everything(catalogue: Catalogue) -> None:
    catalogue.register(GoodMetric)
    results = run_checks("metric", "good_metric", catalogue=catalogue)
    assert [r for r in results if r.status != "passed"] == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_fails_its_own_check_alone(name: str, catalogue: Catalogue, failures: Failures) -> None:
    catalogue.register(BROKEN[name], "broken")
    assert failures("metric", "broken", catalogue) == [name]


def test_every_metric_check_has_its_broken_metric() -> None:
    assert set(BROKEN) == {c.name for c in metric_module.CHECKS}
