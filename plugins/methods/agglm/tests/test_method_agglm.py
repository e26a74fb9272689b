"""AggLM: sets by hand, what it is trained on, which checkpoint is kept, how it answers; on scripted models."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import warnings

import attrs
import pytest

from moco_core import (
    CapabilityError,
    ConfigError,
    Example,
    Generation,
    Message,
    ModelCallError,
    Question,
    Sampling,
)
from moco_core.options import NoOptions, build, plain
from moco_core.runtime.cache import Cache
from moco_method_agglm.fitting import job_of
from moco_method_agglm.method import Agglm
from moco_method_agglm.options import Options
from moco_method_agglm.prompts import Room
from moco_method_agglm.sets import CandidateSet, is_hard, mixture, plan, shares
from moco_toolkit_authoring import ScriptedPool, method_checks, open_session, run_method
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)

test_conformance = method_checks(
    "agglm",
    settings=[
        {"batch": 8, "sets_per_question": 2},
        {"batch": 8, "sets_per_question": 1, "m": 3, "skip_if_unanimous": True, "solution_temperature": 0.0},
        {"train": False, "m": 5, "eval_temperature": 0.7},
    ],
)


# ---------------------------------------------------------------- sets and mixture, by hand


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


# ---------------------------------------------------------------- a pool whose majority is wrong


def shown(prompt: str) -> list[str]:
    """The solutions that an aggregator reads, in order."""
    return re.findall(r"Solution \d+:\n<quote>\n(.*?)\n</quote>", prompt, re.DOTALL)


def gold(call) -> str:
    return re.findall(r"Which is (\w+)", call.transcript)[0]


def solver(right: bool):
    """Who is right says so; three of four are wrong, on the same answer."""

    def say(call):
        if shown(call.prompt):  # untrained, it follows most of what it reads
            texts = [re.findall(r"answer is (\w+)", t)[-1] for t in shown(call.prompt)]
            return f"the answer is {max(sorted(set(texts)), key=texts.count)}"
        return f"I checked: the answer is {gold(call)}" if right else "the answer is wrong"

    return say


def picks_marked(taught, before):
    """What GRPO makes of an aggregator whose reward told it: it follows the mark. Stage 1 has not got there yet."""
    if taught["service"] != "grpo" or taught.get("stage") == 1:
        return before

    def say(call):
        marked = [t for t in shown(call.prompt) if t.startswith("I checked")]
        return marked[0] if marked else "none of them"

    return say


def questions(count: int, prefix: str = "d") -> list[Example]:
    return [
        Example(question=Question(id=f"{prefix}{i}", prompt=f"Which is {w}?"), references=(w,))
        for i, w in ((i, f"{prefix}w{i}") for i in range(count))
    ]


DEV, TEST = questions(10), questions(5, "t")
SMALL = {"batch": 8, "sets_per_question": 2, "m": 4, "checkpoints": 3}


def wrong_majority(**keywords) -> ScriptedPool:
    return ScriptedPool({name: solver(name == "d") for name in "abcd"}, **{"learn": picks_marked, **keywords})


def fitted(pool=None, dev=DEV, ask=TEST, run=run_method, **options):
    method = Agglm(build(Options, {**SMALL, **options}))
    return method, run(method, pool or wrong_majority(), dev=dev, questions=[e.question for e in ask], sampling=GREEDY)


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
        async with open_session(metric=LastWord(NoOptions())) as session:
            context = session.context("fit")
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


# ---------------------------------------------------------------- answering


def test_a_set_of_one_shows_exactly_that_solution_and_a_copier_reproduces_it():
    def copy(call):
        return shown(call.prompt)[0] if shown(call.prompt) else "words, and the answer is 7"

    pool = ScriptedPool({"a": copy})
    outcome = fitted(pool, train=False, m=1)[1]
    assert set(outcome.texts.values()) == {"words, and the answer is 7"}
    assert shown(pool.prompts()[-1]) == ["words, and the answer is 7"]
    assert pool.prompts()[-1].startswith(TEST[-1].question.text())


def test_an_unreadable_final_solution_is_asked_for_once_more_then_the_majority_answers():
    def reader(texts):
        left = iter(texts)
        return lambda call: next(left) if shown(call.prompt) else "the answer is wrong"

    pool = ScriptedPool({"a": reader(["???", "the answer is 5"]), "b": "the answer is wrong"})
    reply = fitted(pool, ask=TEST[:1], train=False, m=4)[1].replies["t0"]
    assert (reply.text, reply.meta["final"], reply.meta["attempts"]) == (
        "the answer is 5",
        "aggregated",
        ["unparsed", "parsed"],
    )
    assert [c.params["temperature"] for c in pool.history if shown(c.prompt)] == [0.0, 1.0]
    pool = ScriptedPool({"a": reader(["???", "???"]), "b": "the answer is wrong"})
    method, outcome = fitted(pool, ask=TEST[:1], train=False, m=4)
    reply = outcome.replies["t0"]
    assert (reply.text, reply.meta["final"], reply.meta["model"]) == ("the answer is wrong", "majority", "a")
    assert outcome.calls_per_question["t0"] == method.cost(2, 0).respond == 6
    failing = ScriptedPool({"a": reader([ModelCallError("down")]), "b": "the answer is b"})
    reply = fitted(failing, ask=TEST[:1], train=False, m=3)[1].replies["t0"]
    assert reply.meta["attempts"] == ["down"] and reply.meta["final"] == "majority"


def test_solutions_that_agree_are_handed_on_where_that_is_asked_for():
    pool = ScriptedPool(dict.fromkeys("ab", lambda c: "odd" if shown(c.prompt) else "so the answer is 3"))
    outcome = fitted(pool, train=False, m=4, skip_if_unanimous=True)[1]
    assert {r.meta["final"] for r in outcome.replies.values()} == {"unanimous"}
    assert set(outcome.calls_per_question.values()) == {4}
    mixed = ScriptedPool({"a": "the answer is 3", "b": lambda c: "the answer is 3" if shown(c.prompt) else "??"})
    assert fitted(mixed, train=False, m=2, skip_if_unanimous=True)[1].replies["t0"].meta["final"] == "aggregated"


def test_failed_and_empty_solutions_are_not_shown_and_the_rest_answers():
    pool = ScriptedPool(
        {
            "a": lambda c: "the answer is 1" if shown(c.prompt) else "the answer is 2",
            "b": ModelCallError("down"),
            "c": "",
        }
        | {"b": lambda c: ModelCallError("down")}
    )
    reply = fitted(pool, ask=TEST[:1], train=False, m=3)[1].replies["t0"]
    assert reply.meta["final"] == "aggregated" and shown(pool.prompts("a")[-1]) == ["the answer is 2"]
    assert [s.get("failed") for s in reply.meta["solutions"]] == [None, "down", None]
    silent = ScriptedPool(dict.fromkeys("ab", ""))
    assert fitted(silent, ask=TEST[:1], train=False, m=2)[1].replies["t0"].meta["final"] == "unparsed"


def test_reasoning_is_not_shown_and_an_earlier_conversation_stands_in_front():
    question = Question(
        id="q", prompt="Which?", system="Be brief.", history=(Message("user", "Hi."), Message("assistant", "Ho."))
    )
    pool = ScriptedPool({"a": "<think>HIDDEN</think>the answer is 4"})
    run_method(Agglm(Options(train=False, m=2)), pool, questions=[question], sampling=GREEDY)
    last = pool.history[-1]
    assert [m.content for m in last.messages[:-1]] == ["Be brief.", "Hi.", "Ho."]
    assert shown(last.prompt) == ["the answer is 4"] * 2 and "HIDDEN" not in last.prompt


def test_the_seed_moves_the_order_of_showing_and_nothing_else_of_the_prompt():
    names = [f"m{i}" for i in range(6)]
    pools = [ScriptedPool({n: (lambda c: f"the answer is {c.model}") for n in names}) for _ in range(3)]
    for pool, seed in zip(pools, (0, 0, 1), strict=True):
        fitted(pool, ask=TEST[:1], train=False, m=6, seed=seed)
    first, same, other = (pool.prompts("m0")[-1] for pool in pools)
    assert first == same != other
    assert shown(first) != shown(other) and sorted(shown(first)) == sorted(shown(other))


# ---------------------------------------------------------------- what fits, and bad input


def test_long_solutions_keep_their_ends_and_the_question_is_never_cut():
    def say(call):
        return "the answer is 1" if shown(call.prompt) else "x" * 2000 + " so the answer is 1"

    pool = ScriptedPool(dict.fromkeys("ab", say), fields={"a": {"context_length": 400}})
    outcome = fitted(pool, dev=DEV[:4], ask=TEST[:1])[1]
    (_, job) = pool.trainings[0]
    read = [pool.prompts("a-agglm")[-1], *(row.prompt[-1].content for row in job.rows)]
    for prompt in read:
        assert prompt.startswith("Which is ") and len(shown(prompt)) == 4 and len(prompt.split()) <= 400 - 64
        assert all(text.startswith("... ") and text.endswith("so the answer is 1") for text in shown(prompt))
    assert outcome.replies["t0"].meta["cut"] is True and job.max_length == 400


def test_an_aggregator_that_cannot_hold_m_solutions_is_refused_before_any_work_with_the_numbers():
    pool = ScriptedPool(dict.fromkeys("ab", "x"), fields={"a": {"context_length": 400}})
    numbers = (
        "a prompt may have 336 tokens, beside 64 of the reply; .* take about 225, which leaves 111 for 16 solutions"
    )
    with pytest.raises(CapabilityError, match=f"agglm.aggregator: a cannot read 16 solutions: {numbers}"):
        fitted(pool, m=16)
    assert pool.history == [] and pool.trainings == []
    (problem,) = Agglm(Options(m=16, max_new_tokens=300)).needs().problems(pool.pool)
    assert "a's context of 400 tokens less 300 of the reply" in problem and "cannot hold 16 solutions" in problem


def test_a_prompt_version_that_is_gone_is_refused(tmp_path):
    pool = wrong_majority()
    state = plain(fitted(pool)[1].state)
    with pytest.raises(ConfigError, match="fitted for prompt version 0, this is version 1; fit it again"):
        Agglm(Options()).restore(pool.pool, {**state, "trained": None, "prompt": 0}, tmp_path)


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


# ---------------------------------------------------------------- killed and gone on with


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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons dislike forks
        child = os.fork()
    if child == 0:
        try:
            run(wrong_majority(), Deadly)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    pool = wrong_majority()
    assert run(pool).state == fitted(ask=[])[1].state
    assert len(pool.trainings) == 1
    assert all(shown(call.prompt) for call in pool.history)  # only held-out sets are left to ask


def test_a_ratio_is_measured_on_the_aggregators_own_solutions():
    def say(call):
        text = "x" * 400
        return Generation(text=text, usage=attrs.evolve(_usage(call), completion_tokens=400))

    pool = ScriptedPool(dict.fromkeys("ab", say))
    state = fitted(pool, dev=DEV[:2])[1].state
    assert state["ratio"] == 1.0 != CHARACTERS_PER_TOKEN


def _usage(call):
    from moco_core.types import Usage

    return Usage(len(call.transcript.split()), 0)
