"""What runs came to in the form of other programs: tables by hand, samples and logs by the schema of their readers, figures."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from eight_questions import register

import moco_core as moco
from moco_command_export.figures import forest, pareto
from moco_command_export.samples import file_name
from moco_core import (
    cli,
    make_reports,
    read_records,
)
from moco_toolkit_comparison import Comparison


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> moco.Results:
    """The runs of two single models and of a vote, in ``runs``."""
    register(monkeypatch, tmp_path)
    return moco.run(pool="said", method={"name": "majority_vote", "label": "a_b & 50%|"}, dataset="eight", dev=0)


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def export(capsys: Any) -> Told:
    def told(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run(["export", *map(str, args)])
        got = capsys.readouterr()
        return code, got.out, got.err

    return told


def table(export: Told, name: str) -> list[dict[str, str]]:
    code, out, err = export("runs", "--to", "csv", "--table", name)
    assert (code, err) == (0, "")
    return [*csv.DictReader(io.StringIO(out))]


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda h: h["dataset"].update(test_fingerprint="other"), "questions of the test split (fingerprint)"),
        (lambda h: h["environment"]["versions"].update({"moco-metric-exact-match": "9.9"}), "version of moco-metric-exact"),
    ],
)
def test_a_table_of_runs_that_are_not_comparable_is_refused_with_the_difference_named(
    runs: moco.Results, export: Told, change: Callable[[Any], None], line: str, tmp_path: Path
) -> None:
    file = runs.runs[-1].folder / "run.json"
    head = json.loads(file.read_text())
    change(head)
    file.write_text(json.dumps(head))
    for form in ("csv", "figures"):
        code, out, err = export("runs", "--to", form, "-f", tmp_path / form)
        assert (code, out) == (2, "") and line in err and "--force" in err and not (tmp_path / form).exists()
    code, out, err = export("runs", "--to", "csv", "--force")
    assert code == 0 and len(out.splitlines()) > 3 and err.startswith("not comparable: ") and line in err
    assert export("runs", "--to", "jsonl", "-f", tmp_path / "samples")[0] == 0


def test_metrics_of_one_dataset_stand_side_by_side(runs: moco.Results, export: Told) -> None:
    file = runs.runs[-1].folder / "run.json"
    head = json.loads(file.read_text())
    head["config"]["metric"] = {"name": "token_f1"}
    file.write_text(json.dumps(head))
    assert {row["metric"] for row in table(export, "systems")} == {"exact_match", "token_f1"}


def test_csv_has_all_numbers_of_every_system_and_the_ceiling(runs: moco.Results, export: Told) -> None:
    rows = {row["system"]: row for row in table(export, "systems")}
    assert (rows["a"]["score"], rows["b"]["score"], rows["b"]["best_single"]) == ("0.5", "0.75", "True")
    # a knows 0 to 3, b 1 to 6: all but 7
    assert rows["oracle"]["score"] == "0.875" and rows["random pick"]["score"] == "0.625"
    assert float(rows["a"]["difference"]) == -0.25 and float(rows["a"]["p"]) == 0.625 and rows["a"]["n"] == "8"
    assert {*rows} == {"a", "b", "a_b & 50%|", "oracle", "random pick", "chance"}


def test_subsets_pairs_and_costs_are_tables_too(runs: moco.Results, export: Told) -> None:
    rows = [r for r in table(export, "subsets") if r["system"] == "a"]
    assert [(r["subset"], r["score"], r["n"]) for r in rows] == [
        ("x", "0.5", "4"),
        ("y", "0.5", "4"),
        ("mean of subsets", "0.5", "8"),
    ]
    (pair,) = (r for r in table(export, "pairs") if {r["system"], r["other"]} == {"a", "b"})
    assert (pair["system"], pair["wins"], pair["losses"], pair["p"]) == ("b", "3", "1", "0.625") and float(
        pair["p_holm"]
    ) == 1.0
    found = table(export, "costs")
    mine = sum(float(r["completion"]) for r in found if r["system"] == "a" and r["phase"] == "respond")
    assert mine == runs["a"].usage.completion_tokens
    assert len(table(export, "seeds")) == 3
    # one cell, and the vote is not above b; of the one question that nobody knows it solves none
    study = [(r["here"], r["published"]) for r in table(export, "study")]
    assert study == [("0.0", "0.61"), ("0.0", str(132 / 234)), ("0.0", "0.185"), ("", ""), ("0.0", "")]
    code, out, err = export("runs", "--to", "csv", "--table", "datasets")
    assert (code, out) == (
        2,
        "",
    ) and err == "error: --table datasets: these runs have no such rows (no system has scores on two datasets)\n"


def test_markdown_takes_names_as_text(runs: moco.Results, export: Told) -> None:
    lines = export("runs", "--to", "markdown")[1].splitlines()
    assert lines[0].startswith("| system | score | vs best | p |") and lines[1].startswith(
        "| --- | ---: | ---: | ---: |"
    )
    assert any(line.startswith("| a | 0.500 [0.215, 0.785] | -0.250 [") for line in lines)
    assert any(line.startswith(r"| a_b & 50%\| |") for line in lines)
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1


def test_latex_is_a_booktabs_table_with_every_special_character_escaped(
    runs: moco.Results, export: Told, tmp_path: Path
) -> None:
    assert export("runs", "--to", "latex", "--table", "pairs", "-f", tmp_path / "t.tex")[:2] == (0, "")
    text = (tmp_path / "t.tex").read_text()
    lines = text.splitlines()
    assert lines[:2] == [r"\begin{tabular}{llrrrrrr}", r"\toprule"] and lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert (
        r"a\_b \& 50\%|" in text
        and len({line.replace(r"\&", "").count("&") for line in lines[2:-2] if "rule" not in line}) == 1
    )


# ---------------------------------------------------------------- samples


def test_samples_have_the_form_that_lm_eval_writes(runs: moco.Results, export: Told) -> None:
    code, _, err = export("runs", "--to", "jsonl", "-f", "out")
    assert code == 0 and len(err.splitlines()) == 3 and "8 samples" in err
    (file,) = Path("out/b").glob("samples_eight_*.jsonl")
    from lm_eval.loggers.evaluation_tracker import EvaluationTracker
    from lm_eval.utils import get_file_datetime, hash_string

    samples = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for sample, row in zip(samples, read_records(runs["b"].folder), strict=True):
        assert (
            sample["doc_id"] == row["index"]
            and sample["exact_match"] == row["score"]
            and sample["metrics"] == ["exact_match"]
        )
        assert sample["resps"] == [[row["reply"]["text"]]] and sample["filtered_resps"] == [row["answer"]["text"]]
        assert sample["prompt_hash"] == hash_string(row["question"]) and sample["target_hash"] == hash_string("1")
        assert sample["doc_hash"] == hash_string(json.dumps(sample["doc"], indent=2, ensure_ascii=False))
    assert get_file_datetime(file.name) and [s["exact_match"] for s in samples].count(1.0) == 6
    # lm-eval's own writer, given the same samples in the form that it has in memory
    tracker = EvaluationTracker(output_path="theirs")
    tracker.general_config_tracker.model_name_sanitized, tracker.date_id = "b", "2001"
    memory = [s | {"arguments": [[*s["arguments"]["gen_args_0"].values()]]} for s in samples]
    tracker.save_results_samples("eight", memory)  # type: ignore[arg-type]
    assert Path("theirs/b/samples_eight_2001.jsonl").read_text("utf-8") == file.read_text("utf-8")


# ---------------------------------------------------------------- every eval ever

SCHEMA = Path(__file__).parent / "schema"


def test_logs_and_samples_are_valid_by_the_published_schema_and_belong_together(
    runs: moco.Results, export: Told
) -> None:
    assert export("runs", "--to", "every-eval-ever", "-f", "out", "--organization", "Us")[0] == 0
    schemas = [json.loads((SCHEMA / f"{name}.schema.json").read_text()) for name in ("eval", "instance_level_eval")]
    logs = sorted(Path("out/data/eight/moco").glob("*/*.json"))
    assert len(logs) == 3 and {s["version"] for s in schemas} == {"0.3.0"}
    for file in logs:
        log = json.loads(file.read_text("utf-8"))
        jsonschema.validate(log, schemas[0])
        detail = log["detailed_evaluation_results"]
        body = (Path("out") / detail["file_path"]).read_bytes()
        assert detail["checksum"] == hashlib.sha256(body).hexdigest() and detail["total_rows"] == 8
        rows = [json.loads(line) for line in body.splitlines()]
        for row in rows:
            jsonschema.validate(row, schemas[1])
            assert (row["evaluation_id"], row["model_id"]) == (log["evaluation_id"], log["model_info"]["id"])
        (result,) = log["evaluation_results"]
        assert result["score_details"]["score"] == sum(r["evaluation"]["score"] for r in rows) / 8
        assert log["source_metadata"]["source_organization_name"] == "Us"
    (b,) = (json.loads(f.read_text()) for f in logs if f.parent.name == "b")
    found = b["evaluation_results"][0]["score_details"]["uncertainty"]
    # Wilson's interval of 6 of 8, and the standard error sqrt(8/7 * 3/16) / sqrt(8)
    assert (found["confidence_interval"]["lower"], found["confidence_interval"]["upper"]) == pytest.approx(
        (0.4093, 0.9285), abs=1e-4
    )
    assert found["standard_error"]["value"] == pytest.approx((8 / 7 * 3 / 16 / 8) ** 0.5)


def test_its_own_package_takes_what_is_written(runs: moco.Results, export: Told) -> None:
    pytest.importorskip("every_eval_ever", reason="it needs Python 3.12")
    err = export("runs", "--to", "every-eval-ever", "-f", "out")[2]
    assert err.splitlines()[-1] == "6 files validated by every-eval-ever"


# ---------------------------------------------------------------- figures


def test_figures_show_the_numbers_of_the_comparison(runs: moco.Results, export: Told) -> None:
    comparison = Comparison(make_reports(runs.runs)[0])
    (axes,) = forest(comparison).axes
    spans, points = axes.lines[0 : 2 * len(comparison.scored) : 2], axes.lines[1 : 2 * len(comparison.scored) : 2]
    for row, span, point in zip(comparison.scored, spans, points, strict=True):
        assert row.estimate is not None
        assert [*span.get_xdata()] == [row.estimate.low, row.estimate.high] and [*point.get_xdata()] == [
            row.estimate.mean
        ]
    assert [t.get_text() for t in axes.get_yticklabels()] == [r.label for r in comparison.scored]
    (axes,) = pareto(comparison).axes
    shown = {t.get_text(): tuple(t.xy) for t in axes.texts}  # type: ignore[attr-defined]
    assert shown["b"] == (comparison.standings[1].cost[comparison.unit].value, 0.75)
    assert export("runs", "--to", "figures", "-f", "figures")[0] == 0
    names = sorted(p.name for p in Path("figures").iterdir())
    assert names == ["eight_forest.pdf", "eight_forest.svg", "eight_pareto.pdf", "eight_pareto.svg"]
    for file in Path("figures").glob("*.svg"):
        words = {"".join(e.itertext()).strip() for e in ElementTree.parse(file).iter() if e.tag.endswith("}text")}
        assert {"a", "b", "a_b & 50%|"} <= words
    assert all(file.read_bytes().startswith(b"%PDF") for file in Path("figures").glob("*.pdf"))


# ---------------------------------------------------------------- bad input


def test_wrong_forms_and_places_are_one_line(runs: moco.Results, export: Told) -> None:
    Path("file").touch()
    Path("empty").mkdir()
    for args, line in (
        (
            ("runs", "--to", "cvs"),
            "error: --to cvs: no such form, did you mean 'csv'? (a folder of that name is ./cvs)",
        ),
        (
            ("runs", "--to", "pdf"),
            "error: --to pdf: no such form (csv, markdown, latex, jsonl, every-eval-ever, figures, hub-folder), and runs has "
            "no system to write to a folder",
        ),
        (("runs", "--to", "jsonl"), "error: --to jsonl: writes several files; name their folder with -f FOLDER"),
        (("runs", "--to", "figures", "-f", "file"), "error: -f file: is a file; name a folder"),
        (("empty", "--to", "csv"), "error: empty: holds no run (no run.json in it or below it)"),
        (("absent", "--to", "csv"), "error: absent: no such folder"),
        (("runs", "runs", "--to", "merged"), "error: --to merged: a folder holds the system of one run, 2 are given"),
    ):
        code, out, err = export(*args)
        assert (code, out, err) == (2, "", f"{line}\n")
    code, _, err = export("runs", "--to", "csv", "-f", "absent/file.csv")
    assert code == 1 and err == "error: absent/file.csv: cannot be written: No such file or directory\n"


def test_killed_runs_and_damaged_records_are_named_and_the_rest_is_written(runs: moco.Results, export: Told) -> None:
    records = runs["a"].folder / "records.jsonl"
    lines = records.read_text().splitlines()
    failed = {**json.loads(lines[2]), "score": None, "error": "no"}
    records.write_text("\n".join([lines[0][:20], lines[1], json.dumps(failed), *lines[3:]]) + "\n")
    head = json.loads((runs["b"].folder / "run.json").read_text())
    (runs["b"].folder / "run.json").write_text(
        json.dumps({k: v for k, v in head.items() if k != "score"} | {"status": "running"})
    )
    (runs["b"].folder / "units.jsonl").unlink()
    err = export("runs", "--to", "jsonl", "-f", "out")[2]
    assert (
        "a: 6 samples" not in err
        and "6 samples, 2 without a score left out" in err
        and "records.jsonl: line 1 is damaged" in err
    )
    assert "left out, no scores" in export("runs", "--to", "every-eval-ever", "-f", "logs")[2]
    rows = {r["system"]: r for r in table(export, "systems")}
    assert rows["b"]["score"] == "" and rows["a"]["score"] == "0.5"


def test_runs_of_earlier_versions_and_odd_scores_leave_as_far_as_they_say_what_was_asked(
    runs: moco.Results, export: Told
) -> None:
    run = runs["a"].folder
    head = json.loads((run / "run.json").read_text())
    head["config"]["sampling"] = {"temperature": 0.0}
    (run / "run.json").write_text(json.dumps(head))
    rows = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if k != "index"} for row in rows]
    del rows[0]["question"], rows[1]["reply"]
    rows[2]["score"] = float("nan")
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for form, name in (("jsonl", "samples_*.jsonl"), ("every-eval-ever", "*_samples.jsonl")):
        code, _, err = export(run, "--to", form, "-f", form)
        (file,) = Path(form).rglob(name)
        assert code == 0 and len(file.read_text().splitlines()) == 5
        assert "records.jsonl: 2 records do not say what was asked and replied; left out" in err


def test_names_are_safe_as_paths() -> None:
    assert [file_name(n) for n in ("../../x", "a/b:c", "模型 1", "...", "")] == [
        "x",
        "a_b_c",
        "模型_1",
        "unnamed",
        "unnamed",
    ]


def test_tables_and_samples_import_nothing_heavy(runs: moco.Results) -> None:
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        "def heavy(*names):\n"
        "    return [m for m in sys.modules if m.split('.')[0] in names or m.startswith(('moco_method_', 'moco_pool_'))]\n"
        "assert _run(['export', '--help']) == 0\n"
        "assert not heavy('torch', 'numpy', 'rich', 'yaml', 'matplotlib', 'moco_toolkit_comparison')\n"
        "assert _run(['export', 'runs', '--to', 'jsonl', '-f', 'out']) == 0\n"
        "assert not heavy('torch', 'transformers', 'numpy', 'matplotlib', 'rich', 'yaml')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
