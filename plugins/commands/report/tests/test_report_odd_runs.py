"""Runs as they are found: killed, old, damaged, odd, of one label, or not to be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_folders import rewrite


def test_a_killed_run_is_shown_as_far_as_it_got(grid: Path, report: Any, opened: Any) -> None:
    vote = grid / "d-vote-s0"
    rewrite(vote, lambda head: {k: v for k, v in head.items() if k != "score"} | {"status": "running"})
    (vote / "units.jsonl").unlink()
    lines = (vote / "records.jsonl").read_text().splitlines(keepends=True)
    (vote / "records.jsonl").write_text("".join(lines[:3]) + lines[3][:30])
    code, _, err, file = report(grid)
    page = opened(file)
    assert (
        (code, err) == (0, "")
        and page.system("vote")["status"] == "interrupted"
        and page.system("vote")["score"] is None
    )
    assert page.scores("vote") == [1, 1, 1, *[None] * 5]


def test_a_run_of_an_earlier_version_is_scored_by_its_records(grid: Path, report: Any, opened: Any) -> None:
    vote = grid / "d-vote-s0"
    (vote / "units.jsonl").unlink()
    rows = [json.loads(line) for line in (vote / "records.jsonl").read_text().splitlines()]
    old = ({k: v for k, v in row.items() if k not in ("index", "question", "references")} for row in reversed(rows))
    (vote / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    rewrite(vote, lambda head: {k: v for k, v in head.items() if k not in ("rule", "timings")})
    code, _, err, file = report(grid)
    page = opened(file)
    assert (
        code == 0
        and "units.jsonl: missing" in err
        and "8 scores are those of its records" in err
        and len(err.splitlines()) == 1
    )
    assert page.system("vote")["score"]["mean"] == 0.75 and page.scores("vote") == [1, 1, 1, 0, 1, 1, 1, 0]
    alone = opened(report(vote)[3])
    assert alone.detail("replies", 0)["asked"] == "What is question 7?"


def test_a_damaged_line_is_named_and_the_rest_is_shown(grid: Path, report: Any, opened: Any) -> None:
    file = grid / "d-vote-s0" / "records.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0][:40] + "\n", lines[1], "[]\n", *lines[3:]]))
    code, out, err, html = report(grid)
    assert code == 1 and out.startswith(str(html)) and len(err.splitlines()) == 2
    assert "line 3 is damaged" in err and "question 'q0' is damaged" in err
    page = opened(html)
    assert page.scores("vote")[:4] == [None, 1, None, 0] and len(page.summary["problems"]) == 2


def test_missing_records_leave_the_scores(grid: Path, report: Any, opened: Any) -> None:
    for folder in grid.iterdir():
        (folder / "records.jsonl").unlink()
    code, _, err, file = report(grid)
    assert (code, err) == (0, "") and opened(file).system("vote")["score"]["mean"] == 0.75


def test_scores_that_are_no_numbers_are_no_scores(grid: Path, report: Any, opened: Any) -> None:
    vote = grid / "d-vote-s0"
    for name in ("records.jsonl", "units.jsonl"):
        (vote / name).write_text((vote / name).read_text().replace('"score": 1', '"score": NaN', 1))
    code, _, err, file = report(grid)
    page = opened(file)
    assert code == 0 and "line 1 is damaged" in err and "7 scores are those of its records" in err
    assert page.scores("vote")[0] is None and page.system("vote")["score"]["n"] == 7


def test_a_damaged_run_is_named_and_the_others_are_shown(grid: Path, report: Any, opened: Any) -> None:
    (grid / "d-b-s0" / "run.json").write_text("{")
    code, _, err, file = report(grid)
    assert code == 1 and "run.json: cannot be read" in err and len(err.splitlines()) == 1
    assert [row["name"] for row in opened(file).section["rows"]] == ["a", "route", "vote"]


@pytest.mark.parametrize(
    ("singles", "methods"),
    [
        ({}, {"vote": [1, 0, 1]}),
        ({"a": [1]}, {"vote": [0]}),
        ({"a": [1, 1, 1]}, {"vote": [1, 1, 1], "route": [1, 1, 1]}),
        ({"a": [0, 0]}, {}),
        ({"a": [0.25, 0.5, 1.0]}, {"vote": [0.5, 0.5, 0.75]}),
        ({"a": [None, None]}, {"vote": [None, None]}),
    ],
    ids=["no single model", "one question", "all equal", "no method", "graded", "all failed"],
)
def test_a_degenerate_comparison_is_a_correct_page(
    tmp_path: Path, make_run: Any, report: Any, opened: Any, singles: Any, methods: Any
) -> None:
    for role, runs in (("baseline", singles), ("method", methods)):
        for place, (label, scores) in enumerate(runs.items()):
            make_run(tmp_path / "runs", label, scores, role, position=place)
    code, _, err, file = report(tmp_path / "runs")
    page = opened(file)
    assert (code, err) == (0, "") and "NaN" not in json.dumps(page.summary)
    for label, scores in {**singles, **methods}.items():
        assert page.scores(label) == scores
        known = [s for s in scores if s is not None]
        found = page.system(label)["score"]
        assert found["mean"] == pytest.approx(sum(known) / len(known)) if known else found is None


def test_forty_systems_stand_in_one_table(tmp_path: Path, make_run: Any, report: Any, opened: Any) -> None:
    for i in range(40):
        make_run(tmp_path / "runs", f"m{i}", [int((q * 7 + i) % 40 < i) for q in range(80)], position=i)
    page = opened(report(tmp_path / "runs")[3])
    assert len(page.section["rows"]) == 40 and len(page.section["pairs"]["rows"]) == 40 * 39 / 2


def test_systems_of_one_label_are_told_apart(tmp_path: Path, make_run: Any, report: Any, opened: Any) -> None:
    for rounds in (1, 2):
        folder = make_run(tmp_path / f"runs/{rounds}", "refine", [rounds - 1, 1], position=rounds)
        rewrite(
            folder,
            lambda head, r=rounds: head | {"config": head["config"] | {"method": {"name": "refine", "rounds": r}}},
        )
    page = opened(report(tmp_path / "runs")[3])
    assert [row["name"] for row in page.section["rows"]] == ["refine", "refine (2)"] and page.scores("refine (2)") == [
        1,
        1,
    ]


def test_runs_that_are_not_comparable_are_refused_with_the_difference_named(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    one = make_run(tmp_path, "vote", [1, 0])
    head = json.loads((one / "run.json").read_text())
    for place, (facts, line) in enumerate(
        [
            ({"dataset": head["dataset"] | {"test_fingerprint": "g"}}, "questions of the test split (fingerprint): f and g"),
            ({"config": head["config"] | {"dataset": {"name": "e"}}}, "dataset: d and e"),
            ({"config": head["config"] | {"metric": {"name": "token_f1"}}}, "metric: "),
        ]
    ):  # fmt: skip
        other = make_run(tmp_path / str(place), "route", [1, 1], **facts)
        code, out, err, file = report(one, other)
        first, hint = err.splitlines()
        assert (code, out) == (2, "") and not file.exists() and "--force" in hint
        assert f"{other} differs from {one} in {line}" in first
        code, _, err, file = report(one, other, "--force")
        assert code == 0 and f"not comparable: {other} differs" in err
        assert any(line in note for note in opened(file).summary["notes"])
        file.unlink()


def test_questions_that_differ_within_one_folder_are_refused(grid: Path, report: Any) -> None:
    rewrite(grid / "d-b-s0", lambda head: head | {"dataset": head["dataset"] | {"test_fingerprint": "g"}})
    code, out, err, file = report(grid)
    assert (code, out) == (2, "") and "(fingerprint): " in err and not file.exists()


def test_bad_places_and_files_that_cannot_be_written_are_one_line(grid: Path, tmp_path: Path, capsys: Any) -> None:
    from moco_core import cli

    (tmp_path / "empty").mkdir()
    for args, code, words in (
        (["absent"], 2, "absent: no such folder"),
        ([tmp_path / "empty"], 2, "holds no run"),
        ([grid, "-o", tmp_path / "absent" / "r.html"], 1, "choose another file with --out"),
        ([grid, "-o", tmp_path], 1, "choose another file with --out"),
    ):
        assert cli._run(["report", *map(str, args)]) == code
        got = capsys.readouterr()
        assert got.out == "" and words in got.err and len(got.err.splitlines()) == 1
    assert not list(tmp_path.glob("*.tmp"))
