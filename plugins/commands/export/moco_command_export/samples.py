"""Samples as lm-evaluation-harness writes them: a ``samples_TASK_DATE.jsonl`` for every run, in a folder of its system."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from moco_core import RunResult, StoreError, read_records
from moco_core.runs.records import read_run

__all__ = ["file_name", "sample_of", "scored", "write_lines", "write_samples"]


def write_samples(runs: Sequence[RunResult], folder: Path) -> list[str]:
    """Write the samples of every run; return a line for each, and what was left out. Raises StoreError."""
    said = []
    several = {r.label for r in runs if any(o.label == r.label and o.seed != r.seed for o in runs)}
    for run in runs:
        problems: list[str] = []
        rows = [*scored(run, problems)]
        if not rows:
            said.append(f"{run.folder}: left out, no question has a score of its own")
            continue
        name = f"{run.label}_s{run.seed}" if run.label in several else run.label
        path = folder / file_name(name) / f"samples_{file_name(run.dataset)}_{_date(run)}.jsonl"
        write_lines(path, [sample_of(run, row) for row in rows])
        lost = run.questions - len(rows)
        said.append(f"{path}: {len(rows)} samples" + (f", {lost} without a score left out" if lost else ""))
        said += problems
    return said


def scored(run: RunResult, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the records that have a score and say what was asked and replied; ``problems`` names the others."""
    lacking = 0
    for place, row in enumerate(read_records(run.folder, problems)):
        score, reply, answer = row.get("score"), row.get("reply"), row.get("answer")
        if not isinstance(score, int | float) or not math.isfinite(score):
            continue
        if isinstance(reply, dict) and isinstance(answer, dict) and isinstance(row.get("question"), str):
            unread = {"text": "", "status": "unknown"}
            yield {"index": place, **row, "reply": {"text": "", **reply}, "answer": unread | answer}
        else:
            lacking += 1
    if lacking:
        problems.append(f"{run.folder}/records.jsonl: {lacking} records do not say what was asked and replied; left out")


def sample_of(run: RunResult, row: dict[str, Any]) -> dict[str, Any]:
    """Return a record in that form; the metric stands as a filter too, since it reads the answer out of the reply."""
    doc = {
        name: row.get(name)
        for name in ("id", "subset", "question", "references", "choice", "system", "history")
        if name in row
    }
    references, sampling = row.get("references") or [], run.config.get("sampling", {})
    target = str(references[0] if references else row.get("choice"))
    decoding = {
        "until": list(sampling.get("stop", ())),
        "do_sample": sampling.get("temperature", 0) > 0,
        "temperature": sampling.get("temperature", 0),
        "max_gen_toks": sampling.get("max_new_tokens"),
    }
    return {
        "doc_id": row["index"],
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": row["question"], "arg_1": decoding}},
        "resps": [[row["reply"]["text"]]],
        "filtered_resps": [row["answer"]["text"]],
        "filter": run.metric,
        "metrics": [run.metric],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(row["question"]),
        "target_hash": _hash(target),
        run.metric: row["score"],
    }


def write_lines(path: Path, rows: Sequence[Any]) -> bytes:
    """Write JSON lines and return what was written. Raises StoreError."""
    # halves of surrogate pairs are no text elsewhere
    body = b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None
    return body


def file_name(text: str) -> str:
    """Return a name as a part of a path on every system."""
    return re.sub(r"[^\w.+-]+", "_", text).strip("._ ")[:100] or "unnamed"


def _date(run: RunResult) -> str:
    """Return when the run began, as lm-eval writes it into names of files."""
    return datetime.fromtimestamp(read_run(run.folder).get("started", 0)).isoformat().replace(":", "-")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
