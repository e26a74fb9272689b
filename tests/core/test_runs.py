"""What a run leaves behind: its folder, read again, is all that a table needs."""

import json
import shutil
from pathlib import Path

import pytest

import moco_core
from moco_core.catalogue import installed
from moco_core.errors import StoreError
from moco_core.runs.records import read_records, read_run, read_units
from moco_core.runs.report import make_reports
from moco_core.runs.results import RunResult, read_results
from moco_core.types import Unit

ODD = Path(__file__).parent / "odd_plugins.py"
WRITTEN = Path(__file__).parent / "written_by_format_1"


@pytest.fixture
def odd(moco, toys):
    installed().register_file(toys)
    installed().register_file(ODD)
    return moco


def run(**config):
    if "datasets" not in config:
        config.setdefault("dataset", "lossy")
    return moco_core.run(**{"pool": "tardy_pool", "baselines": False, **config})


def refuse_constants(name):
    raise AssertionError(f"{name} is not JSON")


def files_of(folder):
    """Every JSON document below a folder, read as strictly as its standard says."""
    for path in sorted(folder.rglob("*.json*")):
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            yield path.name, json.loads(text, parse_constant=refuse_constants)


# ---------------------------------------------------------------- records


def test_records_hold_question_and_reference_in_the_order_of_the_dataset(odd):
    result = run(method="rounds")["rounds"]
    records = list(read_records(result.folder))
    assert [r["index"] for r in records] == [0, 1, 2] and [r["id"] for r in records] == ["test0", "test1", "test2"]
    assert [(r["question"], r["references"], r["choice"]) for r in records] == [
        (f"{i} of test", ["yes"], None) for i in range(3)
    ]
    lines = (result.folder / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]  # for whoever reads it without us


def test_records_of_a_killed_run_read_in_order_too(tmp_path):
    lines = [json.dumps({"index": i, "id": f"q{i}"}) for i in (2, 10, 0)]
    (tmp_path / "records.jsonl").write_text("\n".join(lines) + '\n{"index": 1, "id": "q')
    assert [r["id"] for r in read_records(tmp_path)] == ["q0", "q2", "q10"]


def test_a_damaged_line_is_named_wherever_it_stands(tmp_path):
    lines = ['{"index": 1, "id": "b"}', '{"index": 0, "id": "a"', '["no", "record"]', '{"index": 2, "id": "c"}']
    path = tmp_path / "records.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match=r"records.jsonl: line 2 is damaged; run it again"):
        list(read_records(tmp_path))
    problems = []
    assert [r["id"] for r in read_records(tmp_path, problems)] == ["b", "c"]
    assert [p.split(": ")[1][:17] for p in problems] == ["line 2 is damaged", "line 3 is damaged"]
    assert list(read_records(tmp_path / "absent")) == []


def test_the_calls_of_a_record_stand_as_the_method_makes_them_cached_or_not(odd):
    def calls(folder):
        return [[(c["model"], c["seen"]["messages"][0][1]) for c in r["calls"]] for r in read_records(folder)]

    fresh = calls(run(method="rounds", out="one")["rounds"].folder)
    for question, row in enumerate(fresh):
        text = f"{question} of test"
        assert row[:6] == [(m, p) for m in ("m0", "m1", "m2") for p in (text, f"again {text} {m}")]
        assert row[6][0] == "m0"
    assert calls(run(method="rounds", out="two")["rounds"].folder) == fresh
    half = Path("half.sqlite")  # the answers of one model only are known
    run(baselines=True, out="three", cache=half)
    assert calls(run(method="rounds", out="four", cache=half)["rounds"].folder) == fresh


# ---------------------------------------------------------------- results


def test_a_table_from_folders_is_the_table_at_the_end(moco, toys):
    installed().register_file(toys)
    results = moco_core.run(
        pool={"name": "toy_pool", "fails": "1003 + 3", "api_key": "s3cr3t"},
        methods=["toy_vote", {"name": "toy_vote", "rounds": 2}, {"name": "toy_vote", "raises": True}],
        datasets=[{"name": "toys", "size": 9}, {"name": "toys", "size": 5}],
        seeds=[0, 1],
    )
    read = read_results("runs")
    assert read == list(results.runs) and len(read) == 24
    assert [r.data() for r in make_reports(read)] == [r.data() for r in results.reports]
    assert str(moco_core.api.Results(tuple(reversed(read)))) == str(results)
    first = results.runs[0]
    assert (first.dataset, first.metric, first.method, first.seed) == ("toys#1", "toy_match", "single", 0)
    assert (first.calls, first.usage.completion_tokens, first.failed) == (9 + 9 - 1, 3 * (9 + 9 - 1), 1)
    assert "s3cr3t" not in repr(results.runs)


