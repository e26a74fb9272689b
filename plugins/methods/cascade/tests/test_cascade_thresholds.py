"""Chow scores, thresholds, their search and what a confidence is worth: closed forms, brute force, other libraries."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_method_cascade.diagnostics import auroc, curve
from moco_method_cascade.quantiles import chow_average, chow_quantile, chow_sum
from moco_method_cascade.thresholds import Table, by_fraction, oracle, search, simulate

LOGS = [-0.1, -2.0, -0.5, -0.4]
INF = math.inf


# ---------------------------------------------------------------- confidence


def test_chow_scores_by_hand():
    assert chow_sum(LOGS) == pytest.approx(-3.0)
    assert chow_average(LOGS) == pytest.approx(-0.75)
    assert chow_quantile(LOGS, 0.0) == min(LOGS)
    assert chow_quantile(LOGS, 1.0) == max(LOGS)
    assert chow_quantile(LOGS, 0.5) == pytest.approx(-0.45)
    assert all(math.isnan(f) for f in (chow_sum([]), chow_average([]), chow_quantile([], 0.5)))


@settings(deadline=None)
@given(st.lists(st.floats(-50, 0), min_size=1, max_size=20), st.floats(0, 1))
def test_chow_scores_agree_with_numpy(logs, level):
    numpy = pytest.importorskip("numpy")
    assert chow_quantile(logs, level) == pytest.approx(float(numpy.quantile(logs, level)), abs=1e-9)
    assert chow_average(logs) == pytest.approx(chow_sum(logs) / len(logs))


# ---------------------------------------------------------------- thresholds


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
def test_accepted_shares_are_conditional_on_what_arrives(n, fraction, rng):
    """With distinct confidences every level accepts f of the questions that reach it, up to one question."""
    rows = [rng.sample(range(1000), n) for _ in range(3)]
    thresholds, _ = by_fraction(rows, [fraction] * 3)
    alive = list(range(n))
    for row, tau in zip(rows, thresholds, strict=True):
        if not alive:
            break
        accepted = [j for j in alive if row[j] >= tau]
        assert abs(len(accepted) - fraction * len(alive)) <= 1
        alive = [j for j in alive if row[j] < tau]


def test_fractions_by_hand():
    """0.25 accepts the top quarter, 0.75 the top three quarters; level 2 counts only what level 1 deferred."""
    first = [0.1, 0.9, 0.5, 0.3]
    assert by_fraction([first], [0.25]) == ([0.9], [0.25])
    assert by_fraction([first], [0.75]) == ([0.3], [0.75])
    thresholds, shares = by_fraction([first, [0.7, 1.0, 0.8, 0.6]], [0.25, 1 / 3])
    assert thresholds == [0.9, 0.8] and shares == pytest.approx([0.25, 1 / 3])


def test_equal_confidences_take_the_nearest_share_and_nan_never_counts():
    assert by_fraction([[1.0, 1.0, 1.0, 0.0]], [0.5]) == ([1.0], [0.75])
    assert by_fraction([[0.5, 0.5]], [0.5]) == ([0.5], [1.0])
    assert by_fraction([[math.nan, -INF, 0.2, 0.4]], [0.5]) == ([0.2], [0.5])
    assert by_fraction([[math.nan, -INF]], [0.5]) == ([INF], [0.0])
    assert by_fraction([[0.5, 0.5], [0.1, 0.2]], [0.5, 0.5])[0] == [0.5, 0.2]  # nobody left: all questions count


CONFIDENCE = [[0.9, 0.2, 0.8, 0.4, 0.6, 0.1], [0.3, 0.9, 0.5, 0.7, 0.1, 0.8]]
SCORE = [[1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 1, 1]]
COST = [[1, 1, 2, 1, 1, 2], [3, 4, 3, 5, 3, 4], [10, 12, 9, 11, 10, 13]]
CHECK = [[0.5] * 6, [0.25] * 6, [0.0] * 6]
TABLE = Table(confidence=CONFIDENCE, score=SCORE, cost=COST, check=CHECK)


def brute_force(table: Table, *, budget=None, target=None, max_depth=99):
    """Every threshold that separates questions, at every level, by simulation; None if nothing is feasible."""
    grids = [[INF, -INF, *sorted({c for c in row if math.isfinite(c)})] for row in table.confidence]
    best = None
    for taus in itertools.product(*grids):
        score, cost, _ = simulate(table, taus)
        alive = [tau for tau in (*taus, -INF) if tau != INF]
        depth = next((k + 1 for k, tau in enumerate(alive) if tau == -INF), len(alive))
        if depth > max_depth or (budget is not None and cost > budget + 1e-12):
            continue
        if target is not None and score < target - 1e-12:
            continue
        key = (
            (-round(cost, 9), round(score, 9), -depth)
            if target is not None
            else (round(score, 9), -round(cost, 9), -depth)
        )
        if best is None or key > best[0]:
            best = (key, score, cost, depth)
    return best and best[1:]


@pytest.mark.parametrize("budget", [1.0, 1.4, 2.0, 3.0, 4.7, 5.0, 7.0, 9.0, 11.0, 20.0])
@pytest.mark.parametrize("max_depth", [2, 3])
def test_budget_search_equals_brute_force(budget, max_depth):
    found = search(TABLE, grid=40, budget=budget, max_depth=max_depth)
    expected = brute_force(TABLE, budget=budget, max_depth=max_depth)
    if expected is None:
        assert found is None
        return
    assert (found.score, found.cost, found.depth) == pytest.approx(expected)
    assert found.cost <= budget
    assert simulate(TABLE, found.thresholds)[:2] == pytest.approx((found.score, found.cost))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
def test_target_search_equals_brute_force(share):
    found = search(TABLE, grid=40, target=share)
    assert (found.score, found.cost, found.depth) == pytest.approx(brute_force(TABLE, target=share))
    assert found.score >= share


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(2, 4), st.integers(1, 6), st.floats(0.5, 12))
def test_searches_equal_brute_force_on_random_tables(rng, levels, n, budget):
    row = lambda draw: [draw() for _ in range(n)]  # noqa: E731
    table = Table(
        confidence=[row(lambda: rng.choice([0.1, 0.2, 0.5, 0.9, math.nan, -INF])) for _ in range(levels - 1)],
        score=[row(lambda: rng.choice([0, 0.5, 1])) for _ in range(levels)],
        cost=[row(lambda: rng.randint(1, 9)) for _ in range(levels)],
        check=[row(lambda: rng.choice([0, 1])) for _ in range(levels)],
    )
    for goal in ({"budget": budget}, {"target": rng.random()}):
        found, expected = search(table, grid=40, **goal), brute_force(table, **goal)
        assert (found is None) == (expected is None)
        if found is not None:
            assert (found.score, found.cost, found.depth) == pytest.approx(expected)


def test_a_coarse_grid_stays_within_the_budget():
    rng = random.Random(1)
    n = 200
    table = Table(
        confidence=[[rng.random() for _ in range(n)] for _ in range(3)],
        score=[[float(rng.random() < p) for _ in range(n)] for p in (0.4, 0.5, 0.6, 0.7)],
        cost=[[c * rng.uniform(0.5, 1.5) for _ in range(n)] for c in (1, 3, 9, 27)],
        check=[[0.0] * n] * 4,
    )
    before = 0.0
    for budget in (2, 5, 10, 20, 40):
        found = search(table, grid=5, budget=budget)
        assert found.cost <= budget and found.score >= before
        before = found.score


def test_oracle_stops_at_the_first_best_level():
    assert oracle(TABLE) == pytest.approx((1.0, (1 + 5 + 2 + 17 + 4 + 19) / 6))


# ---------------------------------------------------------------- what a confidence is worth


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=2, max_size=30))
def test_auroc_agrees_with_scikit_learn(rows):
    metrics = pytest.importorskip("sklearn.metrics")
    sure, right = [c for c, _ in rows], [float(s) for _, s in rows]
    if len(set(right)) == 1:
        assert auroc(sure, right) is None
    else:
        assert auroc(sure, right) == pytest.approx(metrics.roc_auc_score(right, sure))


def test_auroc_counts_a_missing_confidence_as_the_least_and_orders_graded_scores():
    assert auroc([math.nan, 0.1, -INF], [0, 1, 0]) == 1.0
    assert auroc([math.nan, -INF], [0, 1]) == 0.5
    # pairs (0, 1), (0, 0.5), (0.5, 1): the confidences order two of them
    assert auroc([0.2, 0.1, 0.9], [0.0, 0.5, 1.0]) == pytest.approx(2 / 3)


def test_the_curve_runs_from_the_last_level_to_the_first_beside_chance():
    """With all deferred every level's cost is not paid: the last one answers alone."""
    points = curve(TABLE, points=2)
    assert [p["accept"] for p in points] == [0.0, 0.5, 1.0]
    assert (points[0]["score"], points[0]["cost"]) == pytest.approx((1.0, 65 / 6))
    assert (points[2]["score"], points[2]["cost"]) == pytest.approx((2 / 6, 8 / 6))
    assert points[0]["random"] == points[0]["score"] and points[2]["random"] == points[2]["score"]
    # half stop at level 1 (0, 2, 4: two right), half of the rest at level 2 (either 2 of 3 or 1 of 3 by nearest share)
    taus = by_fraction(CONFIDENCE, [0.5, 0.5])[0]
    score, cost, outcomes = simulate(TABLE, taus)
    assert (points[1]["score"], points[1]["cost"]) == pytest.approx((score, cost))
    shares = [o.accepted / 6 for o in outcomes]
    means = [sum(row) / 6 for row in SCORE]
    assert points[1]["random"] == pytest.approx(sum(p * m for p, m in zip(shares, means, strict=True)))
