"""Training within a run: once ever, on devices of its own, with its figures and its cost in the records."""

import asyncio
import json
import threading

import attrs
import pytest

from moco_core import CapabilityError, ModelCallError
from moco_core.runs.results import costs_of
from moco_core.runtime.cache import Cache
from moco_core.types import Message
from moco_toolkit_authoring import SCRIPTED_CAPABILITIES, ScriptedPool, ScriptedServer, open_state


@attrs.frozen(kw_only=True)
class Row:
    messages: tuple = ()

    @property
    def prompt(self):
        return self.messages[:1]


@attrs.frozen(kw_only=True)
class Lesson:
    """A job as any toolkit may write one."""

    rows: tuple
    service: str = "sft"
    fingerprint: str = "lesson 1"
    judge: object = None

    async def reward(self, rollouts):
        return await self.judge(rollouts)


LESSON = Lesson(rows=(Row(messages=(Message("user", "capital of Peru?"), Message("assistant", "Lima"))),))


def within(work, *, cache=None, seed=0, allowed=None):
    """Run ``work(context, state)`` in a fitting context; return its result, the notes and the state."""
    notes = []

    async def main():
        async with open_state(cache=cache, seed=seed) as state:
            state.on_note = lambda phase, note: notes.append(note)
            return await work(state.context("fit", allowed=allowed)), state

    result, state = asyncio.run(main())
    return result, notes, state


def test_a_trained_model_answers_by_its_lesson_and_is_trained_once():
    source = ScriptedPool({"a": "no idea"})

    async def work(context):
        first, second = await context.gather(context.train(source.pool[0], LESSON, name="tuned") for _ in range(2))
        assert first.fingerprint == second.fingerprint != source.pool[0].fingerprint
        return [(await context.generate(first, q)).text for q in ("capital of Peru?", "capital of Chile?")]

    said, notes, state = within(work)
    assert said == ["Lima", "no idea"] and len(source.trainings) == 1
    assert notes[-1]["training"] == "tuned" and notes[-1]["rows"] == 1
    assert costs_of(state.ledger)["fit"]["tuned"]["trained"]["tokens"] == 20  # asked for twice, stated twice


def test_another_run_finds_the_training_and_another_seed_or_model_does_not(tmp_path):
    source = ScriptedPool({"a": "x", "b": "y"})

    def train(model, seed=0):
        cache = Cache(tmp_path / "calls.sqlite")
        _, _, state = within(lambda context: context.train(source.pool[model], LESSON), cache=cache, seed=seed)
        cache.close()
        (row,) = costs_of(state.ledger)["fit"].values()
        return len(source.trainings), row["trained"]

    assert [train(0), train(0), train(1), train(0, seed=1)] == [
        (1, {"tokens": 10, "flops": 0, "seconds": 0, "saved_tokens": 0, "saved_flops": 0, "saved_seconds": 0}),
        (1, {"tokens": 10, "flops": 0, "seconds": 0, "saved_tokens": 10, "saved_flops": 0, "saved_seconds": 0}),
        (2, {"tokens": 10, "flops": 0, "seconds": 0, "saved_tokens": 0, "saved_flops": 0, "saved_seconds": 0}),
        (3, {"tokens": 10, "flops": 0, "seconds": 0, "saved_tokens": 0, "saved_flops": 0, "saved_seconds": 0}),
    ]
    folders = list((tmp_path / "calls.artifacts").glob("*/training.json"))
    assert len(folders) == 3 and json.loads(folders[0].read_text())["rows"] == 1


def test_rewards_come_from_the_runs_loop_and_their_judge_may_live_on_the_trained_device():
    source = ScriptedPool({"student": "4", "judge": "good"})
    seen = []

    async def judge(rollouts):
        seen.append((threading.current_thread() is main, list(rollouts)))
        return [float((await context.generate(source.pool[1], text)).text == "good") for _, text in rollouts]

    async def work(given):
        nonlocal context
        context = given
        return await given.train(source.pool[0], attrs.evolve(LESSON, service="grpo", judge=judge))

    context, main = None, threading.current_thread()
    _, notes, _ = within(work)
    assert seen == [(True, [(0, "4")])]
    assert [n.get("reward") for n in notes] == [1.0, None]


