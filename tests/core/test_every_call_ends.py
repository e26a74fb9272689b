"""Whatever an engine returns, a cache holds or a callback raises: the call ends with a result or a reason, and others go on."""

import asyncio

import pytest

from moco_core.errors import ModelCallError, StoreError
from moco_core.models import Engine, Model
from moco_core.runtime.cache import Cache, encode_result, key_parts
from moco_core.runtime.queues import Queue
from moco_core.runtime.runtime import Runtime
from moco_core.runtime.scheduler import Scheduler
from moco_core.runtime.starting import Starts
from moco_core.types import Generation, Question

ODD = [
    None,
    {"text": "x"},
    "x",
    b"bytes",
    Generation(text=b"bytes"),
    Generation(text="x", meta={"k": object()}),
    [1],
    3,
]


class Fine(Engine):
    def answer(self, call):
        return Generation(text="fine")

    def serve(self, model, inbox):
        while calls := inbox.take(1):
            inbox.resolve([(c, self.answer(c)) for c in calls])


class Odd(Fine):
    def __init__(self, value):
        self.value = value

    def answer(self, call):
        return self.value if call.input["messages"][-1][1] == "odd" else Generation(text="fine")


class OddServer(Odd):
    batches_itself = True

    async def submit(self, call):
        return self.answer(call)


def model(engine, name="a"):
    return Model(name=name, fingerprint=f"fp-{name}", capabilities={"generate", "score", "embed"}, engine=engine)


def ask(engine, prompts=("odd", "even"), cache=None, kind="generate"):
    """Ask all prompts together; return texts, or the errors' messages."""

    async def one(context, prompt):
        try:
            if kind == "generate":
                return (await context.generate(model(engine), prompt)).text
            return await context.call(model(engine), kind, {"messages": [["user", prompt]]}, {})
        except (ModelCallError, StoreError) as error:
            return f"error: {error}"

    async def main():
        async with Runtime(cache) as runtime:
            context = runtime.state(None).context("respond")
            async with asyncio.timeout(20):
                return await context.gather([one(context, p) for p in prompts])

    return asyncio.run(main())


@pytest.mark.parametrize("value", ODD, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("engine", [Odd, OddServer])
def test_an_odd_result_fails_its_question_alone(engine, value):
    odd, even = ask(engine(value))
    assert odd.startswith("error: a: its engine returned what cannot be stored: ") and even == "fine"


@pytest.mark.parametrize("value", [object(), float, {1, 2}], ids=["object", "type", "set"])
def test_results_of_any_kind_must_be_json(value):
    odd, _ = ask(Odd(value), kind="embed")
    assert odd.startswith("error: a: its engine returned what cannot be stored: ")


@pytest.mark.parametrize("stored", [{"text": "x"}, [1, 2], None, "x", 7])
def test_a_stored_value_of_another_form_is_computed_anew(tmp_path, stored):
    from moco_core.models import Call
    from moco_core.types import Sampling

    engine, cache = Fine(), Cache(tmp_path / "c.sqlite")
    call = Call(model(engine), "generate", {"messages": [["user", "p"]]}, Sampling().params())
    parts = key_parts(call)
    cache.put_many([(parts.key(), parts, encode_result(stored), None)])
    assert ask(engine, ["p"], cache) == ["fine"]
    assert ask(engine, ["p"], cache) == ["fine"]


STEPS = [
    (Cache, "get_many"),
    (Cache, "put_many"),
    (Cache, "claim"),
    (Cache, "release"),
    (Queue, "push"),
    (Queue, "take"),
    (Queue, "resolve"),
    (Queue, "withdraw"),
    (Scheduler, "_admit"),
    (Scheduler, "_push"),
    (Scheduler, "_pump"),
    (Scheduler, "_deliver_stored"),
    (Starts, "ready"),
    (Scheduler, "store_and_deliver"),
]


@pytest.mark.parametrize("error", [RuntimeError("boom"), StoreError("boom")], ids=["bug", "store"])
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[s for _, s in STEPS])
@pytest.mark.parametrize("engine", [Fine(), OddServer(Generation(text="fine"))], ids=["serves", "submits"])
def test_an_error_at_any_step_of_a_calls_way_reaches_the_caller(monkeypatch, tmp_path, engine, owner, step, error):
    def fail(*args, **kwargs):
        raise error

    async def fail_later(*args, **kwargs):
        raise error

    monkeypatch.setattr(owner, step, fail_later if step == "ready" else fail)
    (outcome,) = ask(engine, ["p"], tmp_path / "c.sqlite")
    assert outcome == "fine" or "boom" in outcome  # a step that this way does not take changes nothing


def test_queues_of_models_that_came_and_went_are_forgotten():
    engine = Fine()

    async def main():
        async with Runtime(None) as runtime:
            context = runtime.state(None).context("respond")
            sizes = []
            for index in range(60):
                await context.generate(model(engine, f"candidate{index}"), Question(id="q", prompt="p"))
                sizes.append(len(runtime.scheduler._queues))
            return sizes

    assert max(asyncio.run(main())) <= 2
