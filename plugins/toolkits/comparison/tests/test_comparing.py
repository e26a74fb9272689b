"""A report, looked into: ceilings, groups, emergence, verdicts, costs and aggregates, all by hand."""

import json
import math

import attrs
import pytest

from moco_core import ConfigError, make_reports
from moco_toolkit_comparison import (
    Amount,
    Comparison,
    answering,
    comparable,
    costs,
    differences,
    front,
    load_runs,
    over_datasets,
    over_subsets,
    read_prices,
    study,
    total,
)
from moco_toolkit_comparison.words import findings


@pytest.fixture
def comparison(grid):
    (report,) = make_reports(grid)
    return Comparison(report)


def named(comparison):
    return {s.label: s for s in comparison.standings}


def test_oracle_random_pick_and_chance(comparison):
    # a is right on odd i, b on i % 4 < 2: together on three of four
    assert (comparison.oracle, comparison.random, comparison.chance) == (0.75, 0.5, 0.25)


def test_gap_closed_and_its_interval(comparison):
    found = named(comparison)
    assert found["good"].gap == pytest.approx((0.875 - 0.5) / (0.75 - 0.5)) and found["idle"].gap == 0
    low, high = found["good"].gap_interval
    assert low < 1.5 < high and high - low < 2
    assert found["a"].gap is None


def test_emergence_stands_beside_that_of_the_controls_and_chance(comparison):
    found = named(comparison)
    # no single model is right where i % 4 == 2: 50 questions; good is right on all of them, the control on none
    assert found["good"].emergence.open == 50 and found["good"].emergence.share == 1.0
    assert {n: e.share for n, e in found["good"].control_emergence.items()} == {"equal budget": 0.0, "self": 0.0}
    assert found["a"].emergence is None


def test_groups_share_a_letter_where_the_corrected_test_sees_no_difference(comparison):
    found = named(comparison)
    assert {s.label: s.group for s in comparison.standings} == {
        "good": "a", "good equal_budget": "b", "a": "c", "b": "bc", "idle": "c", "good self": "c",
    }  # fmt: skip
    assert comparison.p_values[0, 1] < 0.001 and found["good"].p_holm >= found["good"].row.versus.p_value


def test_verdicts_need_the_equal_budget(comparison, grid):
    found = named(comparison)
    assert (found["good"].verdict.decision, found["idle"].verdict.decision) == ("KEEP", "UNDECIDED")
    assert found["good"].verdict.why == "beats best single, self, equal budget"
    assert found["good equal_budget"].control == "equal budget" and found["good equal_budget"].of == "good"
    (alone,) = make_reports([r for r in grid if r.role != "control"])
    assert named(Comparison(alone))["good"].verdict.why == "no control with an equal budget was run"


def test_a_placebo_is_compared_and_has_no_part_in_the_verdict(grid, result):
    method = {"name": "control", "kind": "placebo", "method": {"name": "good"}}
    placebo = result("good placebo", [int(i % 8 != 7) for i in range(200)], "control", method=method)
    comparison = Comparison(make_reports([*grid, placebo])[0])
    good = named(comparison)["good"]
    assert good.verdict.why == "beats best single, self, equal budget" and good.versus_controls["placebo"].difference == 0
    assert "What good learnt from dev cannot be told from chance (placebo)." in findings(comparison)[0]
    assert "placebo" not in findings(Comparison(make_reports(grid)[0]))[0]


def test_the_rule_is_that_of_the_runs_and_the_strictest_where_they_differ(grid):
    strict = [attrs.evolve(r, rule={"level": 0.99, "gain": 0.5 * (r.label == "good")}) for r in grid]
    (report,) = make_reports(strict)
    assert named(Comparison(report))["good"].verdict.decision == "DROP" and Comparison(report).rule.level == 0.99


