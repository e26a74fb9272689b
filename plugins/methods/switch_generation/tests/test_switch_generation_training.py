"""The switcher that is trained: the instances it learns from, what it learns, and how it is kept."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
import random_checkpoints
import training_here

from moco_core import Answer, CapabilityError, ConfigError, Cost, Example, Metric, NoOptions, Question, Sampling, Score
from moco_core.models import Pool
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_method_switch_generation import training
from moco_method_switch_generation.method import SwitchGeneration
from moco_method_switch_generation.options import Options
from moco_method_switch_generation.prompts import conversation
from moco_method_switch_generation.training import Instance, Planned, choices, rows_of
from moco_method_switch_generation.writing import opened
from moco_toolkit_authoring import ScriptedPool, as_plugin, examples, run_method
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, bpe_tokenizer, tiny_llama, word_tokenizer

WORDS = word_tokenizer([" x", " y"])
QUESTION = Question(id="q", prompt="go")
DEV = [Example(question=Question(id=f"d{i}", prompt=f"go{' on' * i}"), references=("a",)) for i in range(4)]
SAMPLING = Sampling(max_new_tokens=3)
QUICK = {"switcher": "train", "patch_size": 1, "instances": 24, "rollouts": 16, "tie_eps": 0.9}


def endless():
    """Two writers, of which one always says x and the other y."""
    engine = LocalEngine()
    spelled = [WORDS.get_vocab()[f"\u0120{word}"] for word in "xy"]
    return [
        engine.add(f"m{i}", ScriptedModule(len(WORDS), lambda ids, token=token: {token: 10.0}), WORDS)
        for i, token in enumerate(spelled)
    ]


class Changes(Metric[NoOptions]):
    """1 where the second word is another one than the first; ``level`` where all answers are worth the same."""

    def __init__(self, level=None):
        super().__init__(NoOptions())
        self.level = level

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")

    def score(self, example, reply, context):
        words = reply.text.split()
        value = float(words[0] != words[1]) if self.level is None else self.level
        return Score(value=value, answer=self.read(example.question, reply.text))


def taught(lesson, before):
    """A switcher that says what it was shown; to what it was not shown, the first label."""
    known = {row["messages"][0]["content"]: row["messages"][-1]["content"] for row in lesson["rows"]}
    return lambda call: known.get(call.prompt, "0")


def setting(**options):
    """The two writers, and a switcher that writes nothing itself."""
    base = ScriptedPool({"base": "0"}, learn=taught, capabilities={"generate", "train"})
    method = SwitchGeneration(Options(**{**QUICK, "switcher_writes": False, "force_ends": False, **options}))
    return method, Pool([*endless(), base.pool[0]]), base


def fitted(method, pool, level=None, dev=DEV, questions=(), **more):
    return run_method(method, pool, dev=dev, questions=questions, sampling=SAMPLING, metric=Changes(level), **more)


def test_the_rule_by_which_a_writer_is_the_better_one_is_found_and_survives_saving():
    """After x the second writer is better and after y the first; who writes the first word makes no difference."""
    method, pool, base = setting()
    needs = method.needs()
    allowed = frozenset(needs.capabilities) | needs.optional
    outcome = fitted(method, pool, questions=[DEV[0].question], reload_with=method, allowed=allowed)
    assert outcome.texts == {"d0": " x y x"}  # the third place was never one to choose at: the first label
    ((name, job),) = base.trainings
    assert name == "base" and job.service == "sft" and job.keep_best and outcome.files == ("switcher/scripted.json",)
    rows = (*job.rows, *job.held_out)
    after = {
        (row.messages[0].content.split("Response so far:\n")[1].split("\n")[0], row.messages[1].content) for row in rows
    }
    assert after == {("[0] x", "1"), ("[1] y", "0")}  # places at which nothing is gained are left out


def test_what_is_held_out_are_whole_questions():
    method, pool, base = setting(held_out=0.5)
    fitted(method, pool)
    ((_, job),) = base.trainings
    asked = [
        {row.messages[0].content.split("Question: ")[1].split("\n")[0] for row in part}
        for part in (job.rows, job.held_out)
    ]
    assert asked[0] and asked[1] and not asked[0] & asked[1]


def test_every_writer_of_the_next_patch_has_as_many_answers_and_a_question_is_read_once(monkeypatch):
    seen = Counter()
    inner = training._worth

    async def counting(example, text, options, scope):
        seen[example.id] += 1
        return await inner(example, text, options, scope)

    monkeypatch.setattr(training, "_worth", counting)
    judge = ScriptedPool({"judge": ""})
    method, pool, _ = setting(reward_model=as_plugin(judge), rollouts=5, instances=7)
    outcome = fitted(method, pool, allowed=frozenset(method.needs().capabilities) | method.needs().optional)
    assert sum(seen.values()) == 7 * 2 * 3  # five among two writers: three each
    assert outcome.noted("instances") == 7
    for call in judge.history:
        assert [m.role for m in call.messages] == ["user", "assistant"]
        assert call.transcript.count("go") == 1 and len(call.messages[1].content.split()) == 3


def test_an_instance_is_worth_what_the_metric_says_and_ties_have_no_label():
    instance = Instance(example=DEV[0], patches=[(0, " x")], worth=[0.5, 0.75, 0.25])
    assert (instance.best(0.0), instance.best(0.25), instance.best(0.5)) == ((1,), (0, 1), ())
    rows = rows_of([instance], ["a", "b", "c"], Options(tie_eps=0.25))
    prompt = conversation(DEV[0].question, ["a", "b", "c"], instance.patches, tags=False)
    assert [row.messages for row in rows] == [(*prompt, row.messages[-1]) for row in rows]
    assert [row.messages[-1].content for row in rows] == ["0", "1"]
    tagged = rows_of([instance], ["a", "b", "c"], Options(trace="tags"))
    assert tagged[0].messages[-1].content == "The answer is model 1" and len(tagged[0].messages) == 2


def test_where_every_writer_leads_to_equal_answers_nothing_is_trained_and_that_is_told():
    method, pool, base = setting()
    outcome = fitted(method, pool, 1.0, questions=[QUESTION])
    assert base.trainings == [] and outcome.texts == {"q": " x x x"}
    assert "every next writer leads to answers of equal worth" in outcome.warnings[0]


def test_places_to_choose_at_leave_a_patch_behind_them():
    assert [choices(Options(patch_size=p), 2, 12) for p in (12, 6, 5, 4, 1)] == [0, 1, 2, 2, 11]
    assert [choices(Options(patch_size=p), 3, 12) for p in (6, 4, 3)] == [
        0,
        1,
        2,
    ]  # the ends belong to the last of three
    method, pool, _ = setting(patch_size=3)
    with pytest.raises(
        ConfigError, match="answer of 3 tokens has too few patches of 3 to choose between; lower patch_size"
    ):
        fitted(method, pool)


def test_an_answer_goes_on_from_where_it_was_with_other_sessions():
    tokenizer = bpe_tokenizer()
    engine = LocalEngine()
    models = [engine.add(f"m{i}", tiny_llama(tokenizer, 2 + i), tokenizer) for i in range(2)]
    sampling, options = Sampling(max_new_tokens=12), Options(patch_size=3, force_ends=False)

    async def main():
        async with open_state(sampling=sampling) as run:
            context = run.context("fit", QUESTION)

            def write(plan):
                return opened(models, QUESTION, options, True, Planned(plan), context, sampling, context.rng("x"))

            async with write([0, 1, 0, 1]) as writing:
                whole = await writing.run()
            async with write([0, 1]) as writing:
                with pytest.raises(training._Enough):
                    await writing.run()
                state, told = writing.state(), writing.told_so_far()
            async with write([0, 1]) as writing:
                writing.restore(state)
                return whole, told, await writing.run()

    whole, told, again = asyncio.run(main())
    assert again["text"] == whole["text"] and again["spans"] == whole["spans"]
    assert again["meta"]["patches"] == whole["meta"]["patches"]
    assert whole["text"].startswith("".join(text for _, text in told)) and [who for who, _ in told] == [0, 1]


def test_on_real_weights_a_switcher_is_trained_once_asked_as_it_was_trained_and_opened_again(tmp_path, monkeypatch):
    pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
    trained = training_here.train_here(monkeypatch)
    folders = [random_checkpoints.write(tmp_path / f"m{i}", i, hidden_size=32, num_attention_heads=1) for i in range(2)]
    pool = pool_of.TransformersPool(
        build(pool_of.Options, {"models": folders, "device": "cpu", "cache": str(tmp_path / "hashes")})
    )
    options = {**QUICK, "patch_size": 4, "instances": 4, "rollouts": 2, "tie_eps": 0.0, "epochs": 1}
    method = SwitchGeneration(Options(**options, reward_model=as_plugin(ScriptedPool({"judge": ""}))))
    keywords = {"dev": examples(3, prefix="d"), "questions": [QUESTION], "sampling": Sampling(max_new_tokens=12)}
    cache = Cache(tmp_path / "calls.sqlite")
    first = run_method(method, pool, cache=cache, **keywords)
    again = run_method(method, pool, cache=cache, reload_with=method, **keywords)
    assert len(trained) == 1 and first.texts == again.texts  # another folder, the same weights
    assert "switcher/adapter_model.safetensors" in first.files
    assert first.replies["q"].meta["tokens"]["m1-switcher"]["read"] > 0
    assert (first.calls, first.state["trained"]["bases"]) == (again.calls, ["m1"])


def test_a_plan_tells_what_labelling_and_training_take():
    method, pool, _ = setting(rollouts=3, instances=10, epochs=2, held_out=0.5)
    # for each of ten places a prefix and four answers, by two sessions each; half are learnt from, twice
    found = method.cost(3, 8)
    assert (found.fit, found.respond) == (10 * (1 + 4) * 2, 4)
    assert method.cost_on(pool, 8, SAMPLING).train_tokens == 2 * 10 * 0.5 * (150 + 1.5)
    assert method.cost(3, 0) == Cost(respond=4) and method.learns()


def test_bad_input():
    method, pool, _ = setting()
    with pytest.raises(ConfigError, match="needs dev examples to train a switcher"):
        run_method(method, pool, questions=[QUESTION], sampling=SAMPLING)
    with pytest.raises(CapabilityError, match=r"switcher_base: model 'm1' cannot be trained \(capability 'train'\)"):
        run_method(SwitchGeneration(Options(**QUICK)), Pool(endless()), dev=DEV, sampling=SAMPLING)
    method, pool, _ = setting(reward_model=as_plugin(ScriptedPool({"judge": ""}, capabilities={"generate"})))
    assert "'judge' has no head that scores a conversation" in method.needs().problems(pool)[0]
    assert "no model 'x' in the pool" in SwitchGeneration(Options(**QUICK, switcher_base="x")).needs().problems(pool)[0]
