"""lm-eval's scores of replies: its filters, its process_results, its aggregation."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core import Answer, Question
from moco_toolkit_answers import read as read_answer
from moco_toolkit_harness.asking import choices_of

__all__ = ["aggregated", "harness_scores", "read_reply"]

_NEVER = -1e9
"""The log-likelihood of a choice that was not made. Finite: lm-eval divides it by lengths."""


def read_reply(question: Question, text: str) -> Answer:
    """Read the index of the choice out of a reply; or, where the answer is written, its text up to a stop string."""
    if question.choices:
        return read_answer(question, text)
    if question.labels:
        found = read_answer(question, text)
        keys = [read_answer(question, label).key for label in question.labels]
        return attrs.evolve(
            found, key=str(keys.index(found.key)) if found.key in keys and found.key is not None else None
        )
    stopped = _stopped(text, question.meta.get("until", ()))
    return Answer(key=stopped.strip() or None, text=stopped, status="parsed" if stopped.strip() else "unparsed")


def _stopped(text: str, until: Sequence[str]) -> str:
    """Return the text before the first stop string, as lm-eval's models return it."""
    ends = [at for stop in until if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


def harness_scores(task: Any, doc: Any, answer: Answer) -> dict[str, Any]:
    """Return what lm-eval makes of an answer to a document: the value of ``METRIC,FILTER`` for every metric and filter.

    A value is a number, or what the metric's aggregation takes. A reply in which no choice can be read scores as if a choice
    that is none had been made: 0 in every metric that is a number.
    """
    choices = choices_of(task, doc)
    if choices:
        chosen = int(answer.key) if answer.key is not None else None
        likely = [(0.0 if i == chosen else _NEVER, i == chosen) for i in range(len(choices))]
        if "acc_mutual_info" in task._metric_fn_list:  # and what the choices are worth without the question: the same
            likely += [(0.0, False)] * len(choices)
        responses: list[Any] = list(likely)
    else:
        responses = [answer.text or ""]
    made = task.construct_requests(
        doc=doc, ctx=[""] * len(choices) if task.multiple_input else "", metadata=(task.task_name, 0, 1)
    )
    instances = made if isinstance(made, list) else [made]
    for instance, response in zip(instances, responses, strict=True):
        instance.resps = [response]
    out: dict[str, Any] = {}
    for ensemble in task._filters:
        ensemble.apply(instances)
        found = task.process_results(doc, [i.filtered_resps[ensemble.name] for i in instances])
        out |= {f"{metric},{ensemble.name}": _plain(value) for metric, value in found.items()}
    if choices and answer.key is None:
        return {name: 0.0 if isinstance(value, float) else value for name, value in out.items()}
    return out


def aggregated(task: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the metrics of a whole run, each by the metric's own aggregation."""
    by_metric: Mapping[str, Any] = task.aggregation()
    out: dict[str, float] = {}
    for name in dict.fromkeys(n for row in rows for n in row):
        items = [_items(row[name]) for row in rows if name in row]
        aggregate = by_metric.get(name.rpartition(",")[0])
        value = aggregate(items) if aggregate is not None else sum(items) / len(items)
        if isinstance(value, numbers.Real):
            out[name] = float(value)
    return out


def _plain(value: Any) -> Any:
    """Return a value as JSON data."""
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value


def _items(value: Any) -> Any:
    """Undo what JSON does to tuples."""
    return tuple(value) if isinstance(value, list) else value