def test_cost_is_that_of_answering_a_question_and_compared_with_the_best_single_model(comparison):
    good = named(comparison)["good"]
    assert good.cost["tokens"] == Amount(150.0) and good.times == Amount(10.0) and comparison.unit == "tokens"
    assert good.cost["flops"].value == 2 * 1e6 * 150 and good.cost["money"] == Amount(None)
    assert comparison.curve() == [(15.0, 0.5), (155.0, 0.565)]
    assert [s.label for s in comparison.standings if s.efficient] == ["a", "b", "idle", "good"]  # equals dominate nobody


def test_prices_by_file_replace_what_nobody_knew(grid):
    (report,) = make_reports(grid)
    priced = Comparison(report, read_prices({"a": [1, 2]}))
    assert priced.unit == "money" and named(priced)["good"].cost["money"].value == pytest.approx((100 + 2 * 50) / 1e6)
    with pytest.raises(ConfigError) as caught:
        read_prices({"a": [1], "b": {"prompt": 1, "completion": -2}, "c": {"prompt": 1, "completion": 2}, "d": math.nan})
    assert len(caught.value.problems) == 3 and caught.value.problems[0].startswith("prices: a: expected two numbers")


def test_everything_is_json_and_adds_to_what_the_core_says(comparison):
    data = json.loads(json.dumps(comparison.data(), allow_nan=False))
    core = comparison.report.data()
    assert all(data[key] == json.loads(json.dumps(value)) for key, value in core.items() if key != "rows")
    for mine, row in zip(data["rows"], core["rows"], strict=True):
        assert json.loads(json.dumps(row)).items() <= mine.items()


# ---------------------------------------------------------------- costs


def row(**fields):
    return {"prompt": 10, "completion": 5, "calls": 1, "cached": 1, "seconds": 2.0, "untimed": 0, "parameters": 7} | fields


def test_what_is_unknown_stays_unknown_and_makes_sums_at_least(result):
    run = result("m", [1], costs={
        "fit": {"a": row(money=1.0, unpriced=1, reasoning=3, unreasoned=1)},
        "respond": {"a": row(money=2.0, unpriced=0, untimed=2), "b": row(parameters=None)},
        "metric": {"judge": row()},
    })  # fmt: skip
    fit, first, second, judge = costs(run)
    assert fit.amounts["money"] == Amount(1.0, True) and fit.amounts["reasoning"] == Amount(3, True)
    assert first.amounts["seconds"] == Amount(None) and first.amounts["money"] == Amount(2.0)
    assert second.amounts["money"] == second.amounts["flops"] == Amount(None)
    summed = total([fit, first, second])
    assert summed["money"] == Amount(3.0, True) and summed["flops"] == Amount(2 * 2.0 * 7 * 15, True)
    assert summed["calls"] == Amount(6.0) and summed["money"].text(".2f") == ">=3.00" and Amount(None).text() == "?"
    assert judge.phase == "metric" and answering([run])["tokens"] == Amount(30.0)
    assert total([])["money"] == Amount(0.0)


def test_roles_are_told_apart_and_the_rest_is_what_has_none(result):
    whole = row(roles={"judge": row(prompt=4, completion=1, calls=1, cached=0, seconds=0.5)})
    judge, rest = sorted(costs(result("m", [1], costs={"respond": {"a": whole}})), key=lambda line: line.role, reverse=True)
    assert (judge.role, judge.amounts["prompt"].value, judge.amounts["calls"].value) == ("judge", 4, 1)
    assert (rest.role, rest.amounts["prompt"].value, rest.amounts["seconds"].value) == ("", 6, 1.5)


def test_training_counts_by_what_its_job_says(result):
    took = {"flops": 9.0, "seconds": 4.0}
    trained = row(calls=0, cached=0, prompt=0, completion=0, seconds=0.0, parameters=None, trained=took)
    (line,) = costs(result("m", [1], costs={"fit": {"a": trained}}))
    assert line.amounts["flops"] == Amount(9.0) and line.amounts["seconds"].value == 4.0


def test_runs_of_earlier_versions_have_costs_too(result):
    (line,) = costs(result("m", [1], costs={"respond": {"a": {"prompt": 1, "completion": 2, "calls": 3, "cached": 0}}}))
    assert line.amounts["prompt"] == Amount(1.0) and line.amounts["seconds"] == Amount(None)


