"""Whole runs against a small server: what stands in the run folder, and what happens when the server gives up."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moco_core.catalogue import Catalogue
from moco_core.config import parse_settings
from moco_core.runner import Benchmark, RunResult
from moco_pool_openai.testing import Fault, StubServer

pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
pytest.importorskip("moco_method_majority_vote", reason="needs a method")

KEY = "sk-test-4242424242"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StubServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with StubServer(key=KEY) as stub:
        yield stub


def run(server: StubServer, folder: Path, **options: Any) -> RunResult:
    models = [{"model": m, "prices": [1.0, 1.0]} for m in ("alpha", "beta")]
    pool = {"name": "openai", "base_url": server.url, "models": models, "logprobs": "no", "backoff": [0.001, 0.01]}
    data = {
        "pool": {**pool, "api_key": KEY, **options},
        "method": "majority_vote",
        "dataset": "skills",
        "dev": 0,
        "test": 4,
        "baselines": False,
        "out": str(folder / "runs"),
    }
    catalogue = Catalogue(os.environ)
    benchmark = Benchmark(parse_settings(data, catalogue), catalogue, cache=folder / "calls.sqlite")
    (result,) = asyncio.run(benchmark.run())
    return result


def test_the_key_is_written_nowhere_and_money_is(server: StubServer, tmp_path: Path) -> None:
    result = run(server, tmp_path)
    assert result.status == "finished"
    record = json.loads((result.folder / "run.json").read_text())
    assert record["config"]["pool"]["api_key"] == "***"
    usage = record["tokens"]["respond"]["alpha"]
    assert usage["money"] == pytest.approx((usage["prompt"] + usage["completion"]) / 1e6)
    again = json.loads((run(server, tmp_path).folder / "run.json").read_text())
    assert "money" not in again["tokens"]["respond"]["alpha"]  # answered by the cache: nothing was paid
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 4 and not [p for p in files if KEY.encode() in p.read_bytes()]


def test_a_run_goes_on_where_the_server_gave_up(server: StubServer, tmp_path: Path) -> None:
    server.fault = lambda request: Fault(status=500) if request.number > 2 else None
    broken = run(server, tmp_path, retries=0, max_in_flight=1)
    assert broken.status == "failed" and broken.failed == 2  # one voter is enough for the other two
    assert "answers 500" in broken.first_error and KEY not in broken.first_error
    server.fault = lambda request: None
    server.requests.clear()
    whole = run(server, tmp_path, retries=0)
    assert whole.status == "finished" and len(server.requests) == 8 - 2


def test_a_refused_key_is_one_line(server: StubServer, tmp_path: Path) -> None:
    result = run(server, tmp_path, api_key=KEY + "-old")
    assert result.status == "failed" and result.failed == 4 and not server.requests
    assert "was refused (401); check the key" in result.first_error and KEY not in result.first_error
