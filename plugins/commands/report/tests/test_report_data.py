"""What a page holds, against what its runs hold; text of models is data; grids."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from report_folders import rewrite

from moco_core import make_reports, read_results
from moco_toolkit_comparison import Comparison


def test_the_table_is_that_of_the_comparison(grid: Path, report: Any, opened: Any) -> None:
    code, out, err, file = report(grid)
    assert (code, err) == (0, "") and re.fullmatch(rf"{file}: 4 runs, 8 questions, 0\.\d MB\n", out)
    page = opened(file)
    (expected,) = make_reports(read_results(grid))
    comparison = Comparison(expected)
    for row, standing in zip(page.section["rows"], comparison.standings, strict=True):
        assert row["label"] == standing.label and row["group"] == standing.group and row["p_holm"] == standing.p_holm
        assert row["score"]["mean"] == pytest.approx(standing.row.estimate.mean)
        assert row["cost_per_question"]["tokens"]["value"] == 15
    assert page.section["oracle"] == 6 / 8 and page.section["random_pick"] == 0.5 and page.section["chance"] == 0.25
    assert page.system("a")["best_single"]
    # right on 4 of 4 even and 2 of 4 odd questions: subsets count alike
    macro, subsets = page.system("vote")["macro"], page.system("vote")["subsets"]
    assert macro["mean"] == (subsets["even"]["mean"] + subsets["odd"]["mean"]) / 2 == 0.75
    assert macro["low"] < 0.75 < macro["high"]


def test_every_pair_has_the_difference_and_p_counted_by_hand(grid: Path, report: Any, opened: Any) -> None:
    page = opened(report(grid)[3])
    pair = page.pair("vote", "a")
    # vote repairs 4, 5 and 6 and breaks 3: McNemar 2 (1 + 4) / 2^4
    assert pair["difference"] == 0.25 and pair["n"] == 8 and pair["p"] == pytest.approx(0.625) and pair["holm"] == 1
    assert page.pair("route", "a")["n"] == 7
    assert len(page.section["pairs"]["rows"]) == 6


def test_a_question_has_its_replies_and_who_saw_what(grid: Path, report: Any, opened: Any) -> None:
    page = opened(report(grid)[3])
    names = [page.section["rows"][run["system"]]["name"] for run in page.section["runs"]]
    asked = page.detail("replies", 4)
    assert asked["asked"] == "What is question 4?" and asked["references"] == ["right 4"]
    said = dict(zip(names, asked["replies"], strict=True))
    assert (
        said["vote"]["text"] == "vote says 1 to 4"
        and said["vote"]["score"] == 1
        and said["vote"]["meta"] == {"votes": {"a": 1, "b": 2}}
    )
    assert page.detail("replies", 7)["replies"][names.index("route")]["error"] == "the model failed"
    calls = dict(zip(names, page.detail("transcripts", 4), strict=True))["vote"]
    assert [c[:3] for c in calls] == [["a", "generate", True], ["b", "generate", False]]
    assert calls[1][5] == {"messages": [["user", "What is question 4?\nAnother said:\nvote says 1 to 4 by a"]]}


def test_the_marks_tell_failed_unread_cut_and_absent_questions(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        if i == 1:
            row["answer"] = {"text": "", "status": "missing"}
        if i == 2:
            row["reply"]["finish"] = "length"
        return row

    make_run(tmp_path / "runs", "vote", [None, 0, 0, 1], change=change)
    make_run(tmp_path / "runs", "longer", [1, 1, 1, 1], position=1, ids=["q0", "q1", "q2", "q9"])
    page = opened(report(tmp_path / "runs")[3])
    questions = page.section["questions"]
    marks = dict(zip((r["name"] for r in page.section["rows"]), questions["marks"], strict=True))
    at = {id: i for i, id in enumerate(questions["ids"])}
    assert [marks["vote"][at[q]] for q in ("q0", "q1", "q2", "q3", "q9")] == ["f", "u", "c", ".", "-"]


def test_seeds_are_means_per_question_and_have_their_own_replies(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    for seed, scores in enumerate(([1, 0, 1, 0], [1, 1, 0, 0])):
        make_run(tmp_path / "runs", "vote", scores, seed=seed, position=seed)
    page = opened(report(tmp_path / "runs")[3])
    assert page.scores("vote") == [1, 0.5, 0.5, 0] and page.section["seeds"] == [0, 1]
    assert [r["text"] for r in page.detail("replies", 1)["replies"]] == ["vote says 0 to 1", "vote says 1 to 1"]


def test_groups_that_score_together_are_what_is_counted(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    for place, label in enumerate(("vote", "route")):
        make_run(tmp_path / "runs", label, [1, 1, 1, 0], position=place, units={"g0": 1.0, "g1": float(place)})
    page = opened(report(tmp_path / "runs")[3])
    assert page.section["units"]["ids"] == ["g0", "g1"] and page.pair("route", "vote")["n"] == 2
    assert page.section["questions"]["ids"] == ["q0", "q1", "q2", "q3"]


HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "nul \x00 and \x1b[2J",
    "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f469\u200d\U0001f680 \U0001f1e9\U0001f1ea",
    "half a pair \ud83d",
    "~12",
    "^3",
    "x" * 1_000_000,
)


def test_nothing_that_a_model_wrote_stands_in_the_page_as_it_is(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        row["reply"]["text"] = row["calls"][0]["said"]["text"] = row["question"] = HOSTILE[i]
        row["answer"]["text"] = HOSTILE[i]
        return row

    make_run(tmp_path / "runs", "</title><script>", [1] * len(HOSTILE), change=change, ids=(*HOSTILE[:-1], "long"))
    code, _, err, file = report(tmp_path / "runs")
    page = opened(file)
    assert (code, err) == (0, "") and "hacked" not in page.html and "</title><script>" not in page.html
    assert (
        page.html.count("<script")
        == len(re.findall(r'<script type="text/plain" id="\w+">[^<]*</script>', page.html)) + 1
    )
    for i, text in enumerate(HOSTILE):
        assert page.detail("replies", i)["replies"][0]["text"] == text
        assert page.detail("transcripts", i)[0][0][6]["text"] == text


def test_only_the_application_may_run_and_nothing_may_be_requested(grid: Path, report: Any) -> None:
    html = report(grid)[3].read_text()
    script, style = re.search(r"<script>(.*?)</script>", html, re.S), re.search(r"<style>(.*?)</style>", html, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert script and style and policy
    hashes = [b64encode(hashlib.sha256(found[1].encode()).digest()).decode() for found in (script, style)]
    assert policy[1] == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'"
    )
    assert not re.findall(r"""(?:src|href)=["']?https?:""", html)


