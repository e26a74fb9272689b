"""Ratings against hand-computed updates and scipy, match-making, judges' scores, and what duels give to train on."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter

import attrs
import pytest
from scipy.stats import norm

from moco_core import ModelCallError, Question
from moco_core.types import ContinuationScore
from moco_toolkit_authoring import Faults, ScriptedPool, open_state
from moco_toolkit_duels import (
    Duel,
    DuelOptions,
    Fought,
    Scale,
    Standings,
    closest,
    counted,
    expected_score,
    fight,
    judge_problems,
    matches,
    preferences,
    written_score,
)

QUESTION = Question(id="q", prompt="Say something.")
SCALE = Scale()


def standings(ratings, deviations=None, updates: int = 0) -> Standings:
    count = len(ratings)
    return Standings(ratings=ratings, deviations=deviations or [0.5] * count, deltas=[()] * count, updates=updates)


# ---------------------------------------------------------------- ratings


def test_the_first_duel_moves_two_equals_as_worked_out_by_hand():
    """K_1 = 10 * 0.9^0.1 = 9.8952; 9.8952 / 20 * 2 * tanh(0.5) * 0.01."""
    after = standings([100.0, 100.0]).after(0, 1, 8.0, 6.0, SCALE)
    assert after.ratings[0] - 100 == pytest.approx(0.0045727, abs=5e-8)
    assert after.ratings[1] - 100 == pytest.approx(-0.0045727, abs=5e-8)
    assert after.updates == 1 and after.deviations == (0.5, 0.5)


@pytest.mark.parametrize("gap", ["published", "upset"])
def test_the_gap_is_that_of_scipys_normal_distribution(gap):
    scale = attrs.evolve(SCALE, gap=gap, epsilon=0.0)
    ratings, deviations = (103.0, 101.5), (0.9, 1.2)
    z = 1.5 / math.hypot(*deviations)
    for winner in (0, 1):
        scores = (7.0, 4.0) if winner == 0 else (4.0, 7.0)
        after = standings(ratings, deviations, updates=4).after(0, 1, *scores, scale)
        share = abs(norm.cdf(z) - norm.cdf(-z)) if gap == "published" else 1 - norm.cdf(z if winner == 0 else -z)
        for i, sign in ((0, 1), (1, -1)):
            ahead = sign * (scores[0] - scores[1])
            wanted = 10 * 0.9**0.5 / 20 * ahead * math.tanh(deviations[i]) * share
            assert after.ratings[i] - ratings[i] == pytest.approx(wanted, rel=1e-12)


def test_equal_scores_move_nobody_and_equal_deviations_make_it_zero_sum():
    assert standings([90.0, 110.0]).after(0, 1, 5.0, 5.0, SCALE).ratings == (90.0, 110.0)
    after = standings([90.0, 110.0, 100.0]).after(2, 0, 9.0, 2.0, SCALE)
    assert math.fsum(after.ratings) == pytest.approx(300, abs=1e-12) and after.ratings[1] == 110.0


def test_no_rating_falls_below_the_floor_and_k_not_below_its_own():
    scale = attrs.evolve(SCALE, min_k=5.0, scaling=0.01)
    assert standings([10.0, 100.0]).after(0, 1, 1.0, 10.0, scale).ratings[0] == 10.0
    assert [scale.k(u) for u in (10, 20, 1000)] == pytest.approx([9.0, 8.1, 5.0])


def test_a_deviation_is_that_of_the_last_movements_once_there_are_two():
    scale = attrs.evolve(SCALE, window=2, min_deviation=1e-6)
    state = standings([100.0, 100.0])
    moves = []
    for scores in ((8.0, 6.0), (9.0, 1.0), (2.0, 7.0)):
        before = state.ratings[0]
        state = state.after(0, 1, *scores, scale)
        moves.append(state.ratings[0] - before)
        last = moves[-2:]
        wanted = 0.5 if len(moves) == 1 else abs(last[0] - last[1]) / 2  # the population's, of two
        assert state.deviations[0] == pytest.approx(wanted, rel=1e-6)
    assert len(state.deltas[0]) == 2


def test_relabelling_the_models_permutes_the_standings():
    rng = random.Random(0)
    duels = [(*rng.sample(range(4), 2), rng.randint(1, 10), rng.randint(1, 10)) for _ in range(60)]
    order = [2, 0, 3, 1]
    one, other = standings([100.0, 103.0, 99.0, 97.0]), standings([0.0] * 4)
    other = attrs.evolve(other, ratings=[one.ratings[order.index(i)] for i in range(4)])
    for a, b, x, y in duels:
        one, other = one.after(a, b, x, y, SCALE), other.after(order[a], order[b], x, y, SCALE)
    assert [other.ratings[order[i]] for i in range(4)] == list(one.ratings)


# ---------------------------------------------------------------- match-making


def test_the_closest_are_those_by_rating_and_ties_go_to_the_lower_index():
    ratings = [100.0, 104.0, 96.0, 100.0, 90.0]
    assert closest(ratings, 0, 3) == [3, 1, 2]
    assert closest(ratings, 0, 2, farthest=True) == [4, 1]
    assert closest(ratings, 4, 9) == [2, 0, 3, 1]


def test_every_block_has_each_model_once_in_front_and_nobody_meets_itself():
    found = matches(23, [100.0, 101.0, 102.0, 103.0, 104.0], 0.2, 2, random.Random(1))
    for block in range(4):
        assert sorted(a for a, _ in found[5 * block : 5 * block + 5]) == [0, 1, 2, 3, 4]
    assert len(found) == 23 and all(a != b for a, b in found)


def test_without_chance_the_one_closest_is_met_and_with_chance_alone_everybody_alike():
    ratings = [100.0, 101.0, 105.0, 120.0]
    met = {(a, b) for a, b in matches(400, ratings, 0.0, 1, random.Random(2))}
    assert met == {(0, 1), (1, 0), (2, 1), (3, 2)}
    free = Counter(matches(12_000, ratings, 1.0, 1, random.Random(3)))
    assert len(free) == 12 and all(abs(n - 1000) < 150 for n in free.values())
    mixed = Counter(b for a, b in matches(8000, ratings, 0.3, 1, random.Random(4)) if a == 3)
    assert mixed[2] / 2000 == pytest.approx(0.7 + 0.1, abs=0.03)


# ---------------------------------------------------------------- judging


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"score": 7}', 7.0),
        ("Fine.\n```json\n{'score': 8.5, 'why': 'short'}\n```", 8.5),
        ('<think>{"score": 2}</think>{"score": "9"}', 9.0),
        ("score: 3, on reflection score = 4", 4.0),
        ('{"score": 0}', None),
        ('{"score": 11}', None),
        ("scored 7", None),
        ("7", None),
        ("", None),
    ],
)
def test_a_score_is_read_as_it_was_asked_for(text, score):
    assert written_score(text) == score


def test_an_expected_score_is_the_mean_under_the_ten_probabilities():
    def scored(*logs):
        return [ContinuationScore(token_ids=[1], token_logprobs=[log]) for log in logs]

    assert expected_score(scored(*[-3.0] * 10)) == pytest.approx(5.5)
    assert expected_score(scored(*[-1e9] * 6, -2.0, -2.0 - math.log(3), *[-1e9] * 2)) == pytest.approx(7.25)
    assert expected_score(scored(*[-math.inf] * 10)) is None


def held(pool, duels, options: DuelOptions | None = None) -> list[Fought]:
    async def work():
        async with open_state() as state:
            return await fight(duels, list(pool.pool), options or DuelOptions(), state.context("fit"))

    return asyncio.run(work())


def judging(good: str, *, scores=(9, 2)):
    """A script that scores a reply with its word in it high, all others low, and otherwise says its own name."""

    def script(call):
        if "Rate the reply" in call.prompt:
            return json.dumps({"score": scores[0 if good in call.prompt else 1]})
        return f"from {call.model}"

    return script


def test_all_others_judge_each_reply_alone_and_their_ratings_weigh_their_scores():
    pool = ScriptedPool(
        {"a": judging("from a"), "b": judging("from b"), "c": judging("from a"), "d": judging("from b", scores=(8, 4))}
    )
    (one,) = held(pool, [Duel(number=0, question=QUESTION, a=0, b=1)])
    assert one.replies == ("from a", "from b") and one.scores == {2: (9.0, 2.0), 3: (4.0, 8.0)}
    assert one.means([1.0, 1.0, 3.0, 1.0]) == pytest.approx((7.75, 3.5))
    assert one.means([1.0, 1.0, 1.0, 9.0]) == pytest.approx((4.5, 7.4))
    asked = [call.prompt for call in pool.history if "Rate the reply" in call.prompt]
    assert len(asked) == 4 and not any("from a" in prompt and "from b" in prompt for prompt in asked)
    assert all(QUESTION.prompt in prompt for prompt in asked)
    (better,) = preferences([one], [1.0, 1.0, 3.0, 1.0], 0.0)
    assert (better[0].chosen, better[0].rejected) == ("from a", "from b")
    (better,) = preferences([one], [1.0, 1.0, 1.0, 9.0], 0.0)
    assert (better[0].chosen, better[0].rejected) == ("from b", "from a")
    assert preferences([one], [1.0, 1.0, 1.0, 9.0], 3.0) == []


def test_a_judge_that_cannot_be_read_on_one_reply_abstains_on_both_with_all_its_weight():
    def shy(call):
        return '{"score": 10}' if "from b" in call.prompt else "I would rather not say"

    pool = ScriptedPool({"a": judging("from a"), "b": judging("from b"), "c": judging("from a"), "shy": shy})
    (one,) = held(pool, [Duel(number=0, question=QUESTION, a=0, b=1)])
    assert one.scores == {2: (9.0, 2.0)} and one.means([1.0, 1.0, 1.0, 1e6]) == (9.0, 2.0)


def test_what_gives_no_pair_is_counted_by_its_reason():
    faults = Faults(when=lambda call: call.model == "d" and "Rate" not in call.prompt)
    pool = ScriptedPool({"a": judging("x"), "b": judging("x"), "c": "no score", "d": judging("x")}, faults=faults)
    duels = [
        Duel(number=n, question=QUESTION, a=a, b=b) for n, (a, b) in enumerate([(0, 1), (0, 3), (1, 2), (0, 2), (2, 1)])
    ]
    fought = held(pool, duels)
    assert [one.replies is None for one in fought] == [False, True, False, False, False]
    assert counted(fought, 0) == {"duels": 5, "pairs": 0, "failed": 1, "unjudged": 0, "even": 4}
    mute = ScriptedPool(dict.fromkeys("abc", "nothing"))
    assert counted(held(mute, duels[:1]), 0)["unjudged"] == 1
    assert preferences(held(mute, duels[:1]), [1.0] * 3, 0.0) == []


def test_rounds_of_a_sampled_judge_are_averaged_and_a_greedy_one_is_asked_once():
    drawn = iter([4, 8, 6] * 2)

    def script(call):
        return json.dumps({"score": next(drawn)}) if "Rate" in call.prompt else "the same"

    pool = ScriptedPool({"a": "x", "b": "y", "c": script})
    (one,) = held(
        pool, [Duel(number=0, question=QUESTION, a=0, b=1)], DuelOptions(judge_rounds=3, judge_temperature=0.5)
    )
    assert one.scores == {2: (6.0, 6.0)} and DuelOptions(judge_rounds=3).rounds == 1
    assert preferences([one], [1.0] * 3, 0.0) == []


def test_a_judge_whose_calls_fail_abstains_and_expected_scores_need_the_capability():
    faults = Faults(when=lambda call: call.model == "c", error=lambda call: ModelCallError("broken"))
    pool = ScriptedPool({"a": "x", "b": "y", "c": "z"}, faults=faults)
    for judged in ("written", "expected"):
        (one,) = held(pool, [Duel(number=0, question=QUESTION, a=0, b=1)], DuelOptions(judging=judged))
        assert one.replies is not None and one.scores == {}
    bare = [attrs.evolve(m, capabilities={"generate"}) for m in pool.pool]
    assert judge_problems(bare, DuelOptions()) == []
    assert (
        "judging: model 'a' cannot score given continuations"
        in judge_problems(bare, DuelOptions(judging="expected"))[0]
    )


def test_the_same_two_on_the_same_question_draw_anew_in_every_duel():
    pool = ScriptedPool({n: lambda call: str(call.seed) for n in "abc"})
    fought = held(pool, [Duel(number=n, question=QUESTION, a=0, b=1) for n in range(3)])
    assert len({one.replies for one in fought}) == 3
    again = held(pool, [Duel(number=1, question=QUESTION, a=0, b=1)])
    assert again[0].replies == fought[1].replies
