"""Runs in the shared schema of Every Eval Ever, version 0.3.0 (arXiv 2606.14516): a log per run, and its samples beside it."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from moco_command_export.samples import file_name, scored, write_lines
from moco_core import RunResult, StoreError, digest, estimate
from moco_core.runs.records import read_run

__all__ = ["write_logs"]

SCHEMA = "0.3.0"
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}


def write_logs(runs: Sequence[RunResult], folder: Path, organization: str) -> list[str]:
    """Write every run that has scores below ``folder/data`` and return a line for each.

    Where the package ``every-eval-ever`` is installed its own validator reads what was written. Raises StoreError.
    """
    said, written = [], []
    for run in runs:
        score = estimate(run.units, run.seed)
        if score is None:
            said.append(f"{run.folder}: left out, no scores")
            continue
        problems: list[str] = []
        head = read_run(run.folder)
        model = _model(run)
        place = "/".join(["data", file_name(run.dataset), *(file_name(part) for part in model["id"].split("/", 1))])
        stem = uuid.UUID(digest("every-eval-ever", run.id, head.get("started"))[:32], version=4)
        log = _log(run, head, model, organization)
        rows = [_sample(run, log, row) for row in scored(run, problems)]
        path = folder / place / f"{stem}.json"
        if rows:
            body = write_lines(path.with_name(f"{stem}_samples.jsonl"), rows)
            log["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": f"{place}/{stem}_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(body).hexdigest(),
                "total_rows": len(rows),
            }
        write_lines(path, [log])
        written += [path, *([path.with_name(f"{stem}_samples.jsonl")] if rows else [])]
        said += [f"{path}: {run.label}, {len(rows)} samples", *problems]
    return said + _validated(written, folder)


def _model(run: RunResult) -> dict[str, Any]:
    """Return what answered: a single model under its own name where that is one of the Hub, else a system of MoCo."""
    name = run.label if run.role == "baseline" and run.label.count("/") == 1 else f"moco/{file_name(run.label)}"
    details = {
        "role": run.role,
        "method": _json(run.config["method"]),
        "models": _json(list(run.models)),
        "fingerprints": _json(dict(run.models)),
        "deployment_type": "unknown",
        "model_availability": "unknown",
    }
    return {"name": run.label, "id": name, "developer": name.split("/")[0], "additional_details": details}


def _log(run: RunResult, head: Mapping[str, Any], model: Mapping[str, Any], organization: str) -> dict[str, Any]:
    ended = str(int(head.get("updated", 0)))
    config, sampling = run.config, run.config.get("sampling", {})
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{file_name(run.dataset)}/{model['id'].replace('/', '_')}/{run.id}",
        "evaluation_timestamp": datetime.fromtimestamp(head.get("started", 0), UTC).isoformat(),
        "retrieved_timestamp": ended,
        "source_metadata": {
            "source_name": "MoCo run folder",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": "moco", "version": run.versions.get("moco-core", "unknown")},
        "model_info": model,
        "evaluation_results": [
            {
                "evaluation_result_id": f"{run.id}/{run.metric}",
                "evaluation_name": run.dataset,
                "source_data": {
                    "dataset_name": str(config["dataset"]["name"]),
                    "source_type": "other",
                    "additional_details": {
                        "options": _json(config["dataset"]),
                        "test_fingerprint": run.test_fingerprint,
                        "questions": str(run.questions),
                    },
                },
                "metric_config": _metric(run),
                "score_details": _score(run),
                "generation_config": {
                    "generation_args": {theirs: sampling[o] for o, theirs in _SAMPLING.items() if o in sampling},
                    "additional_details": {"seed": str(run.seed), "stop": _json(sampling.get("stop", []))},
                },
            }
        ],
    }


def _metric(run: RunResult) -> dict[str, Any]:
    inside = all(0 <= u.score <= 1 for u in run.units)
    return {
        "evaluation_description": f"{run.metric} on {run.dataset}",
        "metric_id": f"moco.{run.metric}",
        "metric_name": run.metric,
        "lower_is_better": False,
        "score_type": "binary" if run.binary and inside else "continuous",
        "min_score": 0.0 if inside else "-Infinity",
        "max_score": 1.0 if inside else "Infinity",
        "additional_details": {"options": _json(run.config["metric"])},
    }


def _score(run: RunResult) -> dict[str, Any]:
    scores, found = [u.score for u in run.units], estimate(run.units, run.seed)
    assert found is not None, "runs without scores are left out"
    n = len(scores)
    deviation = math.sqrt(math.fsum((s - found.mean) ** 2 for s in scores) / (n - 1)) if n > 1 else None
    uncertainty: dict[str, Any] = {
        "confidence_interval": {
            "lower": found.low,
            "upper": found.high,
            "confidence_level": 0.95,
            "method": "wilson" if {*scores} <= {0.0, 1.0} else "bootstrap" if n <= 1000 else "normal",
        },
        "num_samples": n,
    }
    if deviation is not None:
        uncertainty["standard_deviation"] = deviation
        uncertainty["standard_error"] = {"value": deviation / math.sqrt(n), "method": "analytic"}
    details = {"status": run.status, "failed": str(run.failed)}
    details |= {f"subset {name}": f"{s['mean']!r} (n {s['n']})" for name, s in run.subsets.items()}
    details |= {name: repr(value) for name, value in run.extra_metrics.items()}
    return {"score": found.mean, "details": details, "uncertainty": uncertainty}


def _sample(run: RunResult, log: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    reply, answer, calls = row["reply"], row["answer"], row.get("calls", ())
    references = [str(r) for r in row.get("references") or ([row["choice"]] if row.get("choice") is not None else [])]
    prompt, completion = (sum(c.get(name, 0) for c in calls) for name in ("prompt_tokens", "completion_tokens"))
    read = {
        "turn_idx": 0,
        "source": "output.raw",
        "extracted_value": answer["text"],
        "extraction_method": run.metric,
        "is_terminal": True,
    }
    return {
        "schema_version": SCHEMA,
        "evaluation_id": log["evaluation_id"],
        "model_id": log["model_info"]["id"],
        "evaluation_name": run.dataset,
        "evaluation_result_id": log["evaluation_results"][0]["evaluation_result_id"],
        "sample_id": str(row["id"]),
        "sample_hash": hashlib.sha256("".join([row["question"], *references]).encode("utf-8", "replace")).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": row["question"], "reference": references},
        "output": {"raw": [reply["text"]]},
        "answer_attribution": [read] if answer["status"] == "parsed" else [],
        "evaluation": {"score": row["score"], "is_correct": row["score"] >= 1},
        "token_usage": {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion},
        "metadata": {
            "index": str(row["index"]),
            "subset": str(row.get("subset", "")),
            "answer_status": answer["status"],
            "calls": str(len(calls)),
        },
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _validated(files: Sequence[Path], folder: Path) -> list[str]:
    """Return what the schema's own package says of files. Raises StoreError if it does not take one."""
    if find_spec("every_eval_ever") is None:
        return ["not validated: the package every-eval-ever is not installed (it needs Python 3.12)"]
    validator = import_module("every_eval_ever.validator.validate")
    known = {file.relative_to(folder).as_posix(): file for file in files}
    for name, file in known.items():
        report = validator.validate_file(
            file,
            repo_path=name,
            available_files=frozenset(known),
            read_repo_file=lambda path: known[path].read_text("utf-8"),
            run_semantic_checks=True,
        )
        if not report.valid:
            raise StoreError(
                f"{file}: every-eval-ever does not take it: {report.errors[0]['loc']}: {report.errors[0]['msg']}"
            )
    return [f"{len(files)} files validated by every-eval-ever"]
