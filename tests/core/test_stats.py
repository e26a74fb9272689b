import math
import random

import pytest
from scipy import stats as scipy_stats

from moco_core.runs.stats import bonett_price, compare, estimate, mcnemar_exact, wilson
from moco_core.types import Unit


def units(values):
    return [Unit(str(i), float(v)) for i, v in enumerate(values)]


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (77, 400)])
def test_wilson_equals_scipy(k, n):
    theirs = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 5), (9, 1), (40, 20), (700, 640), (1500, 1300)])
def test_mcnemar_equals_the_binomial_test(wins, losses):
    expected = scipy_stats.binomtest(wins, wins + losses, 0.5).pvalue if wins + losses else 1.0
    assert mcnemar_exact(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_bootstrap_interval_is_close_to_scipy():
    rng = random.Random(1)
    values = [rng.random() ** 2 for _ in range(300)]
    ours = estimate(units(values))
    theirs = scipy_stats.bootstrap((values,), lambda v, axis: v.mean(axis=axis), method="percentile", rng=0)
    low, high = theirs.confidence_interval
    assert ours.mean == pytest.approx(math.fsum(values) / 300)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.005)


def test_paired_comparison_by_hand():
    system, base = units([1, 1, 1, 0, 1, 1]), units([0, 0, 1, 1, 1, 0])
    got = compare(system, base)
    assert (got.difference, got.wins, got.losses, got.n) == (pytest.approx(2 / 6), 3, 1, 6)
    assert got.test == "mcnemar" and got.p_value == pytest.approx(scipy_stats.binomtest(3, 4).pvalue)
    assert got.low < got.difference < got.high


def test_pairing_uses_shared_questions_only():
    got = compare([Unit("a", 1.0), Unit("b", 0.0)], [Unit("b", 0.0), Unit("c", 1.0)])
    assert got.n == 1 and got.difference == 0
    assert compare([Unit("a", 1.0)], [Unit("b", 1.0)]) is None
    assert estimate([]) is None


def test_graded_scores_use_a_permutation_test():
    rng = random.Random(0)
    a = [rng.random() for _ in range(30)]
    b = [x - 0.2 + rng.random() * 0.1 for x in a]
    got = compare(units(a), units(b))
    exact = scipy_stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", n_resamples=4000, rng=1
    )
    assert got.test == "permutation" and got.p_value == pytest.approx(exact.pvalue, abs=0.01)


def test_equal_systems_are_not_different():
    got = compare(units([1, 0, 1]), units([1, 0, 1]))
    assert (got.difference, got.p_value) == (0, 1.0)
    # three questions without a difference leave much room for one: z * sqrt(2) / (n + 2)
    assert (got.low, got.high) == pytest.approx((-0.5543, 0.5543), abs=1e-4)
    same = compare(units([0.5, 0.2]), units([0.5, 0.2]))
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1.0)


def test_the_paired_interval_by_hand():
    # 10 wins and 4 losses among 100: centre 6/102, variance (16/102 - (6/102)^2) / 102
    half = 1.959964 * math.sqrt((16 / 102 - (6 / 102) ** 2) / 102)
    assert bonett_price(10, 4, 100) == pytest.approx((6 / 102 - half, 6 / 102 + half), abs=1e-6)
    assert bonett_price(5, 0, 5)[1] == 1.0 and bonett_price(0, 5, 5)[0] == -1.0


@pytest.mark.parametrize(("both", "one", "other", "n"), [(0.5, 0.2, 0.1, 100), (0.6, 0.1, 0.1, 200), (0.3, 0.1, 0.3, 60)])
def test_paired_intervals_cover_the_true_difference(both, one, other, n):
    rng, hits = random.Random(3), 0
    for _ in range(1000):
        draws = [rng.random() for _ in range(n)]
        system = [Unit(str(i), float(d < both + one)) for i, d in enumerate(draws)]
        single = [Unit(str(i), float(d < both or both + one <= d < both + one + other)) for i, d in enumerate(draws)]
        got = compare(system, single)
        hits += got.low <= one - other <= got.high
    assert 930 <= hits <= 970


def test_the_permutation_test_of_few_questions_is_exact_and_of_many_is_normal():
    few = compare(units([0.9, 0.8, 0.7, 0.9]), units([0.1, 0.2, 0.3, 0.2]))
    assert few.p_value == 2 / 16  # all four moved one way: two of 16 flips are as extreme
    rng = random.Random(5)
    a = [rng.random() for _ in range(1500)]
    b = [x - 0.01 + rng.gauss(0, 0.2) for x in a]
    many = compare(units(a), units(b))
    assert many.p_value == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue, rel=0.02)
    interval = scipy_stats.ttest_rel(a, b).confidence_interval()
    assert (many.low, many.high) == pytest.approx((interval.low, interval.high), rel=0.01)
