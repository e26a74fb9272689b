"""Tallies, tie rules, weights and similarities against closed forms and reference implementations."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_toolkit_voting import bleu, correlations, cosine, log_odds, smoothed_accuracy, support, token_f1, vote

KEYS = st.lists(st.sampled_from([None, "a", "b", "c", "d"]), max_size=12)


@settings(deadline=None)
@given(KEYS)
def test_plurality_agrees_with_counter_and_mode(keys):
    outcome = vote(keys)
    voted = [key for key in keys if key is not None]
    if not voted:
        assert outcome is None
        return
    assert outcome.support == pytest.approx(Counter(voted))
    assert outcome.key == statistics.mode(voted) == Counter(voted).most_common(1)[0][0]  # both keep the first on a tie


@settings(deadline=None)
@given(KEYS, st.randoms(use_true_random=False))
def test_the_order_of_voters_decides_ties_only(keys, rng):
    outcome = vote(keys)
    shuffled = list(keys)
    rng.shuffle(shuffled)
    again = vote(shuffled)
    if outcome is None:
        assert again is None
    elif not outcome.tied:
        assert again.key == outcome.key and not again.tied
        assert again.margin == pytest.approx(outcome.margin)
    else:
        assert set(again.tied) == set(outcome.tied)


@settings(deadline=None)
@given(KEYS)
def test_equality_as_utility_is_the_same_vote(keys):
    assert vote(keys, utility=lambda a, b: float(a == b)) == vote(keys)


@pytest.mark.parametrize(("voters", "accuracy", "expected"), [(5, 0.6, 0.68256), (3, 0.7, 0.784), (1, 0.6, 0.6)])
def test_condorcet_majority_of_independent_voters(voters, accuracy, expected):
    """P = sum over k > M/2 of C(M,k) p^k (1-p)^(M-k), by voting on every possible outcome."""
    total = 0.0
    for outcome in itertools.product((True, False), repeat=voters):
        chance = math.prod(accuracy if right else 1 - accuracy for right in outcome)
        total += chance * (vote(["right" if right else "wrong" for right in outcome]).key == "right")
    assert total == pytest.approx(expected, abs=1e-12)


def test_a_lone_expert_beats_the_pair_by_log_odds():
    weights = [log_odds(p, 2) for p in (0.9, 0.6, 0.6)]
    assert weights == pytest.approx([2.197225, 0.405465, 0.405465], abs=1e-6)
    assert vote(["a", "b", "b"], weights=weights).key == "a"
    assert vote(["a", "b", "b"]).key == "b"


def test_log_odds_is_zero_at_chance_and_clipped_below_it():
    assert log_odds(0.25, 4) == pytest.approx(0.0, abs=1e-12)
    assert log_odds(0.1, 4) == 0.0 and log_odds(0.0, 2) == 0.0
    assert log_odds(1.0, 2) == math.inf
    assert smoothed_accuracy(8, 10, 4) == pytest.approx(9 / 14)


def test_token_f1_support_is_five_thirds():
    keys = ["Barack Obama", "Obama", "Joe Biden"]
    assert support(keys, utility=token_f1) == pytest.approx({"Barack Obama": 5 / 3, "Obama": 5 / 3, "Joe Biden": 1.0})
    outcome = vote(keys, utility=token_f1, skills=[0.2, 0.7, 0.9], tie="best_model")
    assert outcome.key == "Obama" and outcome.tied == ("Barack Obama", "Obama")
    assert vote(keys, utility=token_f1).key == "Barack Obama"


def test_ties():
    keys, skills = ["A", "B"], [0.6, 0.8]
    assert vote(keys, skills=skills, tie="best_model").key == "B"
    assert vote(keys, skills=skills, tie="order").key == "A"
    assert vote(keys, skills=[0.7, 0.7], tie="best_model").key == "A"
    draws = Counter(vote(keys, tie="random", rng=random.Random(seed)).key for seed in range(400))
    assert 150 < draws["A"] < 250
    with pytest.raises(ValueError, match="generator"):
        vote(keys, tie="random")


def test_who_stands_for_the_winner():
    keys = ["A", "B", "A", "A"]
    assert vote(keys).voter == 0
    assert vote(keys, skills=[0.1, 0.9, 0.5, 0.5]).voter == 2
    assert vote(keys, lengths=[9, 1, 7, 3]).voter == 3


def test_abstentions_neither_win_nor_count():
    assert vote([None, None]) is None and vote([]) is None
    outcome = vote([None, None, "B"])
    assert (outcome.key, outcome.voter, outcome.margin, outcome.share) == ("B", 2, 1.0, 1.0)
    assert vote(["A", "A", "B", None]).margin == pytest.approx(1 / 3)


def test_all_weights_zero_still_names_a_winner():
    outcome = vote(["A", "B"], weights=[0.0, 0.0])
    assert (outcome.key, outcome.margin, outcome.share) == ("A", 0.0, 0.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("The Eiffel Tower", "eiffel tower!", 1.0),
        ("Beyoncé", "Beyonce", 1.0),
        ("twenty-one", "twenty one", 1.0),
        ("a b c", "b c d", 0.8),  # without the article: {b, c} and {b, c, d}, overlap 2
        ("red red", "red", 2 / 3),
        ("the", "the", 1.0),
        ("the", "an", 0.0),
        ("", "x", 0.0),
        ("東京都", "東京", 0.8),
    ],
)
def test_token_f1(a, b, expected):
    assert token_f1(a, b) == pytest.approx(expected)
    assert token_f1(b, a) == pytest.approx(expected)


@settings(deadline=None)
@given(st.text(max_size=30))
def test_token_f1_of_a_text_with_itself_is_one(text):
    assert token_f1(text, text) == 1.0


def test_bleu_is_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    a, b = "the cat sat on the mat", "the cat is on the mat"
    assert bleu(a, b) == pytest.approx(sacrebleu.sentence_bleu(a, [b], use_effective_order=True).score / 100)
    assert bleu(a, a) == pytest.approx(1.0) and bleu("x", a) == 0.0


def test_bleu_says_what_to_install(monkeypatch):
    import sys

    from moco_core.errors import ConfigError

    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(ConfigError, match=r"moco-toolkit-voting\[bleu\]"):
        bleu("a", "b")


def test_cosine():
    assert cosine((1, 0), (1, 1)) == pytest.approx(math.sqrt(0.5))
    assert cosine((1, 0), (-1, 0)) == 0.0 and cosine((0, 0), (1, 0)) == 0.0


SCORES = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=5, max_size=5), min_size=2, max_size=4)


@settings(deadline=None)
@given(SCORES)
def test_correlations_of_voters_equal_those_of_the_standard_library(scores):
    found = correlations(scores)
    for i, one in enumerate(scores):
        for j, other in enumerate(scores):
            if len(set(one)) == 1 or len(set(other)) == 1:
                assert found[i][j] is None
            else:
                assert found[i][j] == pytest.approx(statistics.correlation(one, other))


def test_correlations_leave_out_what_one_of_two_voters_has_no_score_for():
    assert correlations([[1, 0, None, 1], [1, 0, 1, None]]) == [[pytest.approx(1), 1], [1, pytest.approx(1)]]
    assert correlations([[None, 1.0], [1.0, None]])[0][1] is None
