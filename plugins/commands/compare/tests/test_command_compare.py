"""Two runs question by question: cells counted by hand, p in closed form, and runs that are not to be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from eight_questions import register

import moco_core as moco
from moco_core import cli


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """The folders of the two single models' runs."""
    register(monkeypatch, tmp_path)
    found = moco.run(pool="said", method="majority_vote", dataset="eight", dev=0)
    return found["a"].folder, found["b"].folder


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(capsys: Any) -> Told:
    def told(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run(["compare", *map(str, args)])
        got = capsys.readouterr()
        return code, got.out, got.err

    return told


def change(run: Path, **facts: Any) -> None:
    head = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(head | facts))


def units(run: Path, scores: Sequence[float | None]) -> None:
    rows = ({"id": f"q{i}", "score": s, "subset": ""} for i, s in enumerate(scores) if s is not None)
    (run / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_four_cells_p_and_n_are_those_counted_by_hand(runs: tuple[Path, Path], compare: Told) -> None:
    code, out, err = compare(*runs)
    assert (code, err) == (0, "")
    # McNemar: 2 (1 + 4) / 2^4; Bonett and Price: 0.2 -+ 1.96 sqrt((6/10 - 0.04) / 10)
    assert out.splitlines() == [
        f"a on eight, seed 0: 0.500 ({runs[0]})",
        f"b on eight, seed 0: 0.750 ({runs[1]})",
        "repaired 3  broken 1  both-right 3  both-wrong 1  not-compared 0".replace("-", " "),
        "difference +0.250 [-0.264, +0.664], p = 0.625 (exact McNemar), n 8",
        # half of all pairs disagree: sqrt(8) d = 1.96 s + 0.84 sqrt(s^2 - d^2) with s^2 = 1/2
        "with this many questions a difference of 0.601 is found 8 times in 10",
    ]
    assert "repaired 1  broken 3" in compare(*runs[::-1])[1] and "difference -0.250" in compare(*runs[::-1])[1]


@pytest.mark.parametrize(
    ("cell", "ids"),
    [
        ("repaired", "q4 q5 q6"),
        ("broken", "q0"),
        ("both-right", "q1 q2 q3"),
        ("both-wrong", "q7"),
        ("not-compared", ""),
    ],
)
def test_the_questions_of_a_cell_are_listed_with_both_answers(
    runs: tuple[Path, Path], compare: Told, cell: str, ids: str
) -> None:
    lines = compare(*runs, "--list", cell)[1].splitlines()[5:]
    assert [line.split()[1] for line in lines] == ids.split()
    if cell == "broken":
        assert lines == ['     0  q0  "1" -> "0"  What is 0?']


def test_json_has_the_ids_of_every_cell(runs: tuple[Path, Path], compare: Told) -> None:
    body = json.loads(compare(*runs, "--json")[1])
    assert body["questions"] == {
        "repaired": ["q4", "q5", "q6"], "broken": ["q0"], "both-right": ["q1", "q2", "q3"], "both-wrong": ["q7"],
        "not-compared": [],
    }  # fmt: skip
    assert body["versus"]["p_value"] == 0.625 and body["versus"]["n"] == 8 and body["differences"] == []
    assert (body["base"]["mean"], body["other"]["mean"]) == (0.5, 0.75)


def test_several_runs_are_compared_two_by_two_and_corrected_for_their_number(
    runs: tuple[Path, Path], compare: Told, tmp_path: Path
) -> None:
    third = next(p for p in runs[0].parent.iterdir() if "majority_vote" in p.name)
    units(third, [0.0] * 8)
    code, out, err = compare(*runs, third)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert out.splitlines()[0] == "3 systems on eight, metric exact_match; p by Holm over 3 pairs"
    # six wins and none lost: 2 / 2^6, times 3 pairs
    assert [line[:2] for line in lines[2:5]] == [["b", "0.750"], ["a", "0.500"], ["majority_vote", "0.000"]]
    body = json.loads(compare(*runs, third, "--json")[1])
    found = {(t["system"], t["other"]): t for t in body["pairs"]}
    two = found["b", "majority_vote"]
    assert (two["wins"], two["losses"]) == (6, 0) and (two["p"], two["p_holm"]) == pytest.approx((2 / 64, 3 * 2 / 64))
    assert found["a", "majority_vote"]["p_holm"] == pytest.approx(2 * 2 / 16) and found["b", "a"][
        "p_holm"
    ] == pytest.approx(0.625)
    assert [s["group"] for s in body["systems"]] == ["a", "a", "a"] and max(map(len, out.splitlines())) <= 80
    assert found["b", "a"]["low"] == pytest.approx(-0.264, abs=5e-4)


def test_seeds_of_a_system_are_one_row_and_no_further_questions(runs: tuple[Path, Path], compare: Told) -> None:
    other = runs[1].with_name("seed-1")
    other.mkdir()
    for name in ("run.json", "units.jsonl"):
        (other / name).write_text((runs[1] / name).read_text())
    head = json.loads((other / "run.json").read_text())
    change(other, id="seed-1", config=head["config"] | {"seed": 1})
    units(other, [1.0] * 8)
    body = json.loads(compare(*runs, other, "--json")[1])
    assert [(s["label"], s["score"]["n"], len(s["folders"])) for s in body["systems"]] == [("b", 8, 2), ("a", 8, 1)]
    assert body["systems"][0]["score"]["mean"] == (0.75 + 1) / 2 and body["pairs"][0]["n"] == 8


def test_forty_systems_have_letters_and_one_run_is_compared_with_nothing(
    runs: tuple[Path, Path], compare: Told
) -> None:
    places = []
    for number in range(40):
        place = runs[0].with_name(f"copy-{number}")
        place.mkdir()
        (place / "run.json").write_text((runs[0] / "run.json").read_text())
        change(place, label=f"system {number}", id=place.name)
        units(place, [float(i < number % 9) for i in range(8)])
        places.append(place)
    out = compare(*places)[1].splitlines()
    assert out[0].startswith("40 systems") and out[-1] == "the 780 pairs are in --json" and len(out) == 1 + 1 + 40 + 2
    assert compare(places[0])[::2] == (2, f"error: {places[0]}: is compared with nothing; name another run\n")
    assert compare(*places[:3], places[0])[0] == 2 and "--list: lists" in compare(*places[:3], "--list", "broken")[2]


def test_graded_scores_are_better_or_worse_and_tested_by_sign_flips(runs: tuple[Path, Path], compare: Told) -> None:
    units(runs[0], [0.5, 0.5, 1.0, 0.2])
    units(runs[1], [0.7, 0.4, 1.0, 0.2])
    out = compare(*runs)[1].splitlines()
    assert out[2].startswith("repaired 1  broken 1  both right 1  both wrong 1")
    # of the four ways to flip 0.2 and -0.1, all are at least as far from 0 as 0.1
    assert out[3].startswith("difference +0.025") and out[3].endswith("p = 1.000 (sign flips), n 4")


def test_questions_that_one_run_has_no_score_for_are_not_compared(runs: tuple[Path, Path], compare: Told) -> None:
    units(runs[1], [None, None, *[1.0] * 5])
    change(runs[1], status="failed", failed=3)
    code, out, err = compare(*runs, "--list", "not-compared")
    assert (code, err) == (0, "") and f"({runs[1]}, failed)" in out
    assert "repaired 3  broken 0  both right 2  both wrong 0  not compared 3" in out and "n 5" in out
    assert [line.split()[1] for line in out.splitlines()[5:]] == ["q0", "q1", "q7"]
    units(runs[1], [None] * 8 + [1.0])
    assert compare(*runs)[::2] == (
        2, f"error: {runs[0]} and {runs[1]} share no question that both have a score for\n"
    )  # fmt: skip


def test_runs_that_are_not_comparable_are_refused_with_every_difference_named(
    runs: tuple[Path, Path], compare: Told
) -> None:
    head = json.loads((runs[1] / "run.json").read_text())
    config, versions = head["config"], head["environment"]["versions"]
    metric = "moco-metric-exact-match"
    for facts, line in (
        ({"config": config | {"dataset": {"name": "nine"}}}, "dataset: eight and nine"),
        ({"config": config | {"metric": {"name": "token_f1"}}}, "metric: "),
        ({"dataset": head["dataset"] | {"test_fingerprint": "other"}}, "questions of the test split (fingerprint): "),
        ({"dataset": head["dataset"] | {"test": 9}}, "number of test questions: 8 and 9"),
        (
            {"environment": {"versions": versions | {metric: "9.9"}}},
            f"version of {metric}: {versions[metric]} and 9.9",
        ),
    ):
        (runs[1] / "run.json").write_text(json.dumps(head | facts))
        code, out, err = compare(*runs)
        assert (code, out) == (2, "")
        said, hint = err.splitlines()
        assert said.startswith(f"error: {runs[1]} differs from {runs[0]} in {line}") and "--force" in hint
        code, out, err = compare(*runs, "--force")
        assert code == 0 and "p = 0.625" in out
        assert (
            err.startswith(f"not comparable: {runs[1]} differs from {runs[0]} in {line}") and len(err.splitlines()) == 1
        )
        assert len(json.loads(compare(*runs, "--force", "--json")[1])["differences"]) == 1


def test_a_killed_run_is_refused_in_one_line(runs: tuple[Path, Path], compare: Told) -> None:
    head = json.loads((runs[1] / "run.json").read_text())
    (runs[1] / "run.json").write_text(
        json.dumps({k: v for k, v in head.items() if k != "score"} | {"status": "running"})
    )
    (runs[1] / "units.jsonl").unlink()
    assert compare(*runs) == (
        1, "", f"error: {runs[1]}: no scores to compare, the run is interrupted; moco read shows what there is\n"
    )  # fmt: skip


def test_bad_places_and_damaged_files_are_one_line(runs: tuple[Path, Path], compare: Told) -> None:
    for other, code, words in (
        (runs[0].parent, 2, "not a run folder (no run.json); moco runs lists"),
        ("absent", 2, "absent: not a run folder"),
        (runs[0], 2, "is the run that it is to be compared with"),
    ):
        got = compare(runs[0], other)
        assert got[0] == code and got[1] == "" and words in got[2] and len(got[2].splitlines()) == 1
    with (runs[1] / "units.jsonl").open("a") as file:
        file.write('{"id": "q')
    code, out, err = compare(*runs)
    assert (code, out) == (1, "") and "units.jsonl: line 9 is damaged" in err and len(err.splitlines()) == 1


def test_a_damaged_record_is_named_and_its_question_still_listed(runs: tuple[Path, Path], compare: Told) -> None:
    lines = (runs[0] / "records.jsonl").read_text().splitlines()
    (runs[0] / "records.jsonl").write_text("\n".join([lines[0][:20], *lines[1:]]) + "\n")
    assert compare(*runs)[0] == 0  # no record is read for the counts
    code, out, err = compare(*runs, "--list", "broken")
    assert code == 1 and "records.jsonl: line 1 is damaged" in err and len(err.splitlines()) == 1
    assert out.splitlines()[5] == '     0  q0  (none) -> "0"  What is 0?'


def test_what_models_wrote_steers_no_terminal_and_stays_on_its_line(runs: tuple[Path, Path], compare: Told) -> None:
    def rewrite(row: dict[str, Any]) -> str:
        answer = {"text": "\x1b[2J" + "x" * 1000, "status": "parsed"}
        return json.dumps(row | {"answer": answer, "question": "\u202ewhat\x07\n\x85\u2028" + "\u6a21" * 1000}) + "\n"

    rows = [json.loads(line) for line in (runs[1] / "records.jsonl").read_text().splitlines()]
    (runs[1] / "records.jsonl").write_text("".join(map(rewrite, rows)))
    (runs[0] / "records.jsonl").unlink()
    change(runs[1], label="b\x1b]0;x\x07\nc")
    code, out, _ = compare(*runs, "--list", "repaired")
    assert code == 0 and len(out.split("\n")) == 5 + 3 + 1 and max(map(len, out.splitlines())) < 240
    assert not {*map(chr, range(32)), "\x85", "\u202e"} & ({*out} - {"\n"})


def test_comparing_imports_no_engine_and_nothing_heavy(runs: tuple[Path, Path]) -> None:
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        f"assert _run(['compare', {str(runs[0])!r}, {str(runs[1])!r}, '--list', 'broken']) == 0\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'transformers', 'numpy', 'rich', 'yaml')"
        " or m.startswith(('moco_method_', 'moco_pool_', 'moco_dataset_', 'moco_metric_'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