def test_calls_wait_while_a_model_of_their_device_is_trained():
    source = ScriptedPool({"a": "x", "b": "y"})
    started, going = threading.Event(), threading.Event()
    train = source.engine.train

    def slowly(model, job, site):
        started.set()
        assert going.wait(10)
        served.append(list(source.prompts()))
        return train(model, job, site)

    served = []
    source.engine.train = slowly

    async def work(context):
        training = asyncio.create_task(context.train(source.pool[0], LESSON))
        await asyncio.to_thread(started.wait, 10)
        call = asyncio.create_task(context.generate(source.pool[1], "q"))
        await asyncio.sleep(0.05)
        going.set()
        await training
        return (await call).text

    assert within(work)[0] == "y" and served == [[]] and source.prompts() == ["q"]


def test_rows_that_are_missing_leave_the_model_as_it_is_with_a_warning():
    source = ScriptedPool({"a": "x"})
    result, _, state = within(lambda c: c.train(source.pool[0], Lesson(rows=()), name="nothing"))
    assert result is source.pool[0] and state.warnings == ["nothing: not trained: no rows"]


def test_a_failed_training_fails_who_asked_and_frees_the_device():
    source = ScriptedPool({"a": "x"})

    def broken(model, job, site):
        raise ModelCallError("a: the loss became NaN at step 3")

    source.engine.train = broken

    async def work(context):
        with pytest.raises(ModelCallError, match="NaN at step 3"):
            await context.train(source.pool[0], LESSON)
        return (await context.generate(source.pool[0], "still there?")).text

    assert within(work)[0] == "x"


def test_an_engine_that_trains_and_is_never_called_is_started_and_closed_like_any_other():
    source = ScriptedPool({"a": "x"})
    begun = []

    def train(model, job, site):
        begun.append((source.engine.starts, source.engine.closes))
        raise ModelCallError("a: out of disk")

    source.engine.train = train

    async def work(context):
        with pytest.raises(ModelCallError, match="out of disk"):
            await context.train(source.pool[0], LESSON)

    within(work)
    assert begun == [(1, 0)] and (source.engine.starts, source.engine.closes) == (1, 1)


def test_what_cannot_be_trained_is_refused_in_one_line():
    plain = ScriptedPool({"a": "x"}, capabilities=SCRIPTED_CAPABILITIES - {"train"})
    with pytest.raises(CapabilityError, match=r"model 'a' cannot be trained \(capability 'train'\)"):
        within(lambda c: c.train(plain.pool[0], LESSON))
    with pytest.raises(CapabilityError, match="'train', which its needs"):
        within(lambda c: c.train(ScriptedPool({"a": "x"}).pool[0], LESSON), allowed=frozenset({"generate"}))

    class Server(ScriptedServer):
        train = ScriptedServer.__mro__[2].train

    with pytest.raises(CapabilityError, match="Server cannot train 'a'; `moco list pool --can train` names the pools"):
        within(lambda c: c.train(ScriptedPool({"a": "x"}, engine=Server()).pool[0], LESSON))


LEARNER = '''
from moco_core import Cost, Method, Reply, System


class Alone(System):
    async def respond(self, question, context):
        return Reply.of(await context.generate(self.pool[0], question))


class Learner(Method):
    "Learns, it says."
    system = Alone

    def cost(self, models, dev):
        return Cost(train_tokens=1000, train_memory=2 << 20)

    async def fit(self, pool, dev, context):
        return Alone(pool, self.options)
'''


def test_a_plan_tells_what_training_takes_and_its_time_by_the_last_training_of_these_models(moco):
    (moco.folder / "learner.py").write_text(LEARNER)
    plan = ("plan", "learner", "-d", "toys", "-p", "toy_pool", "--plugin", str(moco.folder / "learner.py"))
    line = "learner trains on 1,000 tokens, 2.0 MiB at once"
    assert f"{line} (nothing measured yet)" in moco(*plan).out.splitlines()
    folder = moco.folder / "cache" / "calls.artifacts" / "k"
    folder.mkdir(parents=True)
    (folder / "artifact.json").write_text(json.dumps({"what": {"kind": "training", "model": "toy-3"}}))
    (folder / "training.json").write_text(json.dumps({"train_tokens": 10, "train_seconds": 0.5}))
    assert f"{line} (about 50 s by the last training of these models)" in moco(*plan).out.splitlines()
    (row,) = json.loads(moco(*plan, "--json").out)["runs"]
    assert (row["train_tokens"], row["train_memory"], row["train_seconds"]) == (1000, 2 << 20, 50.0)
