"""Sparta on scripted models: duels, ratings, pairs, what is trained on what, what is chosen, and what goes wrong."""

from __future__ import annotations

import json
import re
from collections import Counter

import attrs
import pytest

from moco_core import Answer, ConfigError, Example, Metric, NoOptions, Plugin, Question, Sampling, Score
from moco_method_sparta.fitting import damped
from moco_method_sparta.method import Sparta
from moco_method_sparta.options import Options
from moco_toolkit_authoring import Faults, ScriptedPool, fallible, method_checks, run_method
from moco_toolkit_authoring.scripts import reply as said_by


def judged(call) -> str | None:
    """The reply that a judge is asked about; None where nobody judges."""
    found = re.search(r"<reply>\n(.*?)\n</reply>", call.prompt, re.DOTALL)
    return found[1] if found and "Rate the reply" in call.prompt else None


def score(value: float) -> str:
    return json.dumps({"score": value})


def sure(call):
    """Answers like the toys of the checks; as a judge likes larger digests of a reply."""
    text = judged(call)
    return fallible(call) if text is None else score(1 + sum(map(ord, text)) % 10)


test_conformance = method_checks(
    "sparta",
    script=sure,
    settings=[
        {"num_iterations": 2, "num_instructions": 3},
        {
            "judging": "expected",
            "num_iterations": 1,
            "lora_r": 0,
            "start": "scores",
            "weights_at": "end",
            "gap": "upset",
        },
        {
            "num_iterations": 3,
            "score_type": "dynamic",
            "judge_rounds": 2,
            "judge_temperature": 0.5,
            "random_match_prob": 1.0,
        },
    ],
)


# ---------------------------------------------------------------- a pool of known strength

STRENGTH = {"weakest": 1, "weak": 3, "middle": 5, "good": 7, "best": 9}


def of_strength(call):
    """A reply that tells how good it is, and judges that read it; both are off by one at most."""
    text = judged(call)
    if text is None:
        strength = STRENGTH[call.model.partition("-")[0]]
        return f"quality {strength + (call.seed or 1) % 3 - 1}"
    read = int(re.findall(r"\d+", text)[-1]) + sum(map(ord, call.model + call.transcript)) % 3 - 1
    return score(min(10, max(1, read)))


def quality(value: int):
    """A model whose replies are that good, and which reads it as a judge."""

    def script(call):
        text = judged(call)
        return f"quality {value}" if text is None else score(min(10, int(re.findall(r"\d+", text)[-1])))

    return script


def better(taught, before):
    """Training adds one to what a model says of its quality."""

    def script(call):
        text = said_by(before, call)
        if judged(call) is not None:
            return text
        return re.sub(r"\d+", lambda found: str(int(found[0]) + 1), str(text))

    return script


def dev(count: int, answer: str = "3") -> list[Example]:
    return [Example(question=Question(id=f"d{q}", prompt=f"Item {q}?"), references=(answer,)) for q in range(count)]


def fit(pool, examples=(), asked=(), **options):
    return run_method(
        Sparta(Options(**options)),
        pool,
        dev=examples or dev(10),
        questions=asked or [Question(id="t", prompt="Test?")],
        sampling=Sampling(temperature=0.0, max_new_tokens=32),
        metric=Quality(NoOptions()),
    )


class Quality(Metric[NoOptions]):
    """Scores a reply by the number in it, in tenths."""

    binary = False

    def read(self, question, text):
        found = re.findall(r"\d+", text)
        return Answer(key=found[-1], text=found[-1], status="parsed") if found else Answer()

    def score(self, example, reply, context):
        answer = self.read(example.question, reply.text)
        return Score(value=min(1.0, int(answer.key or 0) / 10), answer=answer)


def rounds_of(outcome) -> list[dict]:
    return [note for note in outcome.notes if "ratings" in note]


# ---------------------------------------------------------------- effects


@pytest.mark.parametrize("gap", ["published", "upset"])
def test_reputation_orders_models_of_known_strength(gap):
    """Five strengths two apart, replies and judges off by one at most each: Spearman's rho of ratings and strengths is 1."""
    pool = ScriptedPool(dict.fromkeys(STRENGTH, of_strength), learn=lambda taught, before: before)
    outcome = fit(pool, dev(60), num_iterations=3, num_instructions=40, gap=gap)
    ratings = outcome.state["ratings"]
    assert sorted(ratings, key=ratings.__getitem__) == list(STRENGTH)
    assert rounds_of(outcome)[-1]["updates"] == 120  # K goes on over rounds


def test_trained_models_are_chosen_where_they_are_better_and_the_earliest_of_equals():
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(3)}, learn=better)
    outcome = fit(pool, num_iterations=3)
    assert outcome.state["outcome"] == "trained" and outcome.state["rounds"] == [3]
    assert outcome.replies["t"].text == "quality 8" and outcome.replies["t"].meta["round"] == 3
    assert outcome.warnings == []
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(5)}, learn=lambda taught, before: before)
    outcome = fit(pool, num_iterations=2)
    assert outcome.state["chosen"] == [{"name": "b"}] and outcome.state["rounds"] == [0]


