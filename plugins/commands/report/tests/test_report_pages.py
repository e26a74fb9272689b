"""Pages of odd runs and of long names in a real browser: no error, and nothing that runs over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_reader import Reader

from moco_core import cli


def _odd(kind: str, out: Path, make_run: Any) -> dict[str, str]:
    """Write runs of a kind and return words that a view has to show."""
    if kind == "one run":
        make_run(out, "vote", [1, 0])
        return {"verdict": "vote", "differences": "one system only"}
    if kind == "killed":
        folder = make_run(out, "vote", [])
        head = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(
            json.dumps({k: v for k, v in head.items() if k != "score"} | {"status": "running"})
        )
        return {"verdict": "nothing to compare yet", "questions": "No question was recorded", "audit": "interrupted"}
    if kind == "all failed":
        make_run(out, "a", [None, None], "baseline", dev=0.5)
        make_run(out, "vote", [None, None], position=1)
        return {"verdict": "nothing to compare yet", "differences": "no scored question in common", "audit": "2"}
    if kind == "nothing open":
        make_run(out, "a", [1, 0], "baseline", dev=0.5)
        make_run(out, "b", [0, 1], "baseline", position=1, dev=0.4)
        make_run(out, "vote", [1, 0], position=2)
        return {"verdict": "nothing can emerge here"}
    if kind == "graded":
        make_run(out, "a", [0.25, -3.0, 1.0], "baseline", dev=0.5, binary=False)
        make_run(out, "vote", [0.5, 7.5, 1.0], position=1, binary=False)
        return {"differences": "equal, full score", "questions": "7.5"}
    if kind == "groups":
        for place, label in enumerate(("vote", "route")):
            make_run(out, label, [1, 1, 0], position=place, units={"g0": 1.0, "g1": float(place)})
        return {"differences": "groups of questions together"}
    if kind == "two datasets":
        for place, name in enumerate(("one", "two")):
            folder = make_run(out / name, "vote", [1, 0], position=place)
            head = json.loads((folder / "run.json").read_text())
            head["dataset"]["label"] = head["config"]["dataset"]["name"] = name
            (folder / "run.json").write_text(json.dumps(head))
        return {"provenance": "one"}
    for place in range(40):
        make_run(out, f"m{place}", [int((q * 7 + place) % 40 < place) for q in range(40)], position=place)
    return {"verdict": "m39", "differences": "780 pairs", "questions": "m0", "cost": "m20"}


@pytest.mark.parametrize(
    "kind", ["one run", "killed", "all failed", "nothing open", "graded", "groups", "two datasets", "forty systems"]
)
def test_odd_runs_make_a_page_without_an_error(browser: Any, tmp_path: Path, make_run: Any, kind: str) -> None:
    words = _odd(kind, tmp_path / "runs", make_run)
    assert cli._run(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "report.html")]) == 0
    reader = Reader(browser.new_page(viewport={"width": 1440, "height": 900}), tmp_path / "report.html")
    page = reader.go()
    for view in ("verdict", "differences", "questions", "cost", "audit", "provenance"):
        page.click(f"nav a:text-is('{view}')")
        page.wait_for_selector(f"nav a[aria-current=page]:text-is('{view}')")
        assert words.get(view, "") in reader.text(), view
    if kind == "two datasets":
        page.select_option("#section", "1")
        page.wait_for_selector("main dd:text-is('two')")
        assert page.url.endswith("s=1")
    assert reader.errors == []
    page.close()


LONG_NAME = "mixture_of_agents_with_three_layers_and_a_very_long_name_of_its_own_v2"


@pytest.fixture(scope="module")
def long_names(tmp_path_factory: pytest.TempPathFactory, make_run: Any) -> Path:
    """A page whose systems have names of more than 50 characters that begin alike, with the controls of one."""
    out = tmp_path_factory.mktemp("long")
    subsets = ["even", "odd"] * 30
    for place, label in enumerate((f"organization/{LONG_NAME}-base", f"organization/{LONG_NAME}-instruct", LONG_NAME)):
        role = "method" if label == LONG_NAME else "baseline"
        make_run(out / "runs", label.replace("/", "-"), [i % (place + 2) > 0 for i in range(60)], role, position=place,
                 dev=0.5, subsets=subsets)  # fmt: skip
    for place, kind in enumerate(("equal_budget", "self"), 3):
        folder = make_run(out / "runs", f"{LONG_NAME} {kind}", [i % 2 for i in range(60)], "control", position=place)
        head = json.loads((folder / "run.json").read_text())
        head["config"]["method"] = {"name": "control", "kind": kind, "method": {"name": LONG_NAME}}
        (folder / "run.json").write_text(json.dumps(head))
    assert cli._run(["report", str(out / "runs"), "-o", str(out / "report.html")]) == 0
    return out / "report.html"


def test_long_names_break_where_their_words_end_and_differ_where_they_are_cut(browser: Any, long_names: Path) -> None:
    for width in (400, 1440):
        page = browser.new_page(viewport={"width": width, "height": 800})
        reader = Reader(page, long_names)
        for fragment in ("#/differences", "#/cost", "#/audit", "#/questions") if width == 400 else ("#/questions",):
            reader.go(fragment)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, fragment
        heads = page.locator(".matrix .head .column:not(.oracle) bdi").all_inner_texts()
        assert len({*heads}) == len(heads) == 5 and max(map(len, heads)) <= 24
        reader.go()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        lines = """name => {
            const range = document.createRange(), out = [];
            const walker = document.createTreeWalker(name, NodeFilter.SHOW_TEXT);
            let top = null;
            for (let node; (node = walker.nextNode());)
                for (let i = 0; i < node.length; i++) {
                    range.setStart(node, i); range.setEnd(node, i + 1);
                    const at = range.getBoundingClientRect().top;
                    if (top === null || at > top + 4) out.push("");
                    top = at; out[out.length - 1] += node.data[i];
                }
            return out; }"""
        shown = page.locator(".forest .method th bdi").first.evaluate(lines)
        assert "".join(shown) == LONG_NAME and all(line[-1] in "_/.-" for line in shown[:-1]), shown
        assert reader.errors == []
        page.close()


def test_emergence_stands_beside_that_of_the_controls_and_chance(browser: Any, long_names: Path) -> None:
    reader = Reader(browser.new_page(), long_names)
    row = reader.go().locator(".emergence tbody tr").first.locator("td").all_inner_texts()
    heads = reader.page.locator(".emergence thead th").all_inner_texts()[1:]
    # wrong with both single models where 6 divides i: right with the method where 4 does not divide it
    assert dict(zip(heads, row, strict=True)) == {
        "Share": "50.0\u00a0%", "Questions": "5 of 10 (few)", "Its equal budget control": "0.0\u00a0%",
        "Its self control": "0.0\u00a0%", "Chance": "25.0\u00a0%",
    }  # fmt: skip
    reader.page.close()
