"""Whole runs against a small server: what stands in the run folder, what happens when the server gives up, and what is
said when it cannot be used.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moco_core import cli
from moco_core.catalogue import Catalogue
from moco_core.config import parse_settings
from moco_core.runs.results import RunResult
from moco_core.runs.runner import Benchmark
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
    cached = again["tokens"]["respond"]["alpha"]  # it costs what it cost, and is spared now
    assert cached["money"] == cached["saved"]["money"] == usage["money"]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 4 and not [p for p in files if KEY.encode() in p.read_bytes()]


def test_a_bill_that_is_not_known_is_told_as_unknown(server: StubServer, tmp_path: Path) -> None:
    reply = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}
    server.fault = lambda request: Fault(body=json.dumps(reply)) if request.number % 2 else None
    for _ in range(2):  # paid now, and from the cache
        record = json.loads((run(server, tmp_path, max_in_flight=1).folder / "run.json").read_text())
        rows = record["tokens"]["respond"].values()
        assert sum(row["unpriced"] for row in rows) == 4 and sum(row["money"] for row in rows) > 0


def test_a_run_goes_on_where_the_server_gave_up(server: StubServer, tmp_path: Path) -> None:
    server.fault = lambda request: Fault(status=500) if request.number > 2 else None
    broken = run(server, tmp_path, retries=0, max_in_flight=1)
    assert broken.status == "failed" and broken.failed == 2  # one voter is enough for the other two
    assert "answers 500" in broken.first_error and KEY not in broken.first_error
    server.fault = lambda request: None
    server.requests.clear()
    whole = run(server, tmp_path, retries=0)
    assert whole.status == "finished" and len(server.requests) == 8 - 2


BAD = {
    "no server": ({"base_url": "http://127.0.0.1:9/v1"}, "no server at http://127.0.0.1:9/v1"),
    "a refused key": ({"api_key": KEY + "-old"}, "the key in OPENAI_API_KEY was refused (401); check the key"),
    "no key": ({"api_key": ""}, "no key was given in OPENAI_API_KEY, and it was refused (401); check the key"),
    "a model that is not there": (
        {"models": ["alpha", "bta"]},
        "does not list the model 'bta' (entry 'bta'), did you mean",
    ),
    "no log-probabilities": ({"logprobs": "yes", "models": ["beta"]}, "gives no log-probabilities for 'beta'"),
}


@pytest.mark.parametrize(("given", "line"), BAD.values(), ids=list(BAD))
def test_what_is_wrong_with_a_server_is_one_line_before_any_question(
    server: StubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    line: str,
) -> None:
    """The first model may be fine: nobody is asked until all are known to be there."""
    server.logprobs = False
    monkeypatch.chdir(tmp_path)
    pool = {"base_url": server.url, "api_key": KEY, "models": ["alpha", "beta"], "logprobs": "no", **given}
    options = [f"-opool.{key}={json.dumps(value)}" for key, value in pool.items()]
    where = ["--cache", str(tmp_path / "calls.sqlite"), "--out", str(tmp_path / "runs")]
    code = cli._run(
        ["run", "majority_vote", "-p", "openai", "-d", "skills", "--dev", "2", "--test", "4", *where, *options]
    )
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.count("\n") == 1, err
    assert err.startswith("error: pool openai: ") and line in err and KEY not in err
    questions = [r for r in server.requests if r.body["max_tokens"] > 1]
    assert not questions
