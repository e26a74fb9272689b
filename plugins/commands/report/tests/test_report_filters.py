"""What filters do to the numbers of the page: p, Holm and groups of the questions that are left, as Python computes them."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moco_core import Unit, cli, compare
from moco_core.runs.stats import estimate
from moco_toolkit_comparison import holm, letters, pairwise
from moco_toolkit_comparison.statistics import interval

N = 240
SUBSETS = ["even", "odd"] * (N // 2)
Scores = dict[str, list[float]]


def page_of(out: Path, make_run: Any, scores: Scores, **more: Any) -> Path:
    for place, (label, values) in enumerate(scores.items()):
        role = "baseline" if label in ("a", "b") else "method"
        dev = 0.9 if label == "a" else 0.5
        subsets = SUBSETS[: len(values)]
        make_run(out / "runs", label, values, role, position=place, dev=dev, subsets=subsets, **more)
    assert cli._run(["report", str(out / "runs"), "-o", str(out / "report.html")]) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def right() -> Scores:
    rng = random.Random(5)
    skill = {"a": 0.5, "b": 0.4, "vote": 0.65, "route": 0.5, "worse": 0.3}
    return {label: [float(rng.random() < p) for _ in range(N)] for label, p in skill.items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, make_run: Any, right: Scores) -> Path:
    return page_of(tmp_path_factory.mktemp("right"), make_run, right)


@pytest.fixture(scope="module")
def graded() -> Scores:
    """Scores in thirds, whose sums tie; a few questions are all that ``vote`` changes."""
    rng = random.Random(6)
    size = N // 2
    base = [rng.choice([0.0, 1 / 3, 2 / 3, 1.0]) for _ in range(size)]
    few = [min(1.0, v + 1 / 3) if i % 24 == 0 else v for i, v in enumerate(base)]
    return {"a": base, "b": rng.sample(base, size), "vote": few, "route": [rng.betavariate(3, 2) for _ in range(size)]}


@pytest.fixture(scope="module")
def graded_file(tmp_path_factory: pytest.TempPathFactory, make_run: Any, graded: Scores) -> Path:
    return page_of(tmp_path_factory.mktemp("graded"), make_run, graded, binary=False)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.on("console", lambda m: errors.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.set_default_timeout(8000)
    yield page
    assert errors == []
    page.close()


def go(page: Any, file: Path, fragment: str) -> None:
    page.goto("about:blank")
    page.goto(file.as_uri() + fragment)
    page.wait_for_selector("main :first-child")


def rows_of(page: Any) -> dict[str, dict[str, Any]]:
    """What the verdict's table says of every system."""
    script = """rows => rows.map(row => ({
        name: row.querySelector("th bdi").textContent, score: row.querySelector("td.strong").textContent,
        p: [...row.querySelectorAll("data")].map(d => Number(d.value)),
        group: row.querySelector(".letters").getAttribute("aria-label"),
        interval: row.querySelector(".interval").getAttribute("aria-label"),
    }))"""
    return {row["name"]: row for row in page.eval_on_selector_all(".forest tbody tr", script)}


def expected(scores: Scores, places: Sequence[int]) -> tuple[list[str], Any, Any, dict[str, str]]:
    """The systems best first, p of every pair, these corrected, and letters, as the toolkit computes them."""
    means = {label: math.fsum(values[i] for i in places) for label, values in scores.items()}
    # of equals, the page has them in the order of the report: methods after single models, by name
    order = sorted(means, key=lambda label: -means[label])
    table = np.array([[scores[label][i] for i in places] for label in order])
    raw = pairwise(table)
    pairs = [(i, j) for i in range(len(order)) for j in range(i)]
    corrected = raw.copy()
    for (i, j), p in zip(pairs, holm([raw[i, j] for i, j in pairs]), strict=True):
        corrected[i, j] = corrected[j, i] = p
    return order, raw, corrected, dict(zip(order, letters(corrected < 0.05), strict=True))


def units(values: Sequence[float], places: Sequence[int]) -> list[Unit]:
    return [Unit(str(i), values[i], "") for i in places]


FILTERS: dict[str, Callable[[Scores, int], bool]] = {
    "in=odd": lambda s, i: i % 2 == 1,
    "find=question+1": lambda s, i: str(i).startswith("1"),
    "of=vote&is=wrong": lambda s, i: s["vote"][i] == 0,
    "kind=split&in=even": lambda s, i: i % 2 == 0 and len({v[i] for v in s.values()}) > 1,
    "find=question+77%3F": lambda s, i: i == 77,
}