def test_a_model_that_training_makes_worse_is_not_chosen():
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(4)}, learn=lambda taught, before: quality(1))
    outcome = fit(pool, num_iterations=2)
    assert outcome.state["outcome"] == "trained" and outcome.replies["t"].text == "quality 5"


# ---------------------------------------------------------------- what duels give, and what is trained on it


def test_every_model_is_trained_on_all_pairs_of_the_round_from_its_own_last_checkpoint():
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(3)}, learn=better)
    fit(pool, num_iterations=2, num_instructions=6, beta=0.3, lora_r=4, batch=2)
    assert [name for name, _ in pool.trainings[:3]] == ["a", "b", "c"]
    assert [name for name, _ in pool.trainings[3:]] == ["a-sparta1", "b-sparta1", "c-sparta1"]
    for start, least in ((0, 2), (3, 3)):
        jobs = [job for _, job in pool.trainings[start : start + 3]]
        assert jobs[0].fingerprint == jobs[1].fingerprint == jobs[2].fingerprint
        assert jobs[0].service == "dpo" and jobs[0].beta == 0.3 and jobs[0].lora.r == 4 and jobs[0].batch == 2
        assert len(jobs[0].rows) == 6
        for row in jobs[0].rows:
            good, bad = (int(text.split()[1]) for text in (row.chosen, row.rejected))
            assert good > bad >= least  # the second round's duels are those of models that were trained once


def test_a_round_meets_by_the_ratings_of_the_round_before():
    """With one opponent and no chance, everybody meets the closest by the ratings that the round began with."""
    pool = ScriptedPool(
        {"a": quality(2), "b": quality(9), "c": quality(5), "d": quality(3)}, learn=lambda taught, before: before
    )
    outcome = fit(
        pool, dev(40), num_iterations=3, num_instructions=24, random_match_prob=0.0, num_opponents=1, scaling_factor=1.0
    )
    names = ["a", "b", "c", "d"]
    ratings = dict.fromkeys(names, 100.0)
    for number in (1, 2, 3):
        nearest = {
            a: min((b for b in names if b != a), key=lambda b: (abs(ratings[a] - ratings[b]), names.index(b)))
            for a in names
        }
        met = [note["models"] for note in outcome.notes if note.get("round") == number and "duel" in note]
        assert len(met) == 24 and all(nearest[a] == b for a, b in met)
        assert Counter(a for a, _ in met) == dict.fromkeys(names, 6)
        ratings = next(n["ratings"] for n in rounds_of(outcome) if n["round"] == number)
    assert ratings["b"] > ratings["c"] > ratings["a"]


def test_pairs_follow_the_weights_of_the_start_or_of_the_end_of_a_round():
    """The judges c and d disagree about a and b: even while they weigh the same, c's way once duels have lifted it over d."""
    likes = {"a": {"c": 9, "d": 3}, "b": {"c": 9, "d": 3}, "c": {"a": 9, "b": 3}, "d": {"a": 3, "b": 9}}

    def script(call):
        text = judged(call)
        return f"says {call.model}" if text is None else score(likes[call.model].get(text[-1], 5))

    def rows(at):
        pool = ScriptedPool(dict.fromkeys("abcd", script), learn=lambda taught, before: before)
        fit(pool, dev(50), num_iterations=1, num_instructions=40, weights_at=at, random_match_prob=1.0)
        return Counter((row.chosen[-1], row.rejected[-1]) for row in pool.trainings[0][1].rows)

    start, end = rows("start"), rows("end")
    assert start["c", "d"] and not start["a", "b"] + start["b", "a"]
    assert end["a", "b"] and not end["b", "a"] and end["c", "d"] == start["c", "d"]


def test_questions_of_the_held_out_part_are_never_duelled_on_and_labels_never_asked_of_the_others():
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(3)}, learn=better)
    outcome = fit(pool, dev(10), num_iterations=2, holdout=0.3)
    duelled = {note["question"] for note in outcome.notes if "duel" in note}
    assert len(duelled) == 7
    alone = {call.prompt for call in pool.history if call.params.get("temperature") == 0 and judged(call) is None}
    assert len(alone - {"Test?"}) == 3
    assert not {f"Item {key[1:]}?" for key in duelled} & alone


def test_damped_scores_go_to_the_lowest_rated_and_stand_still_from_the_eighth_round():
    ratings = [5.0, 1.0, 3.0, 2.0]
    assert damped([], ratings, 0, "dynamic") == [] and damped([], ratings, 3, "normal") == []
    assert damped([], ratings, 2, "dynamic") == [1, 3]
    assert damped([0], ratings, 2, "static") == [0, 1] and damped([0, 1], ratings, 3, "static") == [0, 1, 3]
    assert damped([0], ratings, 7, "static") == [0] and damped([2, 1], ratings, 9, "dynamic") == [2, 1]


