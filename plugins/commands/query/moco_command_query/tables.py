"""What is asked: runs as tables, row by row from their folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from moco_core import RunResult, StoreError, read_records
from moco_core.runs.records import read_run
from moco_toolkit_comparison.costs import NOT_OURS, costs, total

__all__ = ["TABLES", "Table"]

Row = Mapping[str, Any]


@attrs.frozen
class Table:
    """A table: its columns with their types in DuckDB, and the rows that runs have in it.

    ``rows`` is told where a part cannot be read.
    """

    columns: Mapping[str, str]
    rows: Callable[[Sequence[RunResult], list[str]], Iterator[Row]]


def _runs(runs: Sequence[RunResult], problems: list[str]) -> Iterator[Row]:
    for run in runs:
        try:
            head = read_run(run.folder)
        except StoreError as error:  # it went away meanwhile
            problems.append(str(error))
            continue
        score = _part(head, "score")
        money = total(line for line in costs(run) if line.phase not in NOT_OURS)["money"]
        yield {
            "run": str(run.folder),
            "label": run.label,
            "role": run.role,
            "method": run.method,
            "dataset": run.dataset,
            "metric": run.metric,
            "seed": run.seed,
            "status": run.status,
            "score": score.get("mean"),
            "low": score.get("low"),
            "high": score.get("high"),
            "n": score.get("n"),
            "questions": run.questions,
            "failed": run.failed,
            "unparsed": run.unparsed,
            "truncated": run.truncated,
            "dev_mean": run.dev_mean,
            "chance": run.chance,
            "calls": run.calls,
            "cached_calls": run.cached_calls,
            "prompt_tokens": run.usage.prompt_tokens,
            "completion_tokens": run.usage.completion_tokens,
            "seconds": run.seconds,
            "money": None if money.at_least else money.value,
            "started": _date(head.get("started")),
            "source": _part(head, "source").get("folder"),
            "error": run.first_error,
            "config": dict(run.config),
        }


def _units(runs: Sequence[RunResult], problems: list[str]) -> Iterator[Row]:
    for run in runs:
        for unit in run.units:
            yield {"run": str(run.folder), "id": unit.id, "subset": unit.subset, "score": unit.score}


def _questions(runs: Sequence[RunResult], problems: list[str]) -> Iterator[Row]:
    for run, number, row in _records(runs, problems):
        reply, answer = _part(row, "reply"), _part(row, "answer")
        yield {
            "run": str(run.folder),
            "number": number,
            "id": row.get("id"),
            "subset": row.get("subset"),
            "question": row.get("question"),
            "expected": row.get("references"),
            "reply": reply.get("text"),
            "finish": reply.get("finish"),
            "answer": answer.get("text"),
            "status": answer.get("status"),
            "score": row.get("score"),
            "error": row.get("error"),
            "abstained": reply.get("abstained"),
            "seconds": row.get("seconds"),
            "calls": len(_calls_in(row)),
            "meta": reply.get("meta"),
            "score_meta": row.get("score_meta"),
        }


def _calls(runs: Sequence[RunResult], problems: list[str]) -> Iterator[Row]:
    for run, _, row in _records(runs, problems):
        for number, call in enumerate(_calls_in(row), 1):
            yield (
                {"run": str(run.folder), "id": row.get("id"), "number": number}
                | {name: call.get(name) for name in ("model", "kind", "cached", "prompt_tokens", "completion_tokens")}
                | {name: call.get(name) for name in ("seen", "said", "key")}
            )


def _records(runs: Sequence[RunResult], problems: list[str]) -> Iterator[tuple[RunResult, int, dict[str, Any]]]:
    for run in runs:
        for place, row in enumerate(read_records(run.folder, problems)):
            yield run, row.get("index", place), row


def _calls_in(row: Row) -> list[Mapping[str, Any]]:
    found = row.get("calls")
    return [call for call in found if isinstance(call, Mapping)] if isinstance(found, list) else []


def _part(row: Row, name: str) -> Mapping[str, Any]:
    found = row.get(name)
    return found if isinstance(found, Mapping) else {}


def _date(value: Any) -> str | None:
    try:
        return datetime.fromtimestamp(value, UTC).replace(tzinfo=None).isoformat(sep=" ")
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _columns(text: str) -> dict[str, str]:
    """Return names and types from ``name TYPE, name TYPE``."""
    return dict(part.split() for part in text.split(","))


TABLES: Mapping[str, Table] = {
    "runs": Table(
        _columns(
            "run VARCHAR, label VARCHAR, role VARCHAR, method VARCHAR, dataset VARCHAR, metric VARCHAR, seed BIGINT, "
            "status VARCHAR, score DOUBLE, low DOUBLE, high DOUBLE, n BIGINT, questions BIGINT, failed BIGINT, "
            "unparsed DOUBLE, truncated DOUBLE, dev_mean DOUBLE, chance DOUBLE, calls BIGINT, cached_calls BIGINT, "
            "prompt_tokens BIGINT, completion_tokens BIGINT, seconds DOUBLE, money DOUBLE, started TIMESTAMP, "
            "source VARCHAR, error VARCHAR, config JSON"
        ),
        _runs,
    ),
    "units": Table(_columns("run VARCHAR, id VARCHAR, subset VARCHAR, score DOUBLE"), _units),
    "questions": Table(
        _columns(
            "run VARCHAR, number BIGINT, id VARCHAR, subset VARCHAR, question VARCHAR, expected VARCHAR[], reply VARCHAR, "
            "finish VARCHAR, answer VARCHAR, status VARCHAR, score DOUBLE, error VARCHAR, abstained BOOLEAN, "
            "seconds DOUBLE, calls BIGINT, meta JSON, score_meta JSON"
        ),
        _questions,
    ),
    "calls": Table(
        _columns(
            "run VARCHAR, id VARCHAR, number BIGINT, model VARCHAR, kind VARCHAR, cached BOOLEAN, prompt_tokens BIGINT, "
            "completion_tokens BIGINT, seen JSON, said JSON, key VARCHAR"
        ),
        _calls,
    ),
}
