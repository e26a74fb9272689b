"""The table on a terminal: as wide as it may be, with what says something, and what it means in words."""

import attrs
import pytest
from rich.cells import cell_len

from moco_core import ConfigError, make_reports
from moco_toolkit_comparison import Comparison
from moco_toolkit_comparison.showing import shown
from moco_toolkit_comparison.words import brief, findings


def text(runs, width=120, columns=()):
    (report,) = shown(make_reports(runs))
    return [line.plain for line in report.lines(width, columns)]


def test_the_table_has_gap_cost_groups_and_verdicts_and_the_ceiling(grid):
    lines = text(grid)
    assert lines[0] == "d, seed 0, metric m; best single model chosen on dev"
    head = lines[1].split("  ")
    for name in ("system", "score", "vs best", "p Holm", "group", "gap", "cost", "verdict"):
        assert name in [h.strip() for h in head]
    good = next(line.split() for line in lines if line.startswith("good  "))
    assert good[1] == "0.875" and {"a", "150%", "10x", "KEEP", "+0.375", "<0.001"} <= set(good)
    names = [line.split("  ")[0] for line in lines[2:11]]
    assert names == [
        "chance", "random pick", "a (single)", "b (single)", "good self", "good equal_budget",
        "oracle (ceiling)", "idle", "good",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_or_120_columns(grid, width):
    long = [attrs.evolve(r, label=f"{r.label}-{'x' * 60}") for r in grid]
    for runs in (grid, long):
        lines = text(runs, width)
        assert max(map(cell_len, lines)) <= min(width, 120)
    assert all(name in text(grid, width)[1] for name in ("system", "score", "vs best", " p ", "group", "verdict"))


def test_columns_that_say_nothing_are_left_out(grid):
    header = text(grid)[1]
    assert "no answer" not in header and "cut" not in header and " sd" not in header
    cut = [attrs.evolve(r, truncated=0.25) for r in grid]
    assert "cut" in text(cut, 120, ["score", "cut"])[1] and "25.0%" in "\n".join(text(cut, 120, ["cut"]))
    assert "verdict" not in text([r for r in grid if r.role != "control"])[1]


def test_columns_are_chosen_by_name(grid):
    assert text(grid, 80, ["emergence", "flops"])[1].split() == ["system", "emergence", "FLOPs/q"]
    with pytest.raises(ConfigError, match=r"emergense: no such column, did you mean 'emergence'\?; there are system"):
        text(grid, 80, ["emergense"])


def test_what_was_found_in_words(grid):
    (said,) = findings(Comparison(make_reports(grid)[0]))
    assert said.startswith("1 of 2 methods beats the best single model (a). good is ahead of all others. ")
    assert "good costs 10x the tokens of the best single model." in said
    assert "With 200 questions a difference of 0." in said and "is found 8 times in 10." in said and "KEEP good." in said
    assert "No control was run" not in said
    (said,) = findings(Comparison(make_reports([r for r in grid if r.role != "control"])[0]))
    assert "No control was run: more tries of one model might do as well (--controls)." in said


def test_one_method_and_those_that_cannot_be_told_apart_in_words(result):
    a = result("a", [1, 0] * 50, "baseline", dev=0.5)
    (said,) = findings(Comparison(make_reports([a, result("m", [1, 0] * 50)])[0]))
    assert said.startswith("m cannot be told apart from the best single model (a). m costs 1.0x")
    (said,) = findings(Comparison(make_reports([a, result("m", [1, 1] * 50), result("n", [1, 1] * 49 + [1, 0])])[0]))
    assert said.startswith("2 of 2 methods beat the best single model (a). m and n cannot be told apart. ")
    (said,) = findings(Comparison(make_reports([a, result("m", [0, 0] * 50)])[0]))
    assert said.startswith("m does worse than the best single model (a).")


def test_subsets_are_shown_where_they_see_the_systems_in_another_order(result):
    subset = ["x", "y"] * 30
    a = result("a", [1, 0] * 30, "baseline", dev=0.5, subset=subset)
    differs = text([a, result("m", [0, 1] * 25 + [1, 1] * 5, subset=subset)])
    at = next(i for i, line in enumerate(differs) if line.startswith("subset"))
    assert [line.split() for line in differs[at : at + 4]] == [
        ["subset", "m", "a", "n"], ["x", "0.167", "1.000", "30"], ["y", "1.000", "0.000", "30"],
        ["mean", "of", "subsets", "0.583", "0.500"],
    ]  # fmt: skip
    same = text([a, result("m", [1, 1] * 30, subset=subset)])
    assert not any("subset" in line for line in same)


def test_names_in_any_script_and_with_control_characters_keep_the_table_straight(result):
    names = ["模型一号", "نموذج", "👩‍🔬 lab", "nul\x00\x1b[2J"]
    runs = [result(name, [1, 0, 1], "baseline", dev=0.5) for name in names]
    lines = text(runs)
    assert not any("\x1b" in line or "\x00" in line for line in lines[1:])
    starts = {cell_len(line[: line.index("0.667")]) for line in lines if "0.667" in line and "(single)" in line}
    assert len(starts) == 1


def test_a_system_with_warnings_of_its_own_is_marked(grid):
    everybody = [attrs.evolve(r, warnings=("dataset leaves out 3 rows",)) for r in grid]
    assert not any("!" in line for line in text(everybody))
    told = "'m' was asked and 'n' answers; see that it is the model meant"
    lines = text([attrs.evolve(r, warnings=(*r.warnings, told)) if r.label == "idle" else r for r in everybody])
    assert [line.split("  ")[0] for line in lines if "!" in line] == [
        "idle !", "! This system's runs have warnings of their own (run.json)."
    ]  # fmt: skip


def test_extra_metrics_stand_below(grid):
    lines = text([attrs.evolve(r, extra_metrics={"coverage": 0.5, "subset_mean": 0.1}) for r in grid[:3]])
    at = lines.index("")
    assert [line.split() for line in lines[at + 1 : at + 3]] == [["system", "coverage"], ["a", "0.500"]]


def test_failed_runs_say_so(result):
    lines = text([result("a", [1, 0], "baseline", dev=0.5), result("m", [None, None], status="failed")])
    assert next(line for line in lines if line.startswith("m")).split()[1] == "failed"


def test_emergence_stands_beside_that_of_the_equal_budget_control(grid):
    lines = text(grid, 120, ["score", "emergence"])
    assert next(x for x in lines if x.startswith("good  ")).endswith("100.0% vs 0.0%")


def test_chance_stands_in_the_column_of_emergence_too(grid):
    lines = text(grid, 120, ["score", "emergence"])
    assert next(x for x in lines if x.startswith("chance")).split() == ["chance", "0.250", "25.0%"]


@pytest.mark.parametrize(
    ("name", "width", "shown"),
    [
        ("vote", 4, "vote"),
        ("mixture_of_agents equal budget", 20, "mixture_of…al budget"),
        ("mixture_of_agents self", 20, "mixture_of…ents self"),
        ("模型模型模型模型模型", 12, "模型模…模型"),
        ("a\x1bb", 3, "a b"),
    ],
)
def test_long_names_are_cut_in_their_middle_and_alike_ones_stay_apart(name, width, shown):
    assert brief(name, width) == shown and cell_len(shown) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_forty_systems_have_a_table_in_their_order_and_few_words(result, width):
    runs = [result("a", [i % 2 for i in range(60)], "baseline", dev=0.5)]
    runs += [result(f"system {k}", [int(i < 20 + k) for i in range(60)]) for k in range(40)]
    lines = text(runs, width)
    named = [line.split("  ")[0] for line in lines if line.startswith("system ") and line[7].isdigit()]
    assert named == [f"system {k}" for k in range(40)] and max(map(cell_len, lines)) <= width and len(lines) < 55
    assert "of 40 methods" in " ".join(lines)
