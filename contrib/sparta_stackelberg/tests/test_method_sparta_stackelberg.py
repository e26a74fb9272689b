"""Sparta with a leader: the bandit and the matching by hand, both ways of training on scripted models, bad input."""

from __future__ import annotations

import json
import math
import random
import re
from collections import Counter

import pytest

from moco_core import ConfigError, Example, Question, Sampling, build
from moco_method_sparta_stackelberg.leading import Leader, drawn_opponent, reward, tau, weights_of_opponents
from moco_method_sparta_stackelberg.method import SpartaStackelberg
from moco_method_sparta_stackelberg.options import Options
from moco_toolkit_authoring import ScriptedPool, fallible, method_checks, run_method
from moco_toolkit_authoring.scripts import reply as said_by
from moco_toolkit_duels import opponent


def judged(call) -> str | None:
    found = re.search(r"<reply>\n(.*?)\n</reply>", call.prompt, re.DOTALL)
    return found[1] if found and "Rate the reply" in call.prompt else None


def score(value: float) -> str:
    return json.dumps({"score": value})


def sure(call):
    text = judged(call)
    return fallible(call) if text is None else score(1 + sum(map(ord, text)) % 10)


test_conformance = method_checks(
    "sparta_stackelberg",
    script=sure,
    settings=[
        {"num_iterations": 2, "num_duels_per_iteration": 4},
        {"training_algorithm": "grpo", "num_iterations": 1, "num_duels_per_iteration": 3, "leader_scope": "per_model"},
    ],
)

EVERY = Options()


# ---------------------------------------------------------------- the leader


def test_one_duel_moves_two_arms_as_worked_out_by_hand():
    """K = 2, gamma = 0.2, reward 1 on arm 0 drawn with p = 0.5: log w_0 += 1/2 * 1 / 0.5 = 1."""
    leader = Leader(logs=[0.0, 0.0])
    shares = leader.shares(0.2)
    assert shares == pytest.approx([0.5, 0.5])
    after = leader.after([(0, 1.0)], shares, Options(gamma=0.2))
    assert after.logs == pytest.approx((0.0, -1.0))
    assert after.shares(0.2) == pytest.approx([0.8 * math.e / (math.e + 1) + 0.1, 0.8 / (math.e + 1) + 0.1])
    slower = leader.after([(0, 1.0)], shares, Options(gamma=0.2, eta="gamma/K"))
    assert slower.logs == pytest.approx((0.0, -0.2))


def test_shares_sum_to_one_and_none_is_below_its_part_of_chance():
    leader = Leader(logs=[0.0, -800.0, -3.0, -1e-9])
    for gamma in (0.0, 0.2, 1.0):
        shares = leader.shares(gamma)
        assert math.fsum(shares) == pytest.approx(1) and min(shares) >= gamma / 4
    assert leader.shares(1.0) == pytest.approx([0.25] * 4)


def test_a_bandit_with_one_good_arm_comes_to_rest_on_it():
    rng, leader = random.Random(0), Leader(logs=[0.0] * 5)
    for _ in range(400):
        shares = leader.shares(0.2)
        drawn = rng.choices(range(5), shares, k=4)
        leader = leader.after([(arm, float(arm == 3)) for arm in drawn], shares, EVERY)
    assert leader.shares(0.2)[3] == pytest.approx(0.8 + 0.2 / 5, abs=1e-6)


