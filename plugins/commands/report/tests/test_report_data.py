"""What a page holds, against what its runs hold; and runs that are damaged, killed, old, odd or not to be compared."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import moco_command_report
from moco_core import make_reports, read_results
from moco_toolkit_comparison import Comparison

FRONTEND = Path(__file__).parents[1] / "frontend"
ASSET = Path(moco_command_report.__file__).parent / "asset"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    head = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(change(head)))


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


# ---------------------------------------------------------------- text of models is data


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


# ---------------------------------------------------------------- room


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


# ---------------------------------------------------------------- runs as they are found


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


# ---------------------------------------------------------------- what may be compared


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


def test_questions_that_differ_within_one_folder_are_refused(grid: Path, report: Any) -> None:
    rewrite(grid / "d-b-s0", lambda head: head | {"dataset": head["dataset"] | {"test_fingerprint": "g"}})
    code, out, err, file = report(grid)
    assert (code, out) == (2, "") and "(fingerprint): " in err and not file.exists()


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


def test_json_tells_what_came_of_it(grid: Path, report: Any) -> None:
    code, out, _, file = report(grid, "--json")
    body = json.loads(out)
    assert code == 0 and body["file"] == str(file) and body["size"] == file.stat().st_size
    assert body["questions"] == body["replies"] == body["transcripts"] == 8 and body["problems"] == []


# ---------------------------------------------------------------- the package


def test_the_built_application_is_that_of_its_sources() -> None:
    listed = dict(reversed(line.split("  ")) for line in (ASSET / "sha256.txt").read_text().splitlines())
    sources = {"build.mjs", "package.json", "package-lock.json", "tsconfig.json"}
    sources |= {f"src/{file.name}" for file in (FRONTEND / "src").iterdir()}
    built = {f"asset/{name}" for name in ("report.js", "report.css", "licences.txt")}
    assert listed.keys() == sources | built
    for name, found in listed.items():
        file = ASSET.parent / name if name in built else FRONTEND / name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == found, (
            f"{name} changed: npm ci && npm run build in {FRONTEND}"
        )


def test_what_is_bundled_comes_with_its_licence() -> None:
    text = (ASSET / "licences.txt").read_text()
    for name in json.loads((FRONTEND / "package.json").read_text())["dependencies"]:
        assert re.search(rf"^{name} \d", text, re.M)
    assert "MIT License" in text or "The MIT License" in text


@pytest.mark.skipif(
    not (FRONTEND / "node_modules").is_dir() or not shutil.which("node"), reason="npm ci was not run here"
)
def test_building_again_makes_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "frontend"
    shutil.copytree(FRONTEND, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(FRONTEND / "node_modules")
    (tmp_path / "moco_command_report" / "asset").mkdir(parents=True)
    subprocess.run(["node", "build.mjs"], cwd=copy, check=True, capture_output=True)
    for file in ASSET.iterdir():
        assert (tmp_path / "moco_command_report" / "asset" / file.name).read_bytes() == file.read_bytes()


def test_reporting_imports_no_engine_and_help_not_even_numpy(grid: Path, tmp_path: Path) -> None:
    for args, heavy in (
        (["report", str(grid), "-o", str(tmp_path / "r.html")], "'torch', 'transformers', 'pandas', 'scipy'"),
        (["report", "--help"], "'torch', 'numpy', 'rich', 'yaml'"),
    ):
        code = (
            "import sys\n"
            "from moco_core.cli import _run\n"
            f"assert _run({args!r}) == 0\n"
            f"bad = [m for m in sys.modules if m.split('.')[0] in ({heavy})"
            " or m.startswith(('moco_method_', 'moco_pool_', 'moco_dataset_', 'moco_metric_'))]\n"
            "assert not bad, bad\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
