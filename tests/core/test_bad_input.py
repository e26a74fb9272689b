"""Everything a user can get wrong: one clear line, the right exit code, nothing lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moco_core.runs.records import read_records, read_run

RUN = ("run", "toy_vote", "-d", "toys", "-p", "toy_pool")


def write(moco, text, name="c.yaml"):
    (moco.folder / name).write_text(text)
    return name


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("run", "toy_vot", "-d", "toys", "-p", "toy_pool"),
         "error: no method 'toy_vot' is installed, did you mean 'toy_vote'?\n"),
        (("run", "toys", "-d", "toys", "-p", "toy_pool"), "('toys' is a dataset)"),
        ((*RUN, "-o", "method.rouds=2"), "error: method.rouds: unknown key, did you mean 'rounds'?"),
        ((*RUN, "-o", "method.rounds=two"), "error: method.rounds: expected int, got str 'two'"),
        ((*RUN, "-o", "method.rounds=0"), "error: method.rounds: expected int >= 1, got 0"),
        ((*RUN, "-o", "pool.models=1"), "error: method 'toy_vote': needs at least 2 models, the pool has 1"),
        ((*RUN, "-o", "pool.models=0"), "error: pool 'toy_pool' has no models"),
        ((*RUN, "-o", "rounds"), "error: -o rounds: expected key=value, for example -o method.rounds=3"),
        ((*RUN, "-o", "sed=3"), "error: sed: unknown key, did you mean 'seed'?"),
        ((*RUN, "-o", "dataset.size=0"), "error: dataset 'toys': its test split is empty"),
        ((*RUN, "-o", "dataset.duplicate=true"), "error: dataset 'toys', dev split: two examples have the id 'same'"),
        ((*RUN, "-o", "dataset.overlap=true"), "error: dataset 'toys': 'same' is in both dev and test"),
        (("run", "toy_stepper", "-d", "toys", "-p", "toy_pool"),
         "method 'toy_stepper': model 'toy0' cannot advance token by token with next-token logits and roll-back "
         "(capability 'step'); `moco list pool --can step` names the pools whose models can"),
        (("run", "toy_vote", "-p", "toy_pool"), "error: dataset: missing; name one"),
        (("run", "nowhere.yaml"), "error: nowhere.yaml: no such file"),
        (("run", "voting", "-d", "toys", "-p", "toy_pool"),
         "error: no method 'voting' is installed (registered by hand: 'toy_stepper', 'toy_vote')\n"),
        (("show", "method", "runs/none"), "error: no method 'runs/none' is installed (registered by hand:"),
        (("ask", "toy_vote", "1 + 1", "-p", "toy_pool", "--kind", "intger"),
         "error: --kind intger: expected one of"),
        (("ask", "toy_vote", "", "-p", "toy_pool"), "error: the question is empty"),
        (("cache", "prune", "--keep", "lots"), "error: --keep: expected a number and a unit (k, m, g, t), such as 2G"),
        (("cache", "explain", "nowhere"), "nowhere: not a run folder (no run.json)"),
    ],
)  # fmt: skip
def test_one_line_and_exit_code(moco, served, args, line):
    got = moco(*args)
    assert got.code == (1 if "run folder" in line else 2)
    assert line in got.err and "Traceback" not in got.err
    assert served() == []


def test_all_problems_of_a_file_come_at_once_with_their_lines(moco):
    name = write(
        moco,
        "pool:\n  name: toy_pool\n  modles: 3\nmethod:\n  name: toy_vote\n  rounds: 0\ndataset: toys\nseed: x\ntset: 5\n",
    )
    got = moco("run", name)
    assert got.code == 2
    assert got.errors == [
        "error: c.yaml: line 9: tset: unknown key, did you mean 'test'?",
        "error: c.yaml: line 8: seed: expected int, got str 'x'",
        "error: c.yaml: line 3: pool.modles: unknown key, did you mean 'models'?",
        "error: c.yaml: line 6: method.rounds: expected int >= 1, got 0",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("pool: [toy_pool\n", "error: c.yaml: line 2, column 1: not valid YAML"),
        ("- a\n- b\n", "error: c.yaml: expected a mapping of keys, got list"),
        ("pool: toy_pool\nmethod: {rounds: 1}\ndataset: toys\n", "method: expected the name of a method"),
        (
            "pool: toy_pool\nmethod: toy_vote\nmethods: [toy_vote]\ndataset: toys\n",
            "give either method or methods, not both",
        ),
        ("method: toy_vote\ndataset: toys\nseed: 3\nseeds: [0]\n", "c.yaml: seed: give either seed or seeds, not both"),
        (
            "method: toy_vote\ndataset: toys\nseeds: []\n",
            "c.yaml: line 3: seeds: expected one or more seeds, each once",
        ),
        ("method: toy_vote\ndataset: toys\nseeds: [1, 1]\n", "line 3: seeds: expected one or more seeds, each once"),
    ],
)
def test_broken_files(moco, text, line):
    got = moco("run", write(moco, text))
    assert got.code == 2 and line in got.err


def test_a_plugin_that_raises_on_import(moco):
    bad = write(moco, "raise RuntimeError('half\\nfinished')\n", "bad.py")
    got = moco("list", "--plugin", bad)
    assert got.code == 2 and got.errors == ["error: --plugin bad.py: RuntimeError: half finished"]
    assert moco("list", "--plugin", "absent.py").errors == ["error: --plugin absent.py: no such file"]
    assert "defines no pool, method" in moco("list", "--plugin", write(moco, "x = 1\n", "empty.py")).err


def test_debug_shows_the_traceback(moco, toys):
    with pytest.raises(Exception, match="unknown key"):
        moco("--debug", *RUN, "-o", "method.rouds=2", "--plugin", str(toys))


def test_usage_errors(moco):
    assert moco("rum", toys=False).code == 2
    assert "Did you mean 'run'?" in moco("rum", toys=False).err
    assert moco("run", toys=False).code == 2


def test_one_failing_question_is_recorded_and_loses_no_other(moco):
    got = moco(*RUN, "-o", "pool.fails=1007 + 7", "--json")
    assert got.code == 1
    rows = {r["label"]: r for r in json.loads(got.out)[0]["rows"]}
    assert rows["toy_vote"]["failed"] == 1 and rows["toy_vote"]["score"]["n"] == 39
    assert re.search(r"toy_vote: 1 of 40 questions failed: question t1007: toy\d: refuses this prompt", got.err)
    run = Path(rows["toy_vote"]["folder"])
    failed = [r for r in read_records(run) if r["error"]]
    assert [r["id"] for r in failed] == ["t1007"] and read_run(run)["status"] == "failed"


def test_a_method_that_breaks_in_fit_leaves_the_baselines(moco):
    got = moco(*RUN, "-o", "method.raises=true")
    assert got.code == 1 and "ValueError: broken on purpose" in got.err and "toy2 (single)" in got.out


def start(moco, toys, *extra):
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # a test suite in the background may have inherited that signals are ignored
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "signal.signal(signal.SIGHUP, signal.SIG_DFL); from moco_core.cli import main; main()"
    command = [sys.executable, "-c", code, *RUN, "--plugin", str(toys)]
    options = ["-o", "pool.delay=0.03", "-o", "pool.batch=4", "-o", "in_flight=8", *extra]
    return subprocess.Popen(
        [*command, *options], cwd=moco.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_run_goes_on_where_it_was(moco, toys, served, how):
    process = start(moco, toys)
    deadline = time.monotonic() + 60
    while len(served()) < 60 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    before = served()
    assert 60 <= len(before) < 240
    heads = [read_run(p.parent) for p in (moco.folder / "runs").glob("*/run.json")]
    assert "interrupted" in {h["status"] for h in heads} <= {"interrupted", "finished"}
    why = {h["error"] for h in heads if h["status"] == "interrupted"}
    if how is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL and why == {"its process was killed"}
    else:
        assert process.returncode == 130 and b"run the same command again" in err and b"Traceback" not in err
        assert why == {"stopped before its end"}
    again = start(moco, toys)
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err.decode()
    calls = served()
    # a batch whose engine had answered but that was not yet stored may be asked again after kill -9, nothing else
    repeated = len(calls) - len(set(calls))
    assert repeated <= (4 if how is signal.SIGKILL else 0)
    assert len(set(calls)) == 240
    heads = [read_run(p.parent) for p in (moco.folder / "runs").glob("*/run.json")]
    assert [h["status"] for h in heads] == ["finished"] * 4
    assert not list((moco.folder / "runs").glob("*/previous.*"))


def test_two_runs_at_once_on_one_cache(moco, toys, served):
    first, second = start(moco, toys, "--out", "one"), start(moco, toys, "--out", "two")
    outs = [p.communicate(timeout=90) for p in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert outs[0][0] == outs[1][0]


def test_an_unwritable_place_is_one_line(moco):
    (moco.folder / "file").write_text("")
    got = moco(*RUN, "--out", "file/runs")
    assert got.code == 1
    assert got.errors[0].startswith("error: cannot write the run folder file/runs/")
    assert got.errors[0].endswith("choose another place with --out")
    got = moco(*RUN, "--cache", "file/c.sqlite")
    assert got.code == 1 and "choose another with --cache PATH" in got.errors[0]


def test_a_full_disk_is_one_line_and_corrupts_nothing(moco, toys):
    """/dev/full answers every write with ENOSPC, like a full disk."""
    runs = moco.folder / "runs"
    moco(*RUN)
    target = next(p for p in runs.iterdir() if "toy_vote" in p.name)
    (target / "run.json.tmp").symlink_to("/dev/full")
    got = moco(*RUN)
    assert got.code == 1 and "No space left on device" in got.errors[0] and len(got.errors) == 1
    (target / "run.json.tmp").unlink(missing_ok=True)
    assert moco(*RUN).code == 0 and read_run(target)["status"] == "finished"


def test_secrets_stay_out_of_messages(moco):
    got = moco(*RUN, "-o", "pool.api_key=12345")
    assert got.code == 2 and "expected str" in got.err
