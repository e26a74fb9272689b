"""A run and a question as lines for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from moco_core import RunResult, StoreError
from moco_core.cli.screen import printable, say
from moco_core.types import CallRecord, Span, Usage

__all__ = ["question_line", "run_lines", "show_question"]

_WIDE = 60


def run_lines(run: RunResult, head: Mapping[str, Any], counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what a run came to: how it ended, score, questions, models, costs, subsets, warnings and the first error."""
    name = f"{run.label} (single)" if run.role == "baseline" else run.label
    yield _line(f"{name} on {run.dataset}, seed {run.seed}: {run.status}{_date(head.get('started'))}")
    yield _line(f"  score      {_score(head.get('score'))} ({run.metric})")
    kinds = ", ".join(f"{counts.get(sort, 0)} {sort}" for sort in ("right", "wrong", "failed"))
    yield f"  questions  {counts.get('recorded', 0)} of {run.questions} recorded: {kinds}; {counts.get('unread', 0)} unread"
    yield _line(f"  models     {', '.join(run.models)}")
    try:
        usage, calls = run.usage, f"{run.calls:,} calls ({run.cached_calls:,} from the cache)"
        yield f"  cost       {calls}, {usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens, {run.seconds:.1f} s"
    except (KeyError, TypeError, ValueError, AttributeError):
        yield "  cost       unknown"
    for subset, facts in _mapping(head.get("subsets")).items():
        yield _line(f"  subset     {subset}: {_number(_mapping(facts).get('mean'))}, n {_mapping(facts).get('n')}")
    yield from (_line(f"  warning    {warning}") for warning in run.warnings)
    if run.first_error:
        yield _line(f"  error      {run.first_error}")


def question_line(record: Mapping[str, Any], sorts: set[str]) -> str:
    """Return a question as one line: index, score, what it is, id, and how it begins."""
    asked = " ".join(str(record.get("question", "")).split())
    begins = asked if len(asked) <= _WIDE else f"{asked[: _WIDE - 1]}…"
    cells = (f"{record.get('index', '-')!s:>6}", f"{_number(record.get('score')):>6}", f"{' '.join(sorted(sorts)):<12}")
    return _line("  ".join([*cells, str(record.get("id")), begins]))


def show_question(out: Any, run: RunResult, record: Mapping[str, Any]) -> None:
    """Print who said what for a question. Raises StoreError if its record is damaged."""
    from moco_core.cli.display import call_lines  # a run alone is shown without it

    subset = f" ({record['subset']})" if record.get("subset") else ""
    say(out, _line(f"question {record.get('index', '-')}: {record.get('id')}{subset}"))
    say(out, _line(f"{run.label} on {run.dataset}, seed {run.seed}"))
    say(out, "--- question")
    for line in _asked(record):
        say(out, line)
    say(out, "--- reference")
    for reference in _sequence(record.get("references")) or ["(none)"]:
        say(out, str(reference))
    if record.get("choice") is not None:
        say(out, f"choice {record['choice']} (from 0)")
    reply = _mapping(record.get("reply"))
    try:
        for line in call_lines([_call(call) for call in _sequence(record.get("calls"))]):
            say(out, line)
        spans = [
            Span(model=str(model), text=str(text), tokens=int(tokens)) for model, text, tokens in reply.get("spans", ())
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError(
            f"{run.folder}/records.jsonl: the record of question {record.get('id')!r} is damaged"
        ) from None
    say(out, "--- reply")
    _show_reply(out, str(reply.get("text", "")), spans)
    for line in _judged(record, reply):
        say(out, line)


def _show_reply(out: Any, text: str, spans: Sequence[Span]) -> None:
    if not spans:
        say(out, text)
        return
    from moco_core.cli.display import spans_text

    coloured, legend = spans_text(spans)
    out.print(coloured)
    for line in [*(() if out.is_terminal else (f"[{s.model}] {s.text!r}" for s in spans)), *legend]:
        say(out, line)


def _asked(record: Mapping[str, Any]) -> Iterator[str]:
    if record.get("system"):
        yield f"system> {record['system']}"
    for turn in _sequence(record.get("history")):
        yield "> ".join(map(str, _sequence(turn)))
    yield str(record.get("question", ""))


def _judged(record: Mapping[str, Any], reply: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was read from the reply, what it scored, and what was noted."""
    answer = _mapping(record.get("answer"))
    yield "--- score"
    if record.get("error"):
        yield f"failed: {record['error']}"
        return
    told = (
        f"{answer.get('text')!r}"
        if answer.get("status") == "parsed"
        else f"nothing ({answer.get('status', 'unknown')})"
    )
    abstained = ", abstained" if reply.get("abstained") else ""
    yield f"score {_number(record.get('score'))}; read as {told}; finish {reply.get('finish', 'unknown')}{abstained}"
    for name, noted in (("the method", reply.get("meta")), ("the metric", record.get("score_meta"))):
        if noted:
            yield f"{name} notes: {json.dumps(noted, ensure_ascii=False)}"


def _call(row: Mapping[str, Any]) -> CallRecord:
    return CallRecord(
        model=str(row["model"]),
        kind=str(row["kind"]),
        phase="respond",
        cached=bool(row.get("cached")),
        usage=Usage(int(row.get("prompt_tokens", 0)), int(row.get("completion_tokens", 0))),
        request=row.get("seen"),
        response=row.get("said"),
    )


def _line(text: str) -> str:
    """Return a text on one line that steers no terminal; spaces at its beginning stay."""
    return printable(text[: len(text) - len(text.lstrip(" "))] + text.strip().replace("\n", " "))


def _score(value: Any) -> str:
    found = _mapping(value)
    mean, low, high = (_number(found.get(name)) for name in ("mean", "low", "high"))
    return "-" if mean == "-" else f"{mean} [{low}, {high}], n {found.get('n')}"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) and math.isfinite(value) else "-"


def _date(started: Any) -> str:
    try:
        return f", begun {datetime.fromtimestamp(started):%Y-%m-%d %H:%M}"
    except (TypeError, ValueError, OverflowError, OSError):
        return ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []
