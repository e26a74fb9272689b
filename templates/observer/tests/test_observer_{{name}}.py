"""Tests of {{name}}: the conformance checks, and what this observer alone promises."""

import json
from pathlib import Path

from moco_core.events import RunFinished, RunStarted
from moco_toolkit_authoring import observer_checks
from {{package}} import {{Class}}, Options

test_conformance = observer_checks("{{name}}", settings=[{}, {"questions": True}])


def test_a_run_is_two_lines(tmp_path: Path) -> None:
    observer = {{Class}}(Options(path=str(tmp_path / "events.jsonl")))
    observer.moco_run_started(RunStarted(run_id="r", folder=tmp_path, config={}, label="cascade"))
    observer.moco_run_finished(RunFinished(run_id="r", folder=tmp_path, status="finished", summary={"score": None}))
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["run"]) for line in lines] == [("started", "r"), ("finished", "r")]
