"""The main job, end to end, through the command line: the embedded models on generated and on real questions."""

import json
import os
from pathlib import Path

import pytest

from moco_core import api, cli
from moco_core.runs.records import read_records, read_run

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("MOCO_REFERENCE_DATA") or ROOT.parent / "shared" / "datasets" / "data")
FIRST_FOUR = ["majority_vote", "multiagent_refine", "prompt_routing", "cascade"]

pytest.importorskip("torch")


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))

    def run(*args):
        code = cli._run([*args, "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return run


def bench(moco, *extra):
    methods = [part for name in FIRST_FOUR for part in ("--method", name)]
    (report,) = moco("bench", *methods, *extra)
    return {row["label"]: row for row in report["rows"]}


def test_the_demonstration_on_a_few_questions(moco, tmp_path):
    sizes = ("-o", "dev=16", "-o", "test=24")
    (report,) = moco("bench", str(ROOT / "templates/runs/demo.yaml"), *sizes)
    rows = {row["label"]: row for row in report["rows"]}
    singles = [row for row in rows.values() if row["role"] == "baseline"]
    assert set(FIRST_FOUR) < set(rows) and len(singles) == 5
    assert sum(row["best_single"] for row in singles) == 1
    for row in rows.values():
        assert row["status"] == "finished" and row["score"]["n"] == 24 and row["failed"] == 0
    # the vote asks each model once per question: with greedy baselines it is the same question, answered at 0.7
    record = next(read_records(Path(rows["majority_vote"]["folder"])))
    assert {c["model"] for c in record["calls"]} == {row["label"] for row in singles}
    assert read_run(Path(rows["cascade"]["folder"]))["dataset"]["test"] == 24

    (again,) = moco("bench", str(ROOT / "templates/runs/demo.yaml"), *sizes)
    assert [r["score"] for r in again["rows"]] == [r["score"] for r in report["rows"]]
    assert all(r["calls"] == r["cached_calls"] for r in again["rows"])

    for name in FIRST_FOUR:  # every fitted system can be loaded and answers as it did
        record = next(read_records(Path(rows[name]["folder"])))
        dataset = api.installed().load("dataset", "skills")
        example = next(e for e in dataset(dataset.Options()).examples("test") if e.id == record["id"])
        assert api.load(rows[name]["folder"]).ask(example.question).text == record["reply"]["text"]


def test_gsm8k_in_the_sources_own_form(moco, tmp_path):
    """Rows of my own in the Hub's schema, through the `path` option."""
    rows = [
        {"question": f"Ada has {n} pens and buys {n + 2} more. How many pens has she?", "answer": f"#### {2 * n + 2}"}
        for n in range(3, 15)
    ]
    path = tmp_path / "gsm8k.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    got = bench(
        moco,
        "-d",
        "gsm8k",
        "-o",
        f"dataset.path={path}",
        "--dev",
        "4",
        "--test",
        "6",
        "-o",
        "sampling.max_new_tokens=16",
    )
    assert {r["score"]["n"] for r in got.values()} == {6}
    record = next(read_records(Path(got["majority_vote"]["folder"])))
    assert "pens" in record["calls"][0]["seen"]["messages"][0][1]


@pytest.mark.parametrize("name", [pytest.param("gsm8k", marks=pytest.mark.slow), "arc_challenge"])
def test_real_questions_from_local_files(moco, name):
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"the reference study's items are not at {DATA}")
    limits = ("--dev", "4", "--test", "6", "-o", "sampling.max_new_tokens=16")
    got = bench(moco, "-d", name, "-o", f"dataset.path={path}", *limits)
    assert {(r["status"], r["score"]["n"]) for r in got.values()} == {("finished", 6)}