def test_the_front_by_hand():
    points = [(1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (None, 0.9), (4, None)]
    assert front(points) == [True, False, True, False, False, False]


# ---------------------------------------------------------------- several seeds, several datasets, odd grids


def test_seeds_are_no_further_questions(result):
    runs = [result("a", [1, 0, 1, 0], "baseline", seed=s, dev=0.5) for s in (0, 1)]
    runs += [result("m", scores, seed=s) for s, scores in enumerate(([1, 1, 1, 0], [1, 0, 1, 0]))]
    (report,) = make_reports(runs)
    (standing,) = (s for s in Comparison(report).standings if s.label == "m")
    assert standing.row.estimate.n == 4 and standing.row.estimate.mean == 0.625
    assert standing.seed_sd == pytest.approx(math.sqrt(2) * 0.125) and standing.row.seed_means == {0: 0.75, 1: 0.5}
    assert standing.emergence.solved == 0.5 and standing.emergence.open == 2


def test_macro_averages_count_their_parts_alike(result):
    subset = ["x"] * 30 + ["y"] * 10
    (report,) = make_reports([result("m", [1] * 15 + [0] * 15 + [1] * 10, subset=subset)])
    macro = over_subsets(report.rows[0])
    assert macro.mean == 0.75 and macro.parts == {"x": 30, "y": 10} and macro.few == ("y",)
    assert macro.low < 0.75 < macro.high < 0.9  # y has no spread of its own
    assert over_subsets(make_reports([result("m", [1, 0])])[0].rows[0]) is None


def test_datasets_count_alike_too_and_differences_are_paired(result):
    reports = []
    for name, scores in (("d", [1] * 40), ("e", [1, 0] * 10)):
        config = {"method": {"name": "x"}, "dataset": {"name": name}, "metric": {"name": "m"}, "seed": 0}
        base = result("a", [0, 1] * (len(scores) // 2), "baseline", dev=0.1, config={**config, "method": {"name": "a"}})
        reports += make_reports([base, result("m", scores, config=config)])
    assert over_datasets(reports, "m").mean == 0.75
    against = over_datasets(reports, "m", minus="best single")
    assert against.mean == pytest.approx((0.5 + 0.0) / 2) and against.low < 0.25 < against.high
    assert over_datasets(reports, "nobody") is None


def test_the_studys_aggregate_of_a_grid(comparison):
    found = study([comparison])
    # good is above the best single model, idle is not
    assert (found.cells, found.above, found.share) == (2, 1, 0.5)
    assert found.emergence == pytest.approx((1.0 + 0.0) / 2) and found.control_emergence == 0.0 and found.chance == 0.25
    assert found.data()["published"]["cells_above_recomputed"] == pytest.approx(0.564, abs=5e-4)


@pytest.mark.parametrize("scores", [[1.0], [0.0, 0.0], [1.0] * 5])
def test_one_question_and_equal_scores_have_a_correct_table(result, scores):
    runs = [result("a", scores, "baseline", dev=0.5), result("m", scores)]
    comparison = Comparison(make_reports(runs)[0])
    data = json.dumps(comparison.data(), allow_nan=False)
    assert json.loads(data)["rows"][1]["group"] == "a" and named(comparison)["m"].verdict.decision == "UNDECIDED"


def test_without_single_models_or_scores_there_is_a_table_all_the_same(result):
    (report,) = make_reports([result("m", [1, 0]), result("n", [None, None], status="failed")])
    comparison = Comparison(report)
    json.dumps(comparison.data(), allow_nan=False)
    assert comparison.oracle is None and named(comparison)["n"].group == "" and named(comparison)["m"].verdict is None


def test_questions_that_only_some_answered_make_a_correct_table(result):
    runs = [result("a", [1, None, 0, 0], "baseline", dev=0.5), result("b", [0, None, 1, None], "baseline", dev=0.4)]
    comparison = Comparison(make_reports([*runs, result("m", [1, 1, None, 1]), result("n", [None, 1, None, None])])[0])
    json.dumps(comparison.data(), allow_nan=False)
    assert comparison.oracle == pytest.approx(2 / 3)
    found = named(comparison)
    assert found["m"].row.versus.n == 2 and found["n"].row.versus is None
    assert (found["m"].emergence.solved, found["m"].emergence.open) == (1, 1)


def test_runs_are_read_as_far_as_they_can_be(tmp_path):
    head = {
        "format": 1, "id": "r", "role": "method", "label": "m", "position": 0, "models": [], "status": "finished",
        "config": {"method": {"name": "m"}, "dataset": {"name": "d"}, "metric": {"name": "x"}, "seed": 0},
        "dataset": {"notes": {}, "test": 2}, "score": None,
    }  # fmt: skip
    whole, killed, newer, cut = (tmp_path / name for name in ("whole", "killed", "newer", "cut"))
    for folder, body in (
        (whole, json.dumps(head)),
        (killed, json.dumps({k: v for k, v in head.items() if k != "score"} | {"status": "running", "id": "k"})),
        (newer, json.dumps(head | {"format": 99})),
        (cut, json.dumps(head)[:-5]),
    ):
        folder.mkdir()
        (folder / "run.json").write_text(body)
    (whole / "units.jsonl").write_text('{"id": "q0", "score": 1.0, "subset": ""}\n')
    runs, problems = load_runs([tmp_path, whole])
    assert [(r.id, r.status, len(r.units)) for r in runs] == [("k", "interrupted", 0), ("r", "finished", 1)]
    assert len(problems) == 2 and "upgrade moco-core" in " ".join(problems) and "cannot be read" in " ".join(problems)
    (whole / "units.jsonl").write_text('{"id": "q0", "score": NaN, "subset": ""}\n')
    assert "units.jsonl: line 1 is damaged" in " ".join(load_runs([tmp_path])[1])
    for place, line in ((tmp_path / "nowhere", "no such folder"), (cut, "cannot be read")):
        with pytest.raises(ConfigError, match=line):
            load_runs([place])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no run"):
        load_runs([tmp_path / "empty"])


def test_forty_systems(result):
    runs = [result("a", [i % 2 for i in range(60)], "baseline", dev=0.5)]
    runs += [result(f"m{k}", [int((i * 7 + k) % 41 > k) for i in range(60)]) for k in range(39)]
    comparison = Comparison(make_reports(runs)[0])
    assert len(comparison.standings) == 40 and all(s.group for s in comparison.standings)


def test_runs_of_other_questions_metrics_or_versions_are_refused_by_name(result):
    a = result("a", [1])
    assert differences(a, result("b", [0])) == []
    others = {
        "questions of the test split": attrs.evolve(a, test_fingerprint="g"),
        "metric: m and other": attrs.evolve(a, config={**a.config, "metric": {"name": "other"}}),
        "metric.tolerance: (none) and 0.5": attrs.evolve(a, config={**a.config, "metric": {"name": "m", "tolerance": 0.5}}),
        "number of test questions: 1 and 9": attrs.evolve(a, questions=9),
    }
    for what, other in others.items():
        assert any(line.startswith(what) for line in differences(a, other))
        with pytest.raises(ConfigError, match=r"not comparable; .*--force"):
            comparable([a, other])
        assert len(comparable([a, other], force=True)) == 1
    old, new = (attrs.evolve(a, versions={"moco-metric-m": v, "moco-core": v}) for v in ("1", "2"))
    assert differences(old, new) == ["version of moco-metric-m: 1 and 2"]
    read, otherwise = (attrs.evolve(a, versions={"moco-toolkit-answers": v}) for v in ("1", "2"))
    assert differences(read, otherwise) == ["version of moco-toolkit-answers: 1 and 2"]
    # side by side, metrics are no matter; what differs within one is
    assert comparable([a, others["metric: m and other"]], side_by_side=True) == []
    with pytest.raises(ConfigError, match="fingerprint"):
        comparable([a, others["questions of the test split"]], side_by_side=True)
