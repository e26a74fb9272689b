"""AggLM: what it is trained on, which checkpoint is kept, what is told of bad options; on scripted models."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import attrs
import pytest
from aggregated_solutions import DEV, GREEDY, SMALL, TEST, fitted, picks_marked, shown, solver, wrong_majority

from moco_core import ConfigError
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_agglm.fitting import job_of
from moco_method_agglm.method import Agglm
from moco_method_agglm.options import Options
from moco_method_agglm.prompts import Room
from moco_toolkit_authoring import ScriptedPool, method_checks, open_state, run_method
from moco_toolkit_authoring.killing import killed
from moco_toolkit_authoring.toy import LastWord

test_conformance = method_checks(
    "agglm",
    settings=[
        {"batch": 8, "sets_per_question": 2},
        {"batch": 8, "sets_per_question": 1, "m": 3, "skip_if_unanimous": True, "solution_temperature": 0.0},
        {"train": False, "m": 5, "eval_temperature": 0.7},
    ],
)


def accuracy(outcome, examples=TEST) -> float:
    return sum(e.references[0] in outcome.replies[e.id].text for e in examples) / len(examples)


def test_a_trained_aggregator_picks_the_right_solution_where_the_majority_is_wrong():
    untrained = fitted(train=False)[1]
    method, outcome = fitted()
    assert (accuracy(untrained), accuracy(outcome)) == (0.0, 1.0)
    assert outcome.noted("sets") == {"sets": 20, "hard": 20, "unsolvable": 0, "questions": 10}
    assert outcome.noted("trained_on") == {"sets": 16, "hard": 16, "unsolvable": 0, "questions": 8}
    assert outcome.noted("held_out_majority") == 0
    assert outcome.calls["fit"] == method.cost(4, 10).fit == 10 * 2 * 4 + 2 * 2 * 4
    assert set(outcome.calls_per_question.values()) == {5}
    again = run_method(
        method, wrong_majority(), dev=DEV, questions=[e.question for e in TEST], sampling=GREEDY, reload_with=method
    )
    assert again.texts == outcome.texts and again.files == ("model/scripted.json",)


def test_the_checkpoint_that_is_kept_is_the_best_on_held_out_sets_and_the_later_of_equals():
    rewards = fitted()[1].noted("held_out_reward")
    assert rewards == {"a": 0.0, "a-agglm@1": 0.0, "a-agglm@2": 1.0, "a-agglm": 1.0}

    def forgets(taught, before):
        return "none" if taught.get("stage") != 2 else picks_marked(taught, before)

    outcome = fitted(wrong_majority(learn=forgets))[1]
    assert outcome.noted("chosen") == "a-agglm@2" and outcome.state["trained"]["name"] == "a-agglm@2"
    assert accuracy(outcome) == 1.0


def test_where_training_does_not_help_the_aggregator_stays_as_it_was_and_says_so():
    pool = wrong_majority(learn=lambda taught, before: "nothing")
    pool.engine.scripts["a"] = lambda call: (
        picks_marked({"service": "grpo"}, None)(call) if shown(call.prompt) else solver(False)(call)
    )
    outcome = fitted(pool)[1]
    assert outcome.state["trained"] is None and outcome.files == () and accuracy(outcome) == 1.0
    assert any("no stage of the training is better" in text for text in outcome.warnings)


def test_held_out_questions_are_never_trained_on_and_rows_are_what_respond_reads():
    pool = wrong_majority()
    fitted(pool)
    ((name, job),) = pool.trainings
    trained = {row.extra["example"] for row in job.rows}
    read = [c for c in pool.history if c.model.startswith("a-agglm") and shown(c.prompt)]
    held = {e.id for e in DEV if any(e.question.prompt in c.prompt for c in read)}
    assert name == "a" and len(trained) == 8 and held == {e.id for e in DEV} - trained
    prompts = [row.prompt[-1].content for row in job.rows]
    assert all(sorted(shown(p))[0].startswith("I checked") and len(shown(p)) == 4 for p in prompts)
    assert {len(set(shown(p))) for p in prompts} == {2}
    places = {[t.startswith("I checked") for t in shown(p)].index(True) for p in prompts}
    assert len(places) > 1  # the right one has no place of its own
    final = [c.prompt for c in read if c.messages[-1].content not in prompts and "Which is tw" in c.prompt]
    form = re.compile(r"Which is \w+\?|<quote>\n.*?\n</quote>", re.DOTALL)
    assert {form.sub("", p) for p in final} == {form.sub("", p) for p in prompts}


def test_the_reward_is_one_for_a_full_score_and_else_nothing():
    pool = wrong_majority()
    fitted(pool)
    (_, job) = pool.trainings[0]
    texts = [f"the answer is {DEV[int(job.rows[0].extra['example'][1:])].references[0]}", "the answer is wrong", ""]
    assert asyncio.run(job.reward([(0, t) for t in texts])) == [1.0, 0.0, 0.0]
    assert (job.group, job.beta, job.lora.r, job.epsilon, job.rate) == (8, 0.001, 32, 0.2, 1e-5)


def test_what_is_trained_depends_on_task_set_size_prompt_and_sampling():
    async def fingerprints():
        async with open_state(metric=LastWord(NoOptions())) as state:
            context = state.context("fit")
            room = Room(prompt=500, reply=20)
            example, options = DEV[0], Options()
            same = job_of([(example, ["x", "y"])], room, options, context)
            others = [
                job_of([(DEV[1], ["x", "y"])], room, options, context),
                job_of([(attrs.evolve(example, references=("other",)), ["x", "y"])], room, options, context),
                job_of([(example, ["x", "y", "z"])], room, options, context),
                job_of([(example, ["y", "x"])], room, options, context),
                job_of([(example, ["x", "y"])], attrs.evolve(room, reply=21), options, context),
                *(
                    job_of([(example, ["x", "y"])], room, attrs.evolve(options, **{k: v}), context)
                    for k, v in {"temperature": 0.5, "seed": 1, "beta": 0.0, "lora_r": 0, "checkpoints": 2}.items()
                ),
            ]
            again = job_of([(example, ["x", "y"])], room, options, context)
            return same.fingerprint, again.fingerprint, [j.fingerprint for j in others]

    same, again, others = asyncio.run(fingerprints())
    assert same == again and len({same, *others}) == 1 + len(others)


def test_without_a_hard_set_easy_ones_are_used_and_it_is_said():
    pool = ScriptedPool({name: solver(True) for name in "abcd"}, learn=picks_marked)
    outcome = fitted(pool, max_easy=5)[1]
    assert outcome.noted("trained_on") == {"sets": 5, "hard": 0, "unsolvable": 0, "questions": 5}
    assert any("the majority is right in every set" in text and "5 easy sets" in text for text in outcome.warnings)
    nothing = fitted(ScriptedPool({name: solver(True) for name in "abcd"}, learn=picks_marked), max_easy=0)[1]
    assert nothing.state["trained"] is None and any("not trained: no rows" in text for text in nothing.warnings)


def test_a_single_dev_question_leaves_nothing_to_choose_by():
    outcome = fitted(dev=DEV[:1])[1]
    assert any("no dev question is left" in text for text in outcome.warnings)
    assert outcome.state["trained"]["name"] == "a-agglm"


def test_bad_options_are_told_in_one_line():
    pool = ScriptedPool(dict.fromkeys(["alpha", "beta"], "x"))

    def problem(**options):
        return "\n".join(Agglm(build(Options, options)).needs().problems(pool.pool))

    assert "no model 'alfa'" in problem(aggregator="alfa") and "did you mean 'alpha'" in problem(aggregator="alfa")
    assert "m: 1 solutions cannot come from 2 models" in problem(m=1)
    assert "greedy models say the same each time" in problem(solution_temperature=0.0)
    assert problem(solution_temperature=0.0, m=2, sets_per_question=1) == ""
    still = ScriptedPool({"a": "x"}, capabilities=frozenset({"generate"}))
    assert "model 'a' cannot be trained" in Agglm(Options()).needs().problems(still.pool)[0]
    assert Agglm(Options(train=False)).needs().problems(still.pool) == []
    with pytest.raises(ConfigError, match="temperature: expected number > 0, got 0"):
        build(Options, {"temperature": 0.0})
    with pytest.raises(ConfigError, match=r"batch: 12 completions are no multiple of num_generations \(8\); take 8"):
        build(Options, {"batch": 12})
    with pytest.raises(ConfigError, match="no dev examples"):
        fitted(dev=[])


def test_the_plan_tells_calls_and_tokens_of_training():
    method, pool = Agglm(Options(m=4)), ScriptedPool(dict.fromkeys("ab", "x"), fields={"a": {"context_length": 1000}})
    cost = method.cost_on(pool.pool, 10, GREEDY)
    assert (cost.fit, cost.respond) == (10 * 4 * 4 + 2 * 4 * 5, 6)
    assert cost.train_tokens == 8 * 4 * 8 * 1000  # sets, completions of each, and the longest they can be
    assert not Agglm(Options(train=False)).learns() and method.learns()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fit_that_was_killed_while_it_trained_asks_nothing_again_and_ends_at_the_same_system(tmp_path):
    drawn = len(DEV) * 2 * 4

    class Deadly(LastWord):
        left = drawn

        def score(self, example, reply, context):
            Deadly.left -= 1
            if Deadly.left < 0:  # the first reward of the training
                os.kill(os.getpid(), signal.SIGKILL)
            return super().score(example, reply, context)

    Deadly.__qualname__ = LastWord.__qualname__  # the same rewards, so the same training

    def run(pool, metric=LastWord):
        method = Agglm(build(Options, SMALL))
        cache = Cache(tmp_path / "calls.sqlite")
        return run_method(method, pool, dev=DEV, sampling=GREEDY, cache=cache, metric=metric(NoOptions()))

    killed(lambda: run(wrong_majority(), Deadly))
    pool = wrong_majority()
    assert run(pool).state == fitted(ask=[])[1].state
    assert len(pool.trainings) == 1
    assert all(shown(call.prompt) for call in pool.history)  # only held-out sets are left to ask