def test_a_small_page_keeps_scores_and_the_questions_on_which_systems_disagree(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    def noise(i: int, row: dict[str, Any]) -> dict[str, Any]:
        row["reply"]["text"] = "".join(
            hashlib.sha256(f"{row['id']} {j} {row['score']}".encode()).hexdigest() for j in range(200)
        )
        return row

    n = 60
    make_run(tmp_path / "runs", "vote", [1] * n, change=noise)
    make_run(tmp_path / "runs", "route", [int(i != 40) for i in range(n)], position=1, change=noise)
    code, out, _, file = report(tmp_path / "runs", "--size", "0.4")
    page = opened(file)
    kept = [i for i in range(n) if page.detail("replies", i) is not None]
    assert code == 0 and 0 < len(kept) < n and 40 in kept and file.stat().st_size <= 400_000
    told = [i for i in range(n) if page.detail("transcripts", i) is not None]
    assert {*told} <= {*kept}
    assert f"{len(kept)} of {n} questions with replies" in out and "--size" in out
    assert page.scores("route").count(0) == 1 and len(page.section["questions"]["begins"]) == n
    whole = opened(report(tmp_path / "runs")[3])
    assert all(whole.detail(kind, i) for kind in ("replies", "transcripts") for i in range(n))


def test_a_grid_of_two_datasets_has_a_section_for_each(tmp_path: Path, make_run: Any, report: Any, opened: Any) -> None:
    for name in ("one", "two"):
        folder = make_run(tmp_path / "runs" / name, "vote", [1, 0])
        head = json.loads((folder / "run.json").read_text())
        head["dataset"] |= {"label": name, "test_fingerprint": name}
        head["config"]["dataset"] = {"name": name}
        (folder / "run.json").write_text(json.dumps(head))
    code, _, err, file = report(tmp_path / "runs")
    assert (code, err) == (0, "") and [s["dataset"] for s in opened(file).summary["sections"]] == ["one", "two"]
    assert opened(file).detail("replies", 1, section=1)["asked"] == "What is question 1?"
    assert report(tmp_path / "runs" / "one", tmp_path / "runs" / "two")[0] == 2


def test_a_run_scored_by_another_metric_stands_beside_its_source(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    for name in ("exact_match", "token_f1"):
        folder = make_run(tmp_path / "runs" / name, "vote", [1, 0])
        rewrite(folder, lambda head, n=name: head | {"config": head["config"] | {"metric": {"name": n}}})
    code, _, err, file = report(tmp_path / "runs")
    assert (code, err) == (0, "")
    assert [s["metric"] for s in opened(file).summary["sections"]] == ["exact_match", "token_f1"]


def test_a_grid_has_its_means_over_datasets_and_the_studys_aggregate_beside_what_it_published(
    tmp_path: Path, make_run: Any, report: Any, opened: Any
) -> None:
    # per dataset: a is the best single model; of the open questions (2 in "one", 1 in "two") vote solves 1 and 1
    scores = {
        "one": {"a": [1, 1, 0, 0], "b": [1, 0, 0, 0], "vote": [1, 1, 1, 0], "route": [0, 1, 0, 0]},
        "two": {"a": [1, 1, 0, 1], "b": [0, 1, 0, 1], "vote": [1, 0, 1, 1], "route": [1, 1, 0, 1]},
    }
    for name, systems in scores.items():
        for place, (label, values) in enumerate(systems.items()):
            role = "baseline" if label in "ab" else "method"
            folder = make_run(tmp_path / "runs" / name, label, values, role, position=place, dev=1 - place / 10)
            rewrite(
                folder,
                lambda head, n=name: head
                | {
                    "dataset": head["dataset"] | {"label": n, "test_fingerprint": n},
                    "config": head["config"] | {"dataset": {"name": n}},
                },
            )
    page = opened(report(tmp_path / "runs")[3])
    grid = page.summary["grid"]
    means = {d["system"]: (d["datasets"], d["score"], d["difference"][0]) for d in grid["datasets"]}
    assert means == {"vote": (2, 0.75, 0.125), "a": (2, 0.625, 0), "route": (2, 0.5, -0.125), "b": (2, 0.375, -0.25)}
    assert [d["system"] for d in grid["datasets"]] == [*means]
    # of four cells one lies above; emergence is 1/2 and 0 in "one", 1 and 0 in "two"
    rows = {(what, published): here for what, here, published, _ in grid["study"]["rows"]}
    cells = "share of (dataset, method) cells above the best single model"
    assert grid["study"]["cells"] == 4 and rows[cells, 0.61] == rows[cells, 132 / 234] == 0.25
    assert rows["emergence", 0.185] == pytest.approx((1 / 2 + 0 + 1 + 0) / 4) and rows["chance", None] == 0.25
    assert rows["emergence of the equal-budget controls", None] is None


def test_one_method_on_one_dataset_is_no_grid(tmp_path: Path, make_run: Any, report: Any, opened: Any) -> None:
    make_run(tmp_path / "runs", "a", [1, 0], "baseline", dev=0.5)
    make_run(tmp_path / "runs", "vote", [1, 1], position=1)
    assert opened(report(tmp_path / "runs")[3]).summary["grid"] == {"datasets": [], "study": None}


def test_json_tells_what_came_of_it(grid: Path, report: Any) -> None:
    code, out, _, file = report(grid, "--json")
    body = json.loads(out)
    assert code == 0 and body["file"] == str(file) and body["size"] == file.stat().st_size
    assert body["questions"] == body["replies"] == body["transcripts"] == 8 and body["problems"] == []
