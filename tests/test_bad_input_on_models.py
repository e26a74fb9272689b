"""Trouble with real models, through the command line: interruption, two runs at once, unusable replies, wrong pools."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from string import ascii_letters, digits

import command_line
import pytest
from command_line import stored

from moco_core.runs.records import read_records

pytest.importorskip("torch")

RUN = ["run", "majority_vote", "-d", "skills", "--dev", "16", "--test", "32"]


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    return command_line.here(tmp_path, monkeypatch, capsys)


def rows(out):
    return {row["label"]: row for row in json.loads(out)[0]["rows"]}


def start(*extra):
    # a test suite in the background may have inherited "ignore SIGINT"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from moco_core.cli import main; main()"
    command = [sys.executable, "-c", code, *RUN, *extra]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_no_stored_call_is_made_again_after_an_interruption(moco, tmp_path, how):
    cache = tmp_path / "calls.sqlite"
    process = start()
    until = time.monotonic() + 120
    while stored(cache) < 40 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    before = stored(cache)
    assert before >= 40
    if how is signal.SIGINT:
        assert process.returncode == 130 and b"Traceback" not in err
    code, out, _ = moco(*RUN, "--json")
    assert code == 0
    made = sum(row["calls"] - row["cached_calls"] for row in rows(out).values())
    assert made == stored(cache) - before
    calm_code, calm, _ = moco(*RUN, "--json", "--cache", str(tmp_path / "calm.sqlite"), "--out", "calm")
    assert calm_code == 0
    assert {k: r["score"] for k, r in rows(calm).items()} == {k: r["score"] for k, r in rows(out).items()}


def test_two_runs_share_one_cache_at_the_same_time(moco, tmp_path):
    both = [start("--out", name, "--json") for name in ("one", "two")]
    outs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    first, second = (rows(out) for out, _ in outs)
    assert {k: r["score"] for k, r in first.items()} == {k: r["score"] for k, r in second.items()}


def test_noise_is_recorded_as_text_and_counted_as_unparsed(moco):
    """Far too hot sampling gives endless replies of arbitrary bytes."""
    hot = ["-o", "sampling.temperature=50", "-o", "sampling.max_new_tokens=24", "--seed", "3"]
    code, out, _ = moco(*RUN, *hot, "-o", "pool.models=[letters, facts]", "--json")
    assert code == 0
    row = rows(out)["letters"]
    assert row["status"] == "finished" and row["truncated"] > 0.8 and row["unparsed"] > 0.3
    records = list(read_records(Path(row["folder"])))
    assert len(records) == 32
    assert any("\N{REPLACEMENT CHARACTER}" in r["reply"]["text"] for r in records)
    assert all(r["answer"]["status"] in ("parsed", "unparsed", "invalid") for r in records)


def test_empty_replies_are_scored_and_counted(moco):
    """The first characters that a reply can begin with end it."""
    code, out, _ = moco(*RUN, "-o", f"sampling.stop={json.dumps(list(ascii_letters + digits))}", "--json")
    assert code == 0
    vote = rows(out)["majority_vote"]
    assert vote["status"] == "finished" and vote["score"]["mean"] == 0 and vote["unparsed"] == 1
    assert [r["reply"]["text"] for r in read_records(Path(vote["folder"]))] == [""] * 32


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["run", "greedy_soup", "-d", "skills", "-o", "pool.models=[letters]"], "at least 2 models"),
        (["run", "logit_fusion", "-d", "skills", "-o", "pool.models=[letters]"], "at least 2 models"),
        (["run", "majority_vote", "-d", "skills", "-o", "pool.models=[leters]"], "leters"),
        (
            ["run", "majority_vote", "-d", "skills", "-p", "transformers", "-o", "pool.models=[/nowhere/model]"],
            "/nowhere",
        ),
        (["run", "majority_vote", "-d", "skills", "-o", "dataset.test_size=0"], "test split is empty"),
    ],
)
def test_a_pool_that_cannot_serve_is_refused_before_any_weight_is_loaded(moco, tmp_path, args, line):
    code, out, err = moco(*args)
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    assert code == 2 and out == "" and len(errors) == 1 and line in errors[0], err
    assert not (tmp_path / "runs").exists() and stored(tmp_path / "calls.sqlite") == 0


def test_a_device_that_is_not_there_ends_the_run_before_any_question(moco, tmp_path):
    code, out, err = moco(*RUN, "-o", "pool.device=cuda:77")
    assert code == 2 and out == "" and stored(tmp_path / "calls.sqlite") == 0
    (line,) = (text for text in err.splitlines() if text.startswith("error: "))
    assert "'cuda:77' is not on this machine; it has " in line