def test_a_method_over_the_aligned_pool_gets_every_model_at_its_own_best_round():
    def rises_once(taught, before):
        return quality(7) if "earlier" not in taught else quality(1)

    pool = ScriptedPool({"a": quality(2), "b": quality(8), "c": quality(3)}, learn=rises_once)
    vote = pytest.importorskip("moco_method_majority_vote")
    cls = vote.moco_method()
    plugin = Plugin(kind="method", name="majority_vote", given={}, options=cls.Options(), cls=cls)
    method = Sparta(Options(num_iterations=2, method=plugin))
    outcome = run_method(
        method,
        pool,
        dev=dev(10),
        questions=[Question(id="t", prompt="Test?")],
        sampling=Sampling(temperature=0.0),
        metric=Quality(NoOptions()),
        reload_with=Sparta(Options(num_iterations=2, method=plugin)),
    )
    assert outcome.state["rounds"] == [1, 0, 1]
    assert [saved["name"] for saved in outcome.state["chosen"]] == ["a-sparta1", "b", "c-sparta1"]
    assert outcome.replies["t"].text == "quality 7" and outcome.replies["t"].meta["sparta"] == "trained"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("no score and no quality", "of 8 duels nobody gave readable scores in 8, 0 ended even"),
        (quality(4), "of 8 duels nobody gave readable scores in 0, 8 ended even"),
    ],
)
def test_without_a_pair_nothing_is_trained_and_the_outcome_says_so(script, reason):
    pool = ScriptedPool(dict.fromkeys("abc", script))
    outcome = fit(pool, num_iterations=2)
    assert outcome.state["outcome"] == outcome.replies["t"].meta["outcome"] == outcome.noted("outcome") == "no_pairs"
    assert pool.trainings == [] and outcome.state["chosen"] == [{"name": "a"}]
    assert any(reason in text for text in outcome.warnings)
    assert any("outcome no_pairs: no model was trained; a answers as it came" in text for text in outcome.warnings)
    assert set(outcome.state["ratings"].values()) == {100.0}


def test_where_every_call_of_a_duellist_fails_it_is_told_and_the_others_go_on():
    faults = Faults(when=lambda call: call.model == "c" and call.params.get("temperature") == 0.7)
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(9), "d": quality(4)}, faults=faults)
    outcome = fit(pool, dev(30), num_iterations=1)
    count = rounds_of(outcome)[0]
    assert count["failed"] > 0 and count["pairs"] == count["duels"] - count["failed"] == len(pool.trainings[0][1].rows)


def test_no_rounds_choose_the_best_initial_model_and_say_so():
    outcome = fit(ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(3)}), num_iterations=0)
    assert outcome.replies["t"].text == "quality 5" and outcome.state["outcome"] == "no_rounds"


def test_two_models_have_no_judge_and_are_refused_before_any_call():
    pool = ScriptedPool({"a": quality(2), "b": quality(5)})
    problems = Sparta(Options()).needs().problems(pool.pool)
    assert problems == ["needs at least 3 models, the pool has 2; add models to the pool"] and pool.history == []
    bare = [attrs.evolve(m, capabilities={"generate"}) for m in ScriptedPool(dict.fromkeys("abc", "x")).pool]
    assert "cannot be trained" in Sparta(Options()).needs().problems(bare)[0]


def test_one_dev_example_cannot_train_and_select():
    with pytest.raises(ConfigError, match="sparta: needs two dev examples, one to duel on and one to select by, got 1"):
        fit(ScriptedPool(dict.fromkeys("abc", quality(2))), dev(1))


def test_starting_from_scores_gives_ratings_in_their_proportion():
    pool = ScriptedPool({"a": quality(2), "b": quality(6), "c": quality(4)}, learn=lambda taught, before: before)
    outcome = fit(pool, num_iterations=1, num_instructions=1, start="scores")
    ratings = list(outcome.state["ratings"].values())
    assert ratings == pytest.approx([50, 150, 100], abs=3)


def test_the_plan_counts_calls_and_the_tokens_of_training():
    pool = ScriptedPool({"a": quality(2), "b": quality(5), "c": quality(3), "d": quality(4)}, learn=better)
    cost = Sparta(Options(num_iterations=2, num_instructions=4)).cost_on(pool.pool, 10, Sampling(max_new_tokens=32))
    outcome = fit(pool, num_iterations=2, num_instructions=4)
    assert cost.fit == 2 * (2 * 4 + 2 * 4 * 2) + 4 * 3 * 2 == outcome.calls["fit"]
    assert cost.train_tokens == 2 * 4 * 2 * (128 + 32) * 4 and cost.respond == 1