def test_a_reward_is_for_difficulty_above_the_threshold_and_for_the_wanted_gap():
    hard = Options(difficulty_weight=1.0)
    for scores, value in (
        ((3.0, 3.0), 1.0),
        ((10.0, 10.0), 0.0),
        ((2.99, 2.99), 0.0),
        ((3.0, 10.0), 0.5),
        ((6.5, 6.5), 0.5),
    ):
        assert reward(scores, 0.0, hard) == pytest.approx(value)
    gap = Options(difficulty_weight=0.0)
    assert reward((2.0, 2.0 + 0.6 * 9), 0.0, gap) == pytest.approx(1.0)
    assert reward((2.0 + 0.15 * 9, 2.0), 1.0, gap) == pytest.approx(1.0)
    assert reward((5.0, 5.0), 1.0, gap) == pytest.approx(math.exp(-0.5))  # one width off
    assert reward((3.0, 3.0 + 0.6 * 9), 0.0, EVERY) == pytest.approx(0.3 * (1 + (10 - 8.4) / 7) / 2 + 0.7)
    assert [tau(t, 3) for t in range(3)] == [0.0, 0.5, 1.0] and tau(0, 1) == 0.0


# ---------------------------------------------------------------- who meets whom


def test_opponents_have_the_exact_probabilities_of_the_kernel():
    ratings, far = [100.0, 103.0, 112.0], math.exp(-((0.25 - 1) ** 2) / (2 * 0.15**2))
    assert weights_of_opponents(ratings, 0, 0.0, EVERY) == pytest.approx([0, far / (1 + far), 1 / (1 + far)])
    near = [math.exp(-(g**2) / (2 * 0.15**2)) for g in (0.25, 1.0)]
    wanted = [0, near[0] / sum(near), near[1] / sum(near)]
    assert weights_of_opponents(ratings, 0, 1.0, EVERY) == pytest.approx(wanted)
    rising = Options(matching="schedule_increasing")
    assert weights_of_opponents(ratings, 0, 0.0, rising) == pytest.approx(wanted)
    assert weights_of_opponents([100.0] * 4, 1, 0.3, EVERY) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_the_lowest_difference_meets_as_sparta_does():
    ratings, options = [100.0, 101.0, 105.0, 120.0, 99.0], Options(matching="lowest_diff", num_opponents=2)
    one, other = random.Random(1), random.Random(2)
    for model in range(5):
        mine = Counter(drawn_opponent(ratings, model, 0.5, options, one) for _ in range(4000))
        sparta = Counter(opponent(ratings, model, 0.2, 2, other) for _ in range(4000))
        assert mine.keys() == sparta.keys() and all(abs(mine[j] - sparta[j]) < 200 for j in mine)
    farthest = Options(matching="highest_diff", num_opponents=1)
    assert weights_of_opponents(ratings, 0, 0.5, farthest) == [0, 0, 0, 1, 0]


# ---------------------------------------------------------------- followers


def quality(value: int):
    def script(call):
        text = judged(call)
        return f"the answer is {value}" if text is None else score(min(10, int(re.findall(r"\d+", text)[-1])))

    return script


def dev(count: int) -> list[Example]:
    return [Example(question=Question(id=f"d{q}", prompt=f"Item {q}?"), references=("8",)) for q in range(count)]


def fit(pool, examples=None, **options):
    given = {"num_iterations": 2, "num_duels_per_iteration": 9, **options}
    return run_method(
        SpartaStackelberg(Options(**given)),
        pool,
        dev=dev(10) if examples is None else examples,
        questions=[Question(id="t", prompt="Test?")],
        sampling=Sampling(temperature=0.0, max_new_tokens=32),
        reload_with=SpartaStackelberg(Options(**given)),
    )


def better(taught, before):
    """Training adds one to what a model says of itself; it judges as before."""

    def script(call):
        text = said_by(before, call)
        return text if judged(call) is not None else re.sub(r"\d+", lambda found: str(int(found[0]) + 1), str(text))

    return script


@pytest.mark.parametrize("algorithm", ["dpo", "grpo"])
def test_trained_models_are_chosen_where_they_are_better(algorithm):
    pool = ScriptedPool({"a": quality(2), "b": quality(6), "c": quality(3)}, learn=better)
    outcome = fit(pool, training_algorithm=algorithm)
    assert outcome.state["outcome"] == "trained" and outcome.state["round"] == 2
    assert outcome.replies["t"].text == "the answer is 8"
    assert {job.service for _, job in pool.trainings} == {algorithm}
    assert [name for name, _ in pool.trainings[:3]] == ["a", "b", "c"]
    assert pool.trainings[3][0] == "a-stackelberg1"
    active = [note["updates"] for note in outcome.notes if "progress" in note]
    assert active == [9, 18]


