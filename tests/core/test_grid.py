"""The runs of a grid, several at once or elsewhere: what they come to does not depend on how they are done."""

import json
from pathlib import Path

import pytest

import moco_core
from moco_core.catalogue import installed
from moco_core.runs.records import read_records, read_run
from moco_core.runs.results import read_results

GRID = Path(__file__).parent / "grid_plugins.py"
BENCH = ("bench", "--method", "draw", "--method", "toy_vote", "-d", "toys", "-p", "moody_pool", "--test", "12", "--dev", "6",
         "--plugin", str(GRID), "-o", "seeds=[0, 1]")  # fmt: skip


@pytest.fixture
def grid(moco, toys):
    installed().register_file(toys)
    installed().register_file(GRID)
    return moco


def told(folder):
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


def content(folder):
    """What a run came to but for its times and for which of several runs made a call first."""
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in read_records(folder)]
    for record in records:
        record["calls"] = [{k: v for k, v in c.items() if k not in ("cached", "seconds")} for c in record["calls"]]
    return records, (folder / "units.jsonl").read_text(), (folder / "system" / "system.json").read_text()


def test_single_models_on_three_devices_are_asked_at_once(grid):
    # each device waits for the other two: one run after the other would never begin to answer
    results = moco_core.run(pool="meeting_pool", dataset="toys", test=5, dev=2)
    assert [r.label for r in results.runs] == ["m0", "m1", "m2"] and {r.status for r in results.runs} == {"finished"}


def test_how_many_runs_are_done_at_once_changes_nothing_but_the_time(grid):
    outs = {}
    for parallel in (1, 4, 9):
        given = ("--out", f"p{parallel}", "--cache", f"p{parallel}.sqlite", "-o", f"parallel={parallel}")
        got = grid(*BENCH, *given)
        assert got.code == 0, got.err
        outs[parallel] = got.out
    assert outs[1] == outs[4] == outs[9] and len(outs[1].splitlines()) > 8
    folders = sorted(p.name for p in Path("p1").iterdir())
    assert len(folders) == 8
    for name in folders:
        assert content(Path("p1", name)) == content(Path("p4", name)) == content(Path("p9", name))


@pytest.mark.parametrize("parallel", [1, 2, 5])
def test_no_more_runs_than_allowed_are_under_way(grid, parallel):
    assert grid(*BENCH, "--observer", "tell", "-o", f"parallel={parallel}").code == 0
    under_way, most = 0, 0
    for name, _ in told(grid.folder):
        under_way += {"RunStarted": 1, "RunFinished": -1}.get(name, 0)
        most = max(most, under_way)
    assert under_way == 0 and most == parallel


def test_a_run_that_fails_leaves_those_beside_it_alone(grid):
    got = grid(
        "bench", "--method", "toy_vote", "-d", "toys", "-p", "toy_pool", "-o", "method.raises=true", "--test", "4"
    )
    assert got.code == 1 and len(got.errors) == 1 and "broken on purpose" in got.errors[0]
    assert [read_run(p.folder)["status"] for p in read_results("runs")] == ["finished"] * 3 + ["failed"]


def test_a_store_that_cannot_be_written_ends_the_grid_and_no_run_is_left_running(grid):
    assert grid(*BENCH).code == 0
    (target,) = (p for p in Path("runs").iterdir() if "toy_vote-s0" in p.name)
    (target / "run.json.tmp").symlink_to("/dev/full")
    got = grid(*BENCH)
    assert got.code == 1 and len(got.errors) == 1 and "No space left on device" in got.errors[0]
    assert "running" not in {read_run(p)["status"] for p in Path("runs").iterdir() if (p / "run.json").exists()}


# ---------------------------------------------------------------- executors


