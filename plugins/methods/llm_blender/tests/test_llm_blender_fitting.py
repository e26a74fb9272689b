"""What is learnt from dev: a ranker, a fuser, what they are trained on, and what that costs; killed and gone on with."""

from __future__ import annotations

import os
import re
import signal

import attrs
import pytest
from blended_replies import GREEDY, QUESTION, blend, council, fusing, judging, member, quoted, says

from moco_core import Example, Question
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method
from moco_toolkit_authoring.killing import killed
from moco_toolkit_authoring.toy import LastWord


def examples(count: int, prefix: str = "d") -> list[Example]:
    return [
        Example(question=Question(id=f"{prefix}{i}", prompt=f"Question {prefix}{i}?"), references=("right",))
        for i in range(count)
    ]


def marked(text: str) -> bool:
    return "good:" in text


def taught(lesson, before):
    """What a ranker makes of separable pairs from its second epoch on; a fuser learns to write the gold answer."""
    stage, first = lesson.get("stage"), lesson["rows"][0]

    def script(call):
        if lesson["service"] == "rank":
            _, a, b = re.split(r"\n\n(?:First|Second) reply:\n", call.transcript)
            return (5.0 + marked(a), 4.0 + marked(b))
        if judging(call) and stage != 1:
            a, b = quoted(call.prompt)
            return "A" if marked(a) else "B" if marked(b) else "?"
        if fusing(call) and "Candidate answers" in first["messages"][-2]["content"]:
            return "trained, the answer is right"
        return before(call)

    return script


def separable(judges=lambda a, b: "A", **keywords) -> ScriptedPool:
    scripts = {f"m{i}": member(says(word), judges=judges) for i, word in enumerate(("bad", "good", "poor"))}
    return ScriptedPool(scripts, **{"learn": taught, **keywords})


DEV, TEST = examples(10), [e.question for e in examples(3, "t")]


def mixed() -> ScriptedPool:
    """Models that are good in turn: no single model is best everywhere, and only the mark tells."""

    def turn(i):
        def say(call):
            number = int(re.findall(r"Question \w(\d+)", call.transcript)[-1])
            return says("good" if number % 3 == i else "bad")(call)

        return say

    return ScriptedPool({f"m{i}": member(turn(i)) for i in range(3)}, learn=taught)


@pytest.mark.parametrize("options", [{"ranker": "pair_head"}, {"train_ranker": True}])
def test_a_trained_ranker_beats_the_untrained_judge_on_separable_replies(options):
    untrained = blend(mixed(), dev=DEV, questions=TEST, fuse=False)
    outcome = blend(mixed(), dev=DEV, questions=TEST, fuse=False, ranker_epochs=3, **options)
    right = [sum("right" in text for text in found.texts.values()) for found in (untrained, outcome)]
    assert right == [1, 3]
    found = outcome.noted("ranking")
    assert (found["top1"], found["top_score"], found["position_bias"] is None) == (1.0, 1.0, False)
    before = untrained.noted("ranking")
    assert before["top1"] < 1 and before["position_bias"] == 1.0 and before["same_place"] == 1.0
    assert before["spearman"] is None  # all its scores are equal
    if "train_ranker" in options:
        assert outcome.noted("pair_accuracy") == {"m0": 0.5, "m0-ranker@1": 0.5, "m0-ranker@2": 1.0, "m0-ranker": 1.0}
        assert outcome.noted("ranking_untrained")["position_bias"] == 1.0
        assert found["spearman"] == 1.0 and found["position_bias"] == 0.0
    else:
        assert found["position_bias"] == 1.0  # the head's favourite place, which changed nothing
        assert outcome.state["trained_ranker"]["name"] == "m0-ranker"


def test_pairs_are_trained_on_in_both_orders_and_held_out_questions_are_not():
    pool = separable()
    blend(pool, dev=DEV, questions=(), train_ranker=True, pairs_per_question=1, ranker_epochs=2)
    ((_, job),) = pool.trainings
    labels = [row.messages[-1].content for row in job.rows]
    assert len(labels) == 2 * 8 and labels.count("A") == labels.count("B")
    asked = [row.messages[0].content for row in job.rows]
    assert all((marked(quoted(p)[0])) is (label == "A") for p, label in zip(asked, labels, strict=True))
    seen = {re.findall(r"Question (d\d+)", p)[0] for p in asked}
    assert len(seen) == 8
    judged = [c for c in pool.history if judging(c) and "-ranker" in c.model]
    assert {re.findall(r"Question (d\d+)", c.prompt)[0] for c in judged} == {e.id for e in DEV} - seen
    both = separable()
    blend(both, dev=DEV, ranker="pair_head", ranker_epochs=2)
    ((_, job),) = both.trainings
    assert job.both_orders and {(row.a[:4], row.b[:4], row.label) for row in job.rows} <= {
        ("bad:", "good", 0.0), ("good", "poor", 1.0)
    }  # fmt: skip
    assert (job.lora.r, job.rate, job.epochs, job.keep) == (16, 1e-5, 2, 2)


def test_a_dev_without_pairs_trains_nothing_and_says_so():
    pool = ScriptedPool({f"m{i}": member(f"the answer is {i}") for i in range(3)}, learn=taught)
    outcome = blend(pool, dev=DEV, ranker="pair_head", fuse=False)
    assert any("no dev question has two replies of different scores" in text for text in outcome.warnings)
    assert pool.trainings == [] and outcome.replies["q"].meta["model"] == "m0"