def test_practice_is_rewarded_by_the_judges_of_that_duel_weighted_and_scaled():
    """a and b duel: c gives 10 and d 1; weights 100 alike: (5.5 - 1) / 9."""

    def judge_of(value):
        return lambda call: "the answer is 1" if judged(call) is None else score(value)

    pool = ScriptedPool({"a": judge_of(10), "b": judge_of(10), "c": judge_of(10), "d": judge_of(1)})
    outcome = fit(pool, training_algorithm="grpo", num_iterations=1, num_duels_per_iteration=12)
    rewards = {n["training"]: n["reward"] for n in outcome.notes if "reward" in n}
    assert rewards["d-stackelberg1"] == pytest.approx(1.0)  # nobody but d itself is strict
    assert 0.5 <= rewards["a-stackelberg1"] < 1.0
    count = Counter(name for name, job in pool.trainings for _ in job.rows)
    assert sum(count.values()) == 24  # two duellists in each of twelve duels


def test_what_nobody_can_score_trains_nothing_and_the_outcome_says_so():
    for algorithm in ("dpo", "grpo"):
        pool = ScriptedPool(dict.fromkeys("abc", "the answer is 3"))
        outcome = fit(pool, training_algorithm=algorithm)
        assert outcome.state["outcome"] == outcome.replies["t"].meta["outcome"] == "no_pairs"
        assert pool.trainings == [] and any("outcome no_pairs" in text for text in outcome.warnings)


def test_a_leader_draws_more_of_what_is_rewarded():
    """Replies to the first item are far apart as the first round wants it; all others get the same score."""

    def script(value):
        def say(call):
            text = judged(call)
            if text is None:
                return f"the answer is {value if 'Item 0?' in call.transcript else 9}"
            return score(int(text.split()[-1]))

        return say

    pool = ScriptedPool({"a": script(2), "b": script(7), "c": script(9)}, learn=lambda taught, before: before)
    examples, drawn = dev(6), {}
    for kind in ("probabilistic", "uniform"):
        outcome = fit(pool, examples, num_iterations=3, num_duels_per_iteration=60, leader_type=kind, g_end=0.6)
        last = [n["instructions"] for n in outcome.notes if "instructions" in n][-1]
        drawn[kind] = Counter(last)["d0"]
    assert drawn["probabilistic"] > 3 * drawn["uniform"] > 0


def test_two_models_temperature_0_and_uneven_groups_are_refused():
    problems = SpartaStackelberg(Options()).needs().problems(ScriptedPool(dict.fromkeys("ab", "x")).pool)
    assert problems == ["needs at least 3 models, the pool has 2; add models to the pool"]
    with pytest.raises(ConfigError, match="rollout_temperature"):
        build(Options, {"rollout_temperature": 0.0})
    with pytest.raises(ConfigError, match="batch: must be a multiple of group"):
        build(Options, {"training_algorithm": "grpo", "group": 3})
    with pytest.raises(ConfigError, match="needs two dev examples"):
        fit(ScriptedPool(dict.fromkeys("abc", quality(2))), dev(1))


def test_the_plan_is_what_a_fit_takes():
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(3)}, learn=better)
    cost = SpartaStackelberg(Options(num_iterations=1, num_duels_per_iteration=9)).cost_on(
        pool.pool, 10, Sampling(max_new_tokens=32)
    )
    assert cost.fit == 9 * 4 + 3 * 2 * 2 == fit(pool, num_iterations=1).calls["fit"]
    assert cost.train_tokens == 2 * 9 * 3 * (128 + 32) and cost.respond == 1