def test_runs_done_in_other_processes_give_the_same_table(grid, toys):
    here = grid(*BENCH, "--out", "here", "--cache", "here.sqlite")
    there = grid(*BENCH, "--out", "there", "--cache", "there.sqlite", "-o", "executor=elsewhere")
    assert there.code == 0, there.err
    assert there.out == here.out
    names = [sorted(p.name for p in Path(out).iterdir()) for out in ("here", "there")]
    assert names[0] == names[1] and len(names[0]) == 8
    for name in names[0]:
        assert content(Path("here", name)) == content(Path("there", name))


def test_all_processes_keep_to_one_budget_and_to_the_grids_prices_and_rule(grid):
    settings = ("-o", "prices={moody0: [1000, 1000], moody1: [1000, 1000]}", "-o", "verdict.level=0.9")
    got = grid(*BENCH, *settings, "-o", "executor=elsewhere", "--budget", "0.1")
    assert got.code == 1 and len(got.errors) == 1 and got.errors[0].startswith("error: the budget of 0.1 is used up (")
    heads = [json.loads(p.read_text()) for p in Path("runs").glob("*/run.json")]
    rows = [row for head in heads for phase in head["tokens"].values() for row in phase.values()]
    spent = sum(row["money"] - row["saved"]["money"] for row in rows)
    assert 1 < len(heads) < 8 and 0.1 - 1e-9 <= spent < 0.2 and {head["rule"]["level"] for head in heads} == {0.9}
    assert sorted(h["status"] for h in heads) == ["finished"] * (len(heads) - 1) + ["interrupted"]
    assert grid(*BENCH, *settings, "-o", "executor=elsewhere", "--budget", "9").code == 0
    assert not [p for p in Path("runs").iterdir() if p.is_file()]


def test_an_executor_that_fails_is_one_line_and_what_it_did_is_kept(grid):
    got = grid(*BENCH, "-o", "executor={name: elsewhere, fails: true}")
    assert got.code == 1
    assert got.errors == ["error: OSError: the other machine is gone (moco --debug shows where)"]
    assert [r.label for r in read_results("runs")] == ["toy_vote"]


def test_an_executor_is_a_plugin_like_others(grid):
    got = grid(*BENCH, "-o", "executor=elswhere")
    assert got.code == 2 and "no executor 'elswhere' is installed, did you mean 'elsewhere'?" in got.errors[0]
    got = grid(*BENCH, "-o", "executor={name: elsewhere, fail: 1}")
    assert got.code == 2 and got.errors == ["error: executor.fail: unknown key, did you mean 'fails'?"]


# ---------------------------------------------------------------- what observers are told


def test_observers_hear_of_a_grid_from_its_start_to_its_report(grid):
    got = grid(*BENCH, "--observer", "tell", "--json")
    events = told(grid.folder)
    assert events[0] == ["BenchmarkStarted", {"runs": 8, "models": 2, "folder": "runs"}]
    name, last = events[-1]
    assert name == "BenchmarkFinished" and last["status"] == "finished" and last["reports"] == json.loads(got.out)
    noted = [data for name, data in events if name == "RunNoted"]
    assert [(n["phase"], n["data"]) for n in noted] == [("fit", {"best": 0})] * 2
    answered = [d for name, d in events if name == "QuestionAnswered" and "draw-s0" in d["run_id"]]
    assert len(answered) == 12
    (folder,) = (p for p in Path("runs").iterdir() if "draw-s0" in p.name)
    for event, record in zip(sorted(answered, key=lambda e: e["index"]), read_records(folder), strict=True):
        assert (event["question_id"], event["question"]) == (record["id"], record["question"])
        assert (event["reply"], event["answer"]) == (record["reply"]["text"], record["answer"]["text"])


def test_a_grid_that_stops_still_tells_its_end(grid):
    (grid.folder / "runs").write_text("")  # no folder
    assert grid(*BENCH, "--observer", "tell").code == 1
    names = [name for name, _ in told(grid.folder)]
    assert names == ["BenchmarkStarted", "BenchmarkFinished"] and told(grid.folder)[-1][1]["status"] == "failed"
