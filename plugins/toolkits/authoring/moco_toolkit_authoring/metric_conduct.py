"""Checks of a metric's conduct: it reads in no time, changes nothing it is given, and counts what it scored."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import inspect
import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from moco_core.data import Metric, Scored
from moco_core.types import Question, Reply, Score, Unit
from moco_toolkit_authoring.elsewhere import PATIENCE, require_no_hash_order
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_authoring.metric import MetricCase
from moco_toolkit_authoring.suite import Check, as_text, check, require

__all__ = ["CHECKS"]

_SLOW = 0.3
"""Seconds of computing that reading a short text may take. Reading takes microseconds, and all other questions wait."""
_STEP = 0.6
"""Seconds that the next longer text may take, if each character made it four times slower."""
_LONGEST = 40
"""Characters up to which a repeated text grows step by step: what doubles with each is seen before it never ends."""
_LONG = 2560
"""How long it gets then, by leaps: what grows with the cube is seen."""
_REPEATED = ("a", "A", "1", " ", "\n", ",", ".", "-", "*", "(", "{", "\\", "$", "a ", "1,", "1 ", "1.", "a, ", "a-", "**a** ")
"""What a text repeats, of which all but its end fits."""
_END = "!"


@check(per_setting=False, after=["reading_is_deterministic"], apart=PATIENCE)
def hash_order_changes_nothing(case: MetricCase) -> None:
    """Two processes that order sets and hashes differently read the same answers and give the same scores."""
    require_no_hash_order(case, "answers or scores")


@check(after=["entry_point_resolves", "options_have_defaults"])
def reading_takes_no_time(case: MetricCase) -> None:
    """Reading a text of some 40 characters takes no time, whatever is repeated in it; nor does one of 2,000."""
    metric = case.metric()
    questions = list({e.question.answer_kind: e.question for e in case.plan.examples}.values())
    for question in questions:
        for repeated in _REPEATED:
            for length, took in _times(metric, question, repeated):
                require(
                    took < _SLOW,
                    f"reading {repeated!r} repeated to {length} characters, then {_END!r}, for {question.id!r} takes "
                    f"{took:.1f} s; look for a repetition within a repetition in a regular expression, such as (a+)+",
                )


def _times(metric: Metric[Any], question: Question, repeated: str) -> Iterator[tuple[int, float]]:
    """Yield lengths and the seconds of computing that each took. What takes ever longer is stopped in time."""
    length, took = 8, _seconds(metric, question, repeated, 8)
    while length < _LONGEST:
        yield length, took
        grow, least = 0, max(took, 1e-5)
        while least * 4 ** (grow + 1) < _STEP:
            grow += 1
        length = min(length + max(grow, 1), _LONGEST)
        took = _seconds(metric, question, repeated, length)
    yield length, took
    while length < _LONG:
        length = min(length * (4 if took * 4**4 < _STEP else 2), _LONG)
        took = _seconds(metric, question, repeated, length)
        yield length, took


def _seconds(metric: Metric[Any], question: Question, repeated: str, length: int) -> float:
    text = (repeated * length)[:length] + _END
    collecting = gc.isenabled()
    gc.disable()  # with much imported, a collection takes longer than any reading may
    start = time.thread_time()
    try:
        with contextlib.suppress(Exception):  # which another check tells
            metric.read(question, text)
        return time.thread_time() - start
    finally:
        if collecting:
            gc.enable()


@check(after=["scoring_is_deterministic", "extra_metrics_are_finite_numbers"])
def what_is_given_stays_as_it_is(case: MetricCase) -> None:
    """Reading, scoring and counting change neither the question, the example and the reply, nor the rows."""
    for example, held in zip(case.plan.examples, case.plan.held, strict=True):
        _require_same(f"read() or score() changes the example {example.id!r}", held, as_text(example))
    case.require_judge()
    metric = case.metric()
    rows: list[Scored] = []

    async def work() -> None:
        async with open_state(metric=metric) as state:
            for number, given in enumerate(case.plan.examples):
                reply = Reply(text=case.plan.texts[number % len(case.plan.texts)], meta={"votes": ["a", "b"]})
                before, example = as_text(reply), copy.deepcopy(given)
                score = metric.score(example, reply, state.context("metric", example.question))
                found: Score = await score if inspect.isawaitable(score) else score
                _require_same("score() changes the reply", before, as_text(reply))
                if found.value is not None:
                    found = attrs.evolve(found, value=float(number % 2))  # in no order
                rows.append(Scored(example=example, reply=reply, score=found))

    asyncio.run(work())
    before, order = as_text(rows), [id(row) for row in rows]
    for name, count in (("units", metric.units), ("extra_metrics", metric.extra_metrics)):
        count(rows)
        require([id(row) for row in rows] == order, f"{name}() changes the order of its rows; use sorted()")
        _require_same(f"{name}() changes its rows", before, as_text(rows))


def _require_same(what: str, then: str, now: str) -> None:
    start = next((i for i, (a, b) in enumerate(zip(then, now, strict=False)) if a != b), min(len(then), len(now)))
    place = slice(max(start - 20, 0), start + 40)
    require(then == now, f"{what}: {then[place]!r} became {now[place]!r}; copy what you change")


@check(after=["units_ignore_order", "no_rows_give_no_units"])
def units_average_to_the_score(case: MetricCase) -> None:
    """The mean of the units is the score: of one reply, of replies that all score the same; and better replies raise it."""
    metric = case.metric()
    rows = [Scored(example=e, reply=Reply(text=t), score=s) for e, t, s in case.table() if s.value is not None]
    for row in rows:
        if not row.example.group:
            _require_mean(metric, [row], f"one reply to {row.example.id!r}")
    best, worst = _one_each(rows, 1), _one_each(rows, -1)
    for some, value in ((best, 1.0), (worst, 0.0)):
        same = [row for row in some if row.score.value == value and not row.example.group]
        _require_mean(metric, same, f"{len(same)} replies")
    pairs = [(b, w) for b, w in zip(best, worst, strict=True) if b.score.value != w.score.value and not b.example.group]
    if len(pairs) > 1:
        half = [pair[number % 2] for number, pair in enumerate(pairs)]
        means = [_mean(metric.units(some)) for some in ([w for _, w in pairs], half, [b for b, _ in pairs])]
        require(means[0] < means[1] < means[2], f"better replies do not raise the mean of units(): {means}")


def _one_each(rows: Sequence[Scored], sign: int) -> list[Scored]:
    """Return the best reply of each example, or with -1 the worst."""
    chosen: dict[str, Scored] = {}
    for row in rows:
        held = chosen.setdefault(row.example.id, row)
        if sign * (row.score.value or 0.0) > sign * (held.score.value or 0.0):
            chosen[row.example.id] = row
    return list(chosen.values())


def _require_mean(metric: Metric[Any], rows: list[Scored], what: str) -> None:
    if not rows:
        return
    units, wanted = metric.units(rows), rows[0].score.value or 0.0
    told = f"units() of {what}, scored {wanted:g}"
    require(units, f"{told}, are none: what was scored is counted, wrong replies too")
    same = abs(_mean(units) - wanted) < 1e-9
    require(same, f"{told}, have the mean {_mean(units):g}; a run's score is the mean of its units")


def _mean(units: Sequence[Unit]) -> float:
    return sum(unit.score for unit in units) / len(units)


@check(after=["reading_is_deterministic", "scoring_is_deterministic"])
def scoring_leaves_nothing_behind(case: MetricCase) -> None:
    """Reading and scoring print nothing, and leave no file, thread or program behind.

    Nor do they move what the whole process shares: its working directory, generators, environment, locale, warnings, root
    logger, settings of torch.
    """
    case.traced()[1].require_none()


CHECKS: tuple[Check, ...] = (
    hash_order_changes_nothing,
    reading_takes_no_time,
    what_is_given_stays_as_it_is,
    units_average_to_the_score,
    scoring_leaves_nothing_behind,
)