def test_units_are_what_the_metric_counts(moco, toys):
    installed().register_file(toys)
    config = {"name": "toys", "size": 3}
    result = moco_core.run(pool="toy_pool", method="toy_vote", dataset=config, baselines=False)["toy_vote"]
    assert read_units(result.folder) == result.units == (
        Unit("t1000", 1.0, "even"), Unit("t1001", 1.0, "odd"), Unit("t1002", 1.0, "even"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "a", "score": 1.0}',
        '{"id": "a", "score": "x", "subset": ""}',
        '{"id": "a", "score": NaN, "subset": ""}',
        "[]",
        "{",
        "",
    ],
)
def test_a_damaged_line_of_units_is_named(moco, toys, text):
    installed().register_file(toys)
    folder = moco_core.run(pool="toy_pool", method="toy_vote", dataset="toys", test=3, baselines=False).runs[0].folder
    whole = (folder / "units.jsonl").read_text().splitlines()
    (folder / "units.jsonl").write_text("\n".join([whole[0], text, whole[2]]) + "\n")
    with pytest.raises(StoreError, match=r"units.jsonl: line 2 is damaged; run it again"):
        RunResult.read(folder)
    (folder / "units.jsonl").unlink()
    with pytest.raises(StoreError, match=r"units.jsonl: missing"):
        RunResult.read(folder)


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (99, "run.json: format 99, this version reads 1; upgrade moco-core"),
        ("1", "format '1', this version reads 1; run it again"),
        (None, "format None, this version reads 1; run it again"),
        (True, "format True, this version reads 1; run it again"),
    ],
)
def test_an_unknown_format_is_one_line(tmp_path, found, line):
    (tmp_path / "run.json").write_text(json.dumps({"format": found, "status": "finished"}))
    with pytest.raises(StoreError) as caught:
        RunResult.read(tmp_path)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_json_that_lacks_a_part_is_one_line(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "status": "finished", "id": "x", "role": []}))
    with pytest.raises(StoreError, match=r"run.json: damaged: KeyError: 'label'; run it again"):
        RunResult.read(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(StoreError, match=r"run.json: damaged, expected a mapping"):
        read_run(tmp_path)


def test_a_run_json_whose_configuration_lacks_a_part_is_one_line(moco, toys):
    installed().register_file(toys)
    folder = moco_core.run(pool="toy_pool", method="toy_vote", dataset="toys", test=3, baselines=False).runs[0].folder
    head = json.loads((folder / "run.json").read_text())
    for config in ({}, head["config"] | {"metric": {}}, head["config"] | {"seed": "one"}, "text"):
        (folder / "run.json").write_text(json.dumps(head | {"config": config}))
        with pytest.raises(StoreError, match=r"run.json: damaged: \w+Error: .*; run it again"):
            RunResult.read(folder)


def test_several_runs_of_one_label_are_told_apart(odd):
    results = run(
        methods=["rounds", "odd"], datasets=["lossy", {"name": "toys", "size": 2}], seeds=[0, 1], metric="odd_metric"
    )
    assert results["odd", "toys", 1].dataset == "toys" and results["odd", 1, "toys"].seed == 1
    for key, line in (
        ("odd", r"'odd' names 4 of these runs: \('odd', 'lossy', 0\), \('odd', 'lossy', 1\), \('odd', 'toys', 0\)"),
        (("odd", 1), r"\('odd', 1\) names 2 of these runs"),
        (("odd", 7), r"\('odd', 7\) names none of these runs: \('odd', 'lossy', 0\)"),
        ("old", r"no run 'old' \(rounds, odd\), did you mean 'odd'\?"),
    ):
        with pytest.raises(KeyError, match=line):
            results[key]


# ---------------------------------------------------------------- what an earlier version wrote


def test_a_run_folder_of_format_1_is_read_or_refused_with_what_to_do(moco, toys):
    installed().register_file(toys)
    shutil.copytree(WRITTEN, "old")
    vote = Path("old/runs/toys-toy_vote-s0-d3fd4447")
    assert read_run(vote)["score"]["n"] == 6 and [r["id"] for r in read_records(vote)] == [f"t100{i}" for i in range(6)]
    assert moco_core.load(vote, cache=Path("old/calls.sqlite")).ask("1000 + 0").text == "It is 1000"
    with pytest.raises(StoreError, match=r"units.jsonl: missing, .* earlier version wrote it; run it again"):
        RunResult.read(vote)


def test_a_cache_of_format_1_answers_everything(moco, toys, served):
    shutil.copytree(WRITTEN, "old")
    got = moco("bench", "--method", "toy_vote", "-d", "toys", "-p", "toy_pool", "--dev", "4", "--test", "6",
               "-o", "pool.models=2", "--cache", "old/calls.sqlite")  # fmt: skip
    assert got.code == 0 and served() == [] and "32 model calls, 32 from the cache" in got.err


def test_a_question_that_is_too_long_scores_nothing_and_is_not_dropped(moco, toys):
    """On test as on dev: it is the same for every attempt, and a method that finds a longer context has the credit."""
    installed().register_file(toys)
    size = {"name": "toys", "size": 4}
    short, whole = (  # what fails is not kept
        moco_core.run(pool={"name": "toy_pool", **more}, method="toy_vote", dataset=size, out=out)["toy_vote"]
        for out, more in (("short", {"too_long": "1001"}), ("whole", {}))
    )
    rows = list(read_records(short.folder))
    assert [row["score"] for row in rows] == [
        row["score"] * (i != 1) for i, row in enumerate(read_records(whole.folder))
    ]
    assert rows[1]["error"] == "" and rows[1]["reply"]["text"] == ""
    assert rows[1]["reply"]["meta"] == {"too_long": "toy0: 9 tokens, the context has 8"}
    assert short.status == "finished" and short.failed == 0 and len(short.units) == len(whole.units) == 4
    assert any("test questions that are too long for it count as empty replies" in w for w in short.warnings)


# ---------------------------------------------------------------- odd values


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("inf", "state.learnt.weights[1].last is inf, which JSON cannot hold"),
        ("nan", "state.learnt.weights[1].last is nan, which JSON cannot hold"),
        ("type", "state.learnt.weights[1].last is of the type fractions.Fraction, which JSON cannot hold"),
        ("key", "state.learnt has the key 1; the keys of JSON are texts"),
    ],
)
def test_a_state_that_would_be_restored_as_another_is_refused_with_its_place(odd, state, line):
    results = run(methods=[{"name": "odd", "state": state}, "rounds"])
    assert results["odd"].first_error == f"the fitted system cannot be saved: {line}"
    assert results["odd"].status == "failed" and results["rounds"].status == "finished"
    assert not (results["odd"].folder / "system" / "system.json").exists()
    list(files_of(Path("runs")))


