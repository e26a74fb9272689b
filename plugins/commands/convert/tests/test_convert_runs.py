"""Configurations of modelco, run as they are on small checkpoints that they name by path: loaded, asked, merged, scored.

``pytest plugins/commands/convert -m slow``: each loads models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moco_core import cli
from moco_core.catalogue import installed

pytestmark = pytest.mark.slow

ROWS = [
    {"id": i, "question": f"What is the sum of {i} and 3?", "choices": {"A": f"{i + 3}", "B": f"{i + 5}"}, "answer": "A"}
    for i in range(8)
]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.json").write_text(json.dumps({"name": "mine", "dev": ROWS[:4], "test": ROWS[4:]}))
    return tmp_path


@pytest.mark.parametrize(
    ("method", "hyperparameters", "ours"),
    [
        ("text_multiagent_refine", {"round": 1}, "multiagent_refine"),
        ("logit_logit_fusion", {}, "logit_fusion"),
        ("weight_greedy_soup", {}, "greedy_soup"),
    ],
)
def test_a_configuration_runs_from_its_checkpoints_to_the_table_and_so_does_its_yaml(
    method: str, hyperparameters: dict[str, Any], ours: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = pytest.importorskip("moco_pool_tiny.pool", reason="has small checkpoints").WEIGHTS
    given = {
        "method": method,
        "task": "mine",
        "task_type": "multiple_choice",
        "gpu_ids": [0],
        "model_names": [str(weights / name) for name in ("base", "facts", "arithmetic")],
        "hyperparameters": {"max_response_length": 12, "temperature": 0.5, "top_p": 0.9, "batch_size": 4, **hyperparameters},
    }
    Path("reference.json").write_text(json.dumps(given))
    assert cli._run(["bench", "reference.json", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "reference.json: gpu_ids: ignored" in err
    (report,) = json.loads(out)
    rows = {row["label"]: row for row in report["rows"]}
    assert set(rows) == {"base", "facts", "arithmetic", ours}
    assert all(row["status"] == "finished" and row["score"]["n"] == 4 for row in rows.values())
    assert rows[ours]["calls"] > 0 and rows[ours]["completion_tokens"] > 0

    assert cli._run(["convert", "reference.json", "--to", "ours.yaml"]) == 0
    assert yaml.safe_load(Path("ours.yaml").read_text())["method"]["name"] == ours
    capsys.readouterr()
    assert cli._run(["bench", "ours.yaml", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert [(r["label"], r["score"], r["folder"]) for r in again["rows"]] == [
        (r["label"], r["score"], r["folder"]) for r in report["rows"]
    ]