@pytest.mark.parametrize("address", FILTERS)
def test_p_holm_and_groups_are_those_of_the_questions_that_are_left(
    page: Any, file: Path, right: Scores, address: str
) -> None:
    places = [i for i in range(N) if FILTERS[address](right, i)]
    go(page, file, f"#/verdict?{address}")
    assert f"Only {len(places)} question" in page.inner_text(".scope")
    _, _, _, groups = expected(right, places)
    found, best = rows_of(page), units(right["a"], places)
    against = {label: compare(units(v, places), best) for label, v in right.items() if label != "a"}
    # the report's rows are corrected together: single models, then methods
    corrected = dict(zip(against, holm([v.p_value if v else None for v in against.values()]), strict=True))
    for label, versus in against.items():
        assert versus is not None
        assert found[label]["p"] == pytest.approx([versus.p_value, corrected[label]], rel=1e-9, abs=1e-15), label
    assert {label: row["group"] for label, row in found.items()} == groups
    for label, values in right.items():
        known = estimate(units(values, places))
        assert known is not None
        assert found[label]["score"] == f"{known.mean:.3f}"
        assert found[label]["interval"] == f"{known.mean:.3f}, 95 % interval {known.low:.3f} to {known.high:.3f}"


@pytest.mark.parametrize("address", ["in=even", "in=odd", "find=question+1"])
def test_tests_of_graded_scores_are_the_toolkits(page: Any, graded_file: Path, graded: Scores, address: str) -> None:
    places = [i for i in range(N // 2) if FILTERS.get(address, lambda s, i: i % 2 == 0)(graded, i)]
    order, raw, corrected, groups = expected(graded, places)
    for label in ("vote", "route", "b"):
        go(page, graded_file, f"#/differences?a=a&b={label}&{address}")
        at, base = order.index(label), order.index("a")
        found = page.eval_on_selector_all(".lead data", "all => all.map(d => Number(d.value))")
        assert found == pytest.approx([raw[at, base], corrected[at, base]], rel=1e-9), label
    go(page, graded_file, f"#/verdict?{address}")
    assert {label: row["group"] for label, row in rows_of(page).items()} == groups
    # other questions are drawn than numpy draws: the ends of intervals are near those of Python
    mean, low, high = map(float, re.findall(r"\d\.\d+", rows_of(page)["route"]["interval"]))
    table = np.array([[graded["route"][i] for i in places]])
    ends = interval([table], lambda means: means[0][:, 0])
    assert mean == pytest.approx(table.mean(), abs=5e-4)
    assert (low, high) == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0]) + 5e-4)


def test_a_filter_goes_along_to_the_other_views_and_says_what_it_proves(page: Any, file: Path, right: Scores) -> None:
    go(page, file, "#/questions")
    whole = page.locator(".matrix .head .group").all_inner_texts()
    page.get_by_label("Subset", exact=True).select_option("odd")
    odd = [i for i in range(N) if i % 2]
    _, _, _, groups = expected(right, odd)
    names = page.locator(".matrix .head .column:not(.oracle) bdi").all_inner_texts()
    assert dict(zip(names, page.locator(".matrix .head .group").all_inner_texts(), strict=True)) == groups
    assert "prove nothing" not in page.inner_text(".scope")
    page.click(".scope a")
    assert page.url.endswith("#/verdict?in=odd") and "subset odd" in page.inner_text(".scope")
    assert "Verdict" not in page.locator(".forest thead th").all_inner_texts()
    page.click("nav a:text-is('differences')")
    assert page.url.endswith("#/differences?in=odd")
    tiles = dict(t.split("\n")[::-1] for t in page.locator(".tile").all_inner_texts())
    vote, alone = right["vote"], right["a"]
    counted = {
        "repaired": sum(vote[i] > alone[i] for i in odd),
        "broken": sum(vote[i] < alone[i] for i in odd),
        "both right": sum(vote[i] + alone[i] == 2 for i in odd),
        "both wrong": sum(vote[i] + alone[i] == 0 for i in odd),
    }
    assert tiles == {cell: str(n) for cell, n in counted.items()}
    page.click(".tile.broken")
    drawn = {int(t) for t in page.locator(".questions .row .index").all_inner_texts()}
    assert drawn and all(i % 2 and vote[i] < alone[i] for i in drawn)
    page.click(".scope a:has-text('all questions')")
    assert "in=odd" not in page.url and page.locator(".scope").count() == 0
    go(page, file, "#/differences?of=vote&is=wrong&a=a&b=route")
    assert "prove nothing of others" in page.inner_text(".scope")
    go(page, file, "#/questions")
    assert page.locator(".matrix .head .group").all_inner_texts() == whole


def test_groups_that_score_together_are_not_filtered(page: Any, tmp_path: Path, make_run: Any) -> None:
    for place, label in enumerate(("vote", "route")):
        make_run(tmp_path / "runs", label, [1, 1, 0], position=place, units={"g0": 1.0, "g1": float(place)})
    assert cli._run(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "report.html")]) == 0
    go(page, tmp_path / "report.html", "#/differences?find=1")
    assert "these numbers are those of all of them" in page.inner_text(".scope") and "over 2 units" in page.inner_text(".lead")
