"""Candidate sets by hand: which are hard, which are trained on, and which samples each shows."""

from __future__ import annotations

import random

import pytest

from moco_method_agglm.sets import CandidateSet, is_hard, mixture, plan, shares


def candidates(question: int, number: int, answers: str, gold: str = "a") -> CandidateSet:
    """A set from a word like "aab-": one letter per answer, - for none that can be read."""
    keys = tuple(None if c == "-" else c for c in answers)
    return CandidateSet(
        question=question, number=number, texts=tuple(answers), keys=keys, right=tuple(k == gold for k in keys)
    )


@pytest.mark.parametrize(
    ("answers", "hard"),
    [
        ("aab", False),
        ("abb", True),
        ("aabb", True),  # tied with a wrong answer
        ("a---", False),  # what cannot be read does not vote
        ("----", True),  # no majority
        ("b---", True),
        ("abc", True),
    ],
)
def test_a_set_is_hard_where_the_majority_is_wrong_or_absent(answers, hard):
    assert candidates(0, 0, answers).hard is hard


def test_tied_answers_are_a_right_majority_only_if_all_of_them_are_right():
    assert not is_hard(["1/2", "0.5", "x"][:2], [True, True])
    assert is_hard(["1/2", "0.5"], [True, False])


def counts(sets, **options):
    settings = {"easy_ratio": 0.5, "max_easy": 3, "skip_unsolvable": False, **options}
    chosen = mixture(sets, rng=random.Random(1), **settings)
    return chosen, (sum(s.hard for s in chosen), sum(not s.hard for s in chosen))


def test_the_mixture_has_all_hard_sets_and_half_as_many_easy_ones_of_questions_used_least():
    hard = [candidates(0, k, "abb") for k in range(3)] + [candidates(1, 0, "bbb")]
    easy = [candidates(q, 9 + k, "aab") for q in (0, 1, 2, 3) for k in range(2)]
    chosen, found = counts([*hard, *easy])
    assert found == (4, 2) and {s.question for s in chosen if not s.hard} == {2, 3}
    assert counts([*hard, *easy], easy_ratio=1.0)[1] == (4, 4)  # 2, 3, then 1 and one of 2 and 3 ...
    assert sorted(s.question for s in counts([*hard, *easy], easy_ratio=1.0)[0] if not s.hard)[0] >= 1
    assert counts([*hard, *easy], easy_ratio=0)[1] == (4, 0)
    assert counts([*hard, *easy], easy_ratio=2.7)[1] == (4, 8)  # as many as there are
    assert counts([*hard, *easy], skip_unsolvable=True)[1] == (3, 2)
    assert counts(hard[:1])[1] == (1, 0)
    assert counts(easy)[1] == (0, 3) and counts([])[1] == (0, 0)
    assert len({s.question for s in counts(easy)[0]}) == 3


def test_models_share_the_solutions_evenly_and_no_sample_is_in_two_sets():
    assert [shares(3, 4, k) for k in range(4)] == [[2, 1, 1], [1, 2, 1], [1, 1, 2], [2, 1, 1]]
    assert [shares(3, 8, k) for k in range(2)] == [[3, 3, 2], [3, 2, 3]]
    assert plan(1, 3, 2) == [[(0, 0), (0, 1), (0, 2)], [(0, 3), (0, 4), (0, 5)]]
    assert plan(2, 2, 1) == [[(0, 0), (1, 0)]]
    everything = [place for part in plan(3, 7, 5) for place in part]
    assert len(set(everything)) == len(everything) == 35