def test_everything_a_run_writes_is_json(odd):
    result = run(method={"name": "odd", "meta": "nan"}, metric={"name": "odd_metric", "fails": "nan"})["odd"]
    written = list(files_of(result.folder))
    assert {name for name, _ in written} == {"run.json", "records.jsonl", "units.jsonl", "fit.jsonl", "system.json"}
    (note,) = (data for name, data in written if name == "fit.jsonl")
    assert note == {"phase": "fit", "step": 1, "threshold": "inf"}
    assert next(read_records(result.folder))["reply"]["meta"] == {
        "confidence": "nan", "odds": "-inf", "share": 0.25, "set": "{1}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fails", "status", "error", "warning"),
    [
        ("extra_metrics", "finished", "", "metric 'odd_metric': RuntimeError: no extra metric"),
        ("nan", "finished", "", "metric 'odd_metric': the extra metric 'odd' is inf"),
        ("units", "failed", "metric 'odd_metric': ZeroDivisionError: no rows", ""),
        ("unit", "failed", "metric 'odd_metric': the unit 'all' has the score nan", ""),
        ("score", "failed", "question test0: the metric's score is nan, expected a finite number or None", ""),
    ],
)
def test_a_metric_that_fails_loses_its_own_run_at_most(odd, fails, status, error, warning):
    results = run(methods=["odd", "rounds"], metric={"name": "odd_metric", "fails": fails})
    assert len(results.runs) == 2
    for result in results.runs:
        assert (result.status, result.first_error) == (status, error)
        assert ([warning] if warning else []) == list(result.warnings)
        assert RunResult.read(result.folder) == result
    if fails == "nan":
        assert results["odd"].extra_metrics == {"even": 2.0}


def test_extra_metrics_are_read_under_the_name_that_an_earlier_version_gave_them(odd):
    result = run(method="odd", metric={"name": "odd_metric", "fails": "nan"})["odd"]
    file = result.folder / "run.json"
    file.write_text(file.read_text().replace('"extra_metrics"', '"figures"'))
    assert "extra_metrics" not in read_run(result.folder)
    assert RunResult.read(result.folder) == result and result.extra_metrics == {"even": 2.0}


def test_what_a_metric_lacks_is_told_before_any_model_is_asked(odd, served):
    args = ("odd", "-d", "toys", "-p", "toy_pool", "--plugin", str(ODD))
    args += ("-o", "metric={name: odd_metric, fails: check}")
    for command in ("plan", "run"):
        got = odd(command, *args)
        assert got.code == 2 and got.errors == ["error: metric 'odd_metric': it has no sandbox; apt install one"]
    assert served() == []


def test_an_unknown_dev_score_is_none_and_no_number(odd):
    results = run(method="odd", baselines=True, metric={"name": "odd_metric", "fails": "none"})
    for result in results.runs:
        assert result.dev_mean is None and result.units == () and read_run(result.folder)["score"] is None
    assert results.reports[0].chosen_on == ""
    assert str(results).splitlines()[0] == "lossy, seed 0, metric odd_metric; no single model was run"


def test_rows_that_a_dataset_leaves_out_are_told_while_it_runs_and_below_the_table(odd):
    args = ("run", "odd", "-d", "lossy", "-p", "tardy_pool", "--plugin", str(ODD))
    got = odd(*args, "-o", "dataset.dropped=1200")
    assert got.out.splitlines()[-1] == "left out of lossy: 1,200 rows of test (no answer: 1,200)"
    assert got.err.count("warning: dataset 'lossy' leaves out 1,200 rows of test (no answer: 1,200)") == 1
    assert "left out" not in odd(*args).out