def test_a_fuser_is_trained_on_the_prompts_it_is_asked_with_and_on_gold_answers():
    pool = mixed()
    outcome = blend(pool, dev=DEV, questions=TEST, train_fuser=True, fuser_epochs=2)
    ((name, job),) = pool.trainings
    assert (name, job.keep_best, job.rate, len(job.rows), len(job.held_out)) == ("m0", True, 5e-5, 8, 2)
    assert {row.messages[-1].content for row in job.rows} == {"The answer is right."}
    asked = [c.prompt for c in pool.history if c.model == "m0-fuser"]
    strip = re.compile(r"Question \w\d+\?|<quote>\n.*?\n</quote>", re.DOTALL)
    shapes = {re.sub(r"Candidate 3:\n", "", strip.sub("", row.messages[-2].content)).strip() for row in job.rows}
    assert {re.sub(r"Candidate 3:\n", "", strip.sub("", p)).strip() for p in asked} <= shapes
    assert set(outcome.texts.values()) == {"trained, the answer is right"}
    assert {r.meta["model"] for r in outcome.replies.values()} == {"m0-fuser"}


def test_a_heads_ranking_of_a_fusers_training_comes_from_the_other_half():
    pool = separable()
    blend(pool, dev=DEV, ranker="pair_head", ranker_epochs=2, train_fuser=True, fuser_epochs=1)
    ranks = [job for _, job in pool.trainings if job.service == "rank"]
    assert len(ranks) == 3  # the one that answers, and one for each half
    ids = [{row.query for row in job.rows} for job in ranks]
    assert not ids[1] & ids[2] and ids[1] | ids[2] == ids[0]
    for half, others in ((1, 2), (2, 1)):
        read = {
            re.findall(r"Question d\d+\?", c.transcript)[0] for c in pool.history if c.model == f"m1-ranker-half{half}"
        }
        assert read == ids[others]


def test_without_a_form_of_the_gold_answer_the_best_reply_is_the_target():
    pool = mixed()
    dev = [attrs.evolve(e, references=()) for e in DEV]
    blend(pool, dev=dev, questions=(), train_fuser=True, fuser_epochs=1)
    ((_, job),) = pool.trainings
    assert {row.messages[-1].content[:4] for row in job.rows} <= {"good", "bad:"}


def test_trained_systems_are_saved_and_answer_alike():
    method = LlmBlender(
        build(
            Options,
            {"ranker": "pair_head", "ranker_epochs": 2, "train_fuser": True, "fuser_epochs": 1, "dev_sample": 4},
        )
    )
    given = {"dev": DEV, "questions": TEST, "sampling": GREEDY}
    outcome, again = run_method(method, mixed(), **given), run_method(method, mixed(), reload_with=method, **given)
    assert again.texts == outcome.texts
    assert {k: r.meta for k, r in again.replies.items()} == {k: r.meta for k, r in outcome.replies.items()}
    assert outcome.files == ("fuser/scripted.json", "ranker/scripted.json")
    assert outcome.calls["fit"] <= method.cost(3, 10).fit


def test_dev_calls_are_those_that_are_predicted():
    method = LlmBlender(build(Options, {"verdict": "text", "dev_sample": 4}))
    outcome = run_method(method, council(), dev=DEV, questions=[QUESTION], sampling=GREEDY)
    assert outcome.calls["fit"] == method.cost(3, 10).fit == 30 + 4 * 6
    assert outcome.calls_per_question["q"] == method.cost(3, 10).respond == 3 + 6 + 1
    assert LlmBlender(Options(aggregation="bubble")).cost(5, 0).respond == 5 + 8
    assert LlmBlender(Options(orders=1)).cost(5, 0).respond == 5 + 10 + 1


def test_the_plan_tells_the_tokens_of_training():
    pool = ScriptedPool(dict.fromkeys("abc", "x"), fields={n: {"context_length": 1000} for n in "abc"}).pool

    def tokens(**options):
        return LlmBlender(build(Options, options)).cost_on(pool, 10, GREEDY).train_tokens

    assert tokens() == 0
    assert tokens(train_ranker=True) == 2 * 5 * 8 * 5 * 1000  # orders, pairs, questions, epochs, length
    assert tokens(train_fuser=True) == 8 * 15 * 1000
    assert tokens(ranker="pair_head", train_fuser=True) == 2 * 2 * 5 * 8 * 5 * 1000 + 8 * 15 * 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fit_that_was_killed_between_its_trainings_trains_and_asks_nothing_again(tmp_path, monkeypatch):
    monkeypatch.setattr("moco_core.runtime.claims.LEASE", 0.5)  # what the killed process was asking is soon free

    class Deadly(LastWord):
        left = 3 * len(DEV)

        def score(self, example, reply, context):
            Deadly.left -= 1
            if Deadly.left < 0:  # the first gold answer, for the fuser: the ranker is trained by then
                os.kill(os.getpid(), signal.SIGKILL)
            return super().score(example, reply, context)

    options = {
        "ranker": "pair_head",
        "ranker_epochs": 2,
        "train_fuser": True,
        "fuser_epochs": 1,
        "judge": 0,
        "fuser": 0,
    }

    def run(pool, metric=LastWord, cache=None):
        method = LlmBlender(build(Options, options))
        return run_method(method, pool, dev=DEV, sampling=GREEDY, cache=cache, metric=metric(NoOptions()))

    killed(lambda: run(mixed(), Deadly, Cache(tmp_path / "calls.sqlite")))
    pool = mixed()
    assert run(pool, cache=Cache(tmp_path / "calls.sqlite")).state == run(mixed()).state
    assert [job.service for _, job in pool.trainings] == ["sft"]  # the rankers are there
    assert {call.kind for call in pool.history} <= {"reward"}
