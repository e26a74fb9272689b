"""Corrections, tests, groups, power and intervals against independent implementations, definitions and simulation."""

import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from moco_core.runs.stats import wilson
from moco_toolkit_comparison import detectable, gap_closed, holm, interval, letters, pairwise, resampled


def test_holm_equals_statsmodels_and_leaves_out_what_is_no_test():
    rng = random.Random(0)
    for size in (1, 2, 7, 40):
        p = [rng.random() ** 3 for _ in range(size)]
        assert holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([]) == [] and holm([None]) == [None]


def test_pairs_of_right_and_wrong_equal_statsmodels_mcnemar():
    rng = np.random.default_rng(1)
    for n in (1, 7, 200, 3000):
        a, b = (rng.random(n) < 0.6).astype(float), (rng.random(n) < 0.5).astype(float)
        table = [[int(((a == x) & (b == y)).sum()) for y in (1, 0)] for x in (1, 0)]
        assert pairwise(np.array([a, b]))[0, 1] == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-7)


def test_pairs_of_graded_scores_equal_scipy_where_flips_are_few_and_where_they_are_many():
    rng = np.random.default_rng(2)
    for n, tolerance in ((8, 1e-12), (150, 0.01)):
        a = rng.random(n)
        b = a - 0.03 + rng.normal(0, 0.2, n)
        theirs = stats.permutation_test(
            (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", n_resamples=9999, rng=3
        )
        assert pairwise(np.array([a, b]))[0, 1] == pytest.approx(theirs.pvalue, abs=tolerance)


def test_a_pair_is_tested_on_the_questions_that_both_answered():
    a, b = np.array([1.0, 1, 1, np.nan]), np.array([0.0, 0, 0, 0])
    assert pairwise(np.array([a, b]))[0, 1] == pytest.approx(2 / 8)
    assert pairwise(np.array([a, np.full(4, np.nan)]))[0, 1] == 1.0


def test_letters_by_hand():
    def shown(count, *pairs):
        differ = np.zeros((count, count), dtype=bool)
        for i, j in pairs:
            differ[i, j] = differ[j, i] = True
        return letters(differ)

    assert shown(3) == ["a", "a", "a"]
    assert shown(3, (0, 2)) == ["a", "ab", "b"]
    assert shown(3, (0, 1), (0, 2), (1, 2)) == ["a", "b", "c"]
    assert shown(4, (0, 2), (0, 3), (1, 3)) == ["a", "ab", "bc", "c"]
    assert shown(0) == [] and shown(1) == ["a"]


@pytest.mark.parametrize("seed", range(20))
def test_systems_share_a_letter_exactly_if_they_do_not_differ(seed):
    rng = random.Random(seed)
    count = rng.randint(2, 12)
    differ = np.zeros((count, count), dtype=bool)
    for i, j in itertools.combinations(range(count), 2):
        differ[i, j] = differ[j, i] = rng.random() < 0.5
    found = letters(differ)
    for i, j in itertools.combinations(range(count), 2):
        assert bool(set(found[i]) & set(found[j])) is not bool(differ[i, j])


def test_forty_systems_have_letters_in_the_order_of_their_scores():
    scores = np.array([[0.0]]) - np.arange(40)[:, None]
    found = letters(np.abs(scores - scores.T) > 3)
    assert found[0] == "a" and found[4] != found[0] and all(found)


@pytest.mark.parametrize(("n", "discordant"), [(100, 0.3), (400, 0.2)])
def test_the_detectable_difference_is_found_eight_times_in_ten(n, discordant):
    differences = np.zeros(n)
    differences[: int(n * discordant / 2)], differences[int(n * discordant / 2) : int(n * discordant)] = 1, -1
    true = detectable(differences)
    rng, found = np.random.default_rng(4), 0
    share = (discordant + true) / 2
    for _ in range(1000):
        draws = rng.random(n)
        wins, losses = (draws < share).sum(), ((draws >= share) & (draws < discordant)).sum()
        z = abs(wins - losses) / math.sqrt(max(wins + losses, 1))
        found += z > 1.96
    assert 760 <= found <= 840


def test_what_disagrees_never_or_is_not_there_has_a_detectable_difference_or_none():
    # one win and one loss more than were seen: s^2 = 2/52, and sqrt(50) d = 1.96 s + 0.84 sqrt(s^2 - d^2)
    assert detectable(np.zeros(50)) == pytest.approx(0.0759, abs=1e-4) and detectable(np.zeros(0)) is None
    assert detectable(np.ones(1)) == 1.0


def test_a_bootstrap_draws_the_same_questions_for_all_systems_and_copes_with_gaps():
    table = np.array([[1.0, 0, 1, 0], [1.0, 0, 1, 0], [np.nan, 1, 1, 1]])
    means = resampled(table, seed=5, resamples=500)
    assert means.shape == (500, 3) and (means[:, 0] == means[:, 1]).all() and np.isin(means[:, 2], (0.0, 1.0)).all()
    assert (resampled(table, seed=5, resamples=500) == means).all()


def coverage(draw, truth, statistic=lambda means: sum(m[:, 0] for m in means) / len(means)):
    rng, hits = np.random.default_rng(6), 0
    for _ in range(1000):
        low, high = interval(draw(rng), statistic, seed=int(rng.integers(1 << 30)), resamples=400)
        hits += low <= truth <= high
    return hits


def test_intervals_of_graded_means_cover_their_truth():
    assert 930 <= coverage(lambda rng: [rng.beta(2, 3, (1, 80))], 0.4) <= 970


def test_wilsons_intervals_cover_their_truth():
    rng = np.random.default_rng(7)
    found = [wilson(int(k), 150) for k in rng.binomial(150, 0.6, 1000)]
    assert 930 <= sum(low <= 0.6 <= high for low, high in found) <= 970


def test_intervals_of_macro_averages_cover_their_truth():
    def draw(rng):
        return [(rng.random((1, n)) < p).astype(float) for n, p in ((60, 0.2), (90, 0.5), (40, 0.9))]

    assert 930 <= coverage(draw, (0.2 + 0.5 + 0.9) / 3) <= 970


def clustered(rng, questions=80, seeds=3):
    """Scores (seeds, questions) where a question's ease is its own, for all seeds."""
    ease = rng.beta(1, 1, questions)
    return (rng.random((seeds, questions)) < ease).astype(float)


def test_intervals_over_seeds_cover_where_means_per_question_are_drawn_and_not_where_seeds_count_as_questions():
    assert 930 <= coverage(lambda rng: [clustered(rng).mean(axis=0, keepdims=True)], 0.5) <= 970
    assert coverage(lambda rng: [clustered(rng).reshape(1, -1)], 0.5) < 900


def test_the_gap_that_is_closed_by_hand():
    assert gap_closed(0.7, 0.6, 0.8) == pytest.approx(0.5) and gap_closed(0.7, 0.6, 0.6) is None
