"""The page in a real browser, opened from disk: every part clicked, keys, deep links, hostile text, small screens, paper."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_reader import Reader

from moco_core import cli

N = 400
LONG = "long " * 200_000
"""Shown in steps of 3,000 and 90,000 characters."""

HOSTILE = {
    1: "</script><script>window.hacked = 1</script>",
    2: "<img src=x onerror='window.hacked = 1'><b>bold</b>",
    3: "nul \x00 end",
    4: "\u202eturned\u202c \u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f680",
    5: LONG,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, make_run: Any) -> Path:
    """A page of two single models and two methods on 400 questions; some replies of ``vote`` are hostile."""
    out = tmp_path_factory.mktemp("report")
    subsets = ["even", "odd"] * (N // 2)

    def change(i: int, row: dict[str, Any]) -> dict[str, Any]:
        if i in HOSTILE:
            row["reply"]["text"] = row["question"] = HOSTILE[i]
            row["reply"]["meta"] = {HOSTILE[i][:30]: {HOSTILE[i][:30]: 1}}
        if i == 6:
            row["reply"] |= {"text": "The answer", "spans": [["a", "The ", 1], ["b", "answer", 3]]}
            row["calls"][1] |= {"seen": {"text": "t", "continuations": ["1", "2"]}, "said": [-0.1, -2.5]}
        return row

    right = {
        "a": lambda i: i % 2,
        "b": lambda i: i % 3 == 0,
        "vote": lambda i: i % 4 != 0,
        "route": lambda i: i % 5 == 0,
    }
    for place, (label, knows) in enumerate(right.items()):
        own: dict[str, Any] = {}
        if label == "vote":
            own = {"change": change, "warnings": ["'x' was asked and 'y' answers; see that it is the model meant"]}
        role = "baseline" if label in "ab" else "method"
        scores = [int(knows(i)) for i in range(N)]
        make_run(out / "runs", label, scores, role, position=place, dev=0.5, subsets=subsets, **own)
    assert cli._run(["report", str(out / "runs"), "-o", str(out / "report.html")]) == 0
    return out / "report.html"


@pytest.fixture
def reader(browser: Any, file: Path) -> Iterator[Reader]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    reader = Reader(page, file)
    yield reader
    assert reader.errors == [] and page.evaluate("window.hacked") is None
    assert {url for url in reader.requests if not url.startswith(reader.url)} <= {"about:blank"}
    page.close()


def test_the_first_view_has_every_system_and_what_was_found(reader: Reader) -> None:
    page = reader.go()
    assert page.title() == "verdict · d · MoCo report"
    names = page.locator(".forest tbody th bdi").all_inner_texts()
    assert names == ["vote", "route", "a", "b"]
    assert "1 of 2 methods beats the best single model (a), 1 does worse." in reader.text(".lead")
    assert page.locator(".interval .dot").count() == 4 and page.locator(".verdict").all_inner_texts() == [
        "undecided",
        "drop",
    ]
    # the system whose answers came from another model than was asked is marked
    assert page.locator(".forest tr:has(.tag.bad) th bdi").all_inner_texts() == ["vote"]
    page.click(".forest button:has-text('vote')")
    assert "100 better, 0 worse" in reader.text(".details")
    page.click(".details a:has-text('repaired')")
    assert page.url.endswith("#/differences?a=a&b=vote")


def test_every_view_opens_by_its_tab_and_says_what_it_should(reader: Reader) -> None:
    page = reader.go()
    said = ("Every pair", "By subset", "Who pays", "Redirected", "Configuration", "oracle")
    for view, words in zip(("differences", "questions", "cost", "audit", "provenance", "verdict"), said, strict=True):
        page.click(f"nav a:text-is('{view}')")
        if view == "provenance":
            page.click("details.run summary >> nth=0")
        assert words in reader.text(), view
        assert page.locator(f"nav a[aria-current=page]:text-is('{view}')").count() == 1


def test_a_click_leads_from_a_broken_question_to_its_transcript(reader: Reader) -> None:
    page = reader.go("#/differences")
    assert "No question is broken." in reader.text()  # where 4 divides i, a is wrong too
    page.select_option("#base", "b")
    assert "vote is better than b" in reader.text(".lead")
    tiles = dict(t.split("\n")[::-1] for t in page.locator(".tile").all_inner_texts())
    assert tiles == {"repaired": "200", "broken": "34", "both right": "100", "both wrong": "66"}
    page.click(".tile.broken")
    assert page.locator(".questions .row .index").all_inner_texts()[:3] == ["0", "12", "24"]
    page.click(".questions .row >> nth=1")
    page.wait_for_selector(".call")
    assert page.locator("h1 >> nth=-1").inner_text() == "q12" and "2 of 34" in reader.text(".steps")
    assert "right 12" in reader.text() and page.locator(".call").count() == 2
    assert page.locator(".call .cached").count() == page.locator(".call .computed").count() == 1
    assert "reads 1" in reader.text(".call >> nth=1")
    page.click(".call button.seen")
    assert "Another said" in reader.text(".call >> nth=1")
    page.click(".reply:has-text('route')")
    assert "run=route" in page.url and "route says 0 to 12" in reader.text(".shown")
    page.click(".steps a:has-text('back')")
    assert page.locator(".tile[aria-selected=true]").inner_text().endswith("broken")


def test_a_pair_of_the_table_and_the_swap_change_what_is_compared(reader: Reader) -> None:
    page = reader.go("#/differences")
    page.click(".pairs tbody tr:has(bdi:text-is('route')) td >> nth=0")
    assert "b=route" in page.url
    before = page.locator("#base").input_value()
    page.click(".swap")
    assert page.locator("#other").input_value() == before and "is better than route" in reader.text(".lead")


def test_filters_combine_and_their_address_opens_the_same_questions(reader: Reader, browser: Any, file: Path) -> None:
    page = reader.go("#/questions")
    assert "400 questions" in reader.text(".found")
    page.get_by_label("Subset", exact=True).select_option("even")
    page.get_by_label("System", exact=True).select_option("vote")
    page.get_by_label("is", exact=True).select_option("right")
    page.get_by_label("Order", exact=True).select_option("hard")
    page.fill("#find", "question 1")
    # of the even questions 1?, 1??: those that 4 does not divide
    expected = sorted(i for i in range(N) if i % 4 == 2 and str(i).startswith("1"))
    assert f"{len(expected)} questions" in reader.text(".found")
    other = Reader(browser.new_page(), file)
    other.go("#" + page.url.split("#")[1])
    drawn = {int(t) for t in other.page.locator(".matrix .row .index").all_inner_texts()}
    assert f"{len(expected)} questions" in other.text(".found") and len(drawn) > 10 and drawn <= {*expected}
    other.page.close()
    page.click(".clear")
    assert "400 questions" in reader.text(".found")
    alone, together = (lambda i: i % 2 or i % 3 == 0), (lambda i: i % 4 or i % 5 == 0)
    for kind, wanted in {
        "emergent": lambda i: not alone(i) and together(i),
        "none": lambda i: not alone(i) and not together(i),
        "all": lambda i: i % 2 and i % 3 == 0 and i % 5 == 0,
    }.items():
        page.get_by_label("Where", exact=True).select_option(kind)
        assert f"{sum(map(bool, map(wanted, range(N))))} question" in reader.text(".found")


def test_a_link_to_a_question_opens_it_with_the_system_that_was_shared(reader: Reader) -> None:
    page = reader.go("#/question/q6?run=vote")
    page.wait_for_selector(".call")
    assert page.locator("h1 >> nth=-1").inner_text() == "q6"
    assert page.locator(".spans span").all_inner_texts() == ["The ", "answer"] and "b 3 tokens, 75 %" in reader.text(
        ".who-wrote"
    ).replace("\n", " ")
    assert page.locator(".call .bars tr").count() == 2 and "0.917" in reader.text(".call .bars")
    assert page.locator(".noted .bars tr").count() == 2
    reader.go("#/question/q0%2Fabsent")
    assert "no question q0/absent" in reader.text()


def test_all_of_it_can_be_done_with_keys(reader: Reader) -> None:
    page = reader.go()
    for key, view in enumerate(("verdict", "differences", "questions", "cost", "audit", "provenance"), 1):
        page.keyboard.press(str(key))
        page.wait_for_selector(f"nav a[aria-current=page]:text-is('{view}')")
    page.keyboard.press("/")
    page.wait_for_selector("#find:focus")
    page.keyboard.type("question 39")
    page.keyboard.press("Escape")
    page.focus(".matrix")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".steps")
    assert "2 of 11" in reader.text(".steps")
    page.keyboard.press("j")
    page.wait_for_selector("text=3 of 11")
    page.keyboard.press("k")
    page.wait_for_selector("text=2 of 11")
    page.keyboard.press("Escape")
    page.wait_for_selector(".matrix")
    page.focus(".matrix")
    page.fill("#find", "")
    page.focus(".matrix")
    page.keyboard.press("End")
    page.wait_for_selector(".row:has(.index:text-is('399'))")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    before = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    page.keyboard.press("t")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != before


def test_both_axes_of_cost_can_be_changed_and_unknown_is_not_nothing(reader: Reader) -> None:
    page = reader.go("#/cost")
    assert page.locator(".point circle").count() == 4 and page.locator("path.front").count() == 1
    page.select_option("#y", "difference")
    assert "difference to the best single model" in str(page.locator(".cost svg").get_attribute("aria-label"))
    page.select_option("#scale", "linear")
    page.select_option("#x", "flops")
    assert "FLOPs per question" in reader.text() and "y=difference" in page.url
    page.select_option("#x", "money")
    assert page.locator(".point").count() == 0 and "Unknown is not nothing" in reader.text()
    page.click(".costs button:has-text('vote')")
    assert page.locator(".costs tr.part").count() == 1 and "respond" in reader.text(".costs tr.part")


def test_the_audit_leads_to_the_questions_it_counts(reader: Reader) -> None:
    page = reader.go("#/audit")
    row = page.locator(".audit tbody tr:has(bdi:text-is('vote'))").inner_text()
    assert "yes" in row and "'x' was asked and 'y' answers" in reader.text(".warnings")
    assert "no" in page.locator(".audit tbody tr:has(bdi:text-is('a'))").inner_text()


@pytest.mark.parametrize("number", HOSTILE)
def test_what_a_model_wrote_is_text(reader: Reader, number: int) -> None:
    page = reader.go(f"#/question/q{number}?run=vote")
    page.wait_for_selector(".call")
    shown = reader.text(".shown > .said")
    text = HOSTILE[number]
    if text is LONG:
        assert len(shown) < 4000
        page.click(".shown > .said button.more")
        page.wait_for_selector(".shown > .said button.more:has-text('910,000')")
    else:
        pictures = {"\x00": "\u2400", "\u202e": "U+202E", "\u202c": "U+202C"}
        assert shown == re.sub("[\x00\u202e\u202c]", lambda m: pictures[m[0]], text)
    assert page.locator("main img, main b:text-is('bold')").count() == 0


def test_a_question_without_room_says_how_to_read_it(browser: Any, tmp_path: Path, make_run: Any) -> None:
    folder = make_run(tmp_path / "runs", "vote", [1, 0])
    assert cli._run(["report", str(folder), "-o", str(tmp_path / "report.html"), "--size", "0.01"]) == 0
    reader = Reader(browser.new_page(), tmp_path / "report.html")
    page = reader.go("#/question/q1")
    page.wait_for_selector("code:has-text('moco read')")
    assert "What is question 1?" in reader.text() and "wrong" in reader.text() and reader.errors == []
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_small_screen_has_no_sideways_scrolling(browser: Any, file: Path, theme: Any) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=theme)
    reader = Reader(page, file)
    for fragment in (
        "",
        "#/differences",
        "#/questions",
        "#/question/q12?run=vote",
        "#/cost",
        "#/audit",
        "#/provenance",
    ):
        reader.go(fragment)
        if "q12" in fragment:
            page.wait_for_selector(".call")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, fragment
    found = page.evaluate("getComputedStyle(document.documentElement).colorScheme")
    assert found == theme and reader.errors == []
    page.close()


def test_an_option_stays_in_one_piece(reader: Reader) -> None:
    page = reader.go()
    options = page.locator("code.option")
    assert "--controls" in options.all_inner_texts()
    assert {*options.evaluate_all("all => all.map(o => o.getClientRects().length)")} == {1}


def _pages(pdf: bytes) -> list[bytes]:
    """The drawing of every page of a PDF as Chromium writes them."""
    objects = dict(re.findall(rb"\n(\d+) 0 obj\s(.*?)\sendobj", pdf, re.S))
    out = []
    for body in objects.values():
        if re.search(rb"/Type\s*/Page\b", body):
            (content,) = re.findall(rb"/Contents (\d+) 0 R", body)
            out.append(zlib.decompress(objects[content].split(b"stream\n", 1)[1].rsplit(b"endstream", 1)[0]))
    return out


@pytest.mark.parametrize(
    "fragment", ["", "#/differences?b=vote&cell=both+right", "#/questions", "#/cost", "#/question/q12?run=vote"]
)
def test_paper_is_light_and_has_everything(reader: Reader, fragment: str) -> None:
    page = reader.go(fragment)
    if "q12" in fragment:
        page.wait_for_selector(".call")
    page.keyboard.press("t")  # dark on the screen
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    pages = _pages(page.pdf(format="A4"))
    # no page is blank, and lists of 100 and 400 questions take several
    assert all(drawn.count(b"Tj") + drawn.count(b"TJ") > 5 for drawn in pages)
    assert len(pages) >= {"#/questions": 8, "#/differences?b=vote&cell=both+right": 3}.get(fragment, 1)
    # the whole width of what is drawn is on the paper: nothing is wider than the page, nothing is scrolled
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    cut = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible').length"
    assert page.eval_on_selector_all("main .scroll, main .rows, main table", cut) == 0
    wide = "all => all.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className)"
    assert page.eval_on_selector_all("main *", wide) == []
    colours = "getComputedStyle(document.documentElement).backgroundColor + getComputedStyle(document.body).color"
    assert page.evaluate(colours) == "rgb(255, 255, 255)rgb(0, 0, 0)"
    page.emulate_media(media="screen")
    assert page.locator(".rows .row").count() < 100  # what was drawn for paper is gone again
