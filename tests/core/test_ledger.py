"""The cost of work is what it costs, whoever paid for it first; what is unknown is not taken for nothing."""

import asyncio

import pytest

from moco_core.cli.display import call_lines
from moco_core.models import Engine, Model
from moco_core.runs.results import costs_of
from moco_core.runtime.cache import Cache
from moco_core.runtime.ledger import Answered, Tally
from moco_core.runtime.runtime import Runtime
from moco_core.types import Generation, Question, Usage


class Priced(Engine):
    """Says in ``meta`` what a call cost where the prompt tells it to."""

    def serve(self, model, inbox):
        while calls := inbox.take():
            inbox.resolve([(c, self.answer(c.input["messages"][-1][1])) for c in calls])

    def answer(self, prompt):
        if prompt == "unknown":
            return Generation(text="x", meta={"cost": None})
        if prompt == "stated":
            return Generation(text="x", usage=Usage(1, 1), meta={"cost": 0.5})
        if prompt == "known":
            return Generation(text="x", usage=Usage(100, 1), meta={"cached_tokens": 64})
        return Generation(text="x", usage=Usage(1000, 500) if prompt == "counted" else Usage())


def tally(prompts, cache, prices=(2.0, 6.0)):
    model = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Priced(), prices=prices)

    async def main():
        async with Runtime(cache) as runtime:
            state = runtime.state(None)
            context = state.context("respond")
            await context.gather(context.generate(model, p) for p in prompts)
            return state.ledger.of("respond", "m")

    return asyncio.run(main())


def test_the_record_says_how_much_of_a_prompt_was_known_and_the_usage_counts_all_of_it():
    model = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Priced())

    async def main():
        async with Runtime(Cache(None)) as runtime:
            context = runtime.state(None).context("respond", Question(id="q", prompt="known"))
            for prompt in ("known", "counted"):
                await context.generate(model, prompt)
            return context.calls

    known, other = asyncio.run(main())
    assert known.usage == Usage(100, 1) and known.response["cached_tokens"] == 64
    assert "cached_tokens" not in other.response
    heads = [line for line in call_lines([known, other]) if line.startswith("---")]
    assert heads == ["--- 1. m (generate, 100+1 tokens, 64 of them known)", "--- 2. m (generate, 1000+500 tokens)"]


def test_the_second_who_asks_pays_as_much_as_the_first():
    cache = Cache(None)
    first, second = tally(["counted", "stated"], cache), tally(["counted", "stated"], cache)
    assert first.money == second.money == pytest.approx(0.5 + (1000 * 2 + 500 * 6) / 1e6)
    assert first.usage == second.usage == second.saved_usage == Usage(1001, 501) and first.saved_usage == Usage()
    assert (first.saved_money, second.saved_money) == (0.0, second.money)
    assert first.seconds == second.seconds == second.saved_seconds > 0 == first.saved_seconds
    assert (first.cached, second.cached) == (0, 2)


def test_an_unknown_price_is_not_nothing():
    got = tally(["unknown", "uncounted", "stated"], Cache(None))
    assert (got.priced, got.unpriced, got.money) == (3, 2, 0.5)
    free = tally(["counted"], Cache(None), prices=None)
    assert (free.priced, free.unpriced, free.money) == (0, 0, 0.0)


def test_seconds_of_calls_served_together_add_up_to_the_time_they_took():
    import time

    from moco_core.models import Call
    from moco_core.runtime.queues import Queue

    class Keeper:
        closing = False

        def __init__(self):
            self.timed = []

        def store_and_deliver(self, results):
            self.timed += [seconds for _, _, seconds in results]

    model = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Priced())
    queue, keeper = None, Keeper()
    queue = Queue(model, keeper)
    queue.push([Call(model, "generate", {}, {}) for _ in range(3)])
    started = time.monotonic()
    calls = queue.take()
    time.sleep(0.02)
    queue.resolve([(calls[0], "x")])
    time.sleep(0.02)
    queue.resolve([(c, "x") for c in calls[1:]])
    took = time.monotonic() - started
    assert sum(keeper.timed) == pytest.approx(took, rel=0.1)
    assert keeper.timed[1] == keeper.timed[2] > keeper.timed[0]


def test_thoughts_are_counted_where_they_are_told_and_unknown_where_they_are_not():
    got = Tally()
    model = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Priced(), parameters=7)
    for generation in (
        Generation(text="x", meta={"reasoning_tokens": 5, "cached_tokens": 3}),
        Generation(text="x", reasoning="so"),
        Generation(text="x"),
    ):
        got.add(model, Usage(1, 1), Answered(generation, False))
    assert (got.reasoning, got.unreasoned, got.cached_prompt, got.parameters) == (5, 1, 3, 7)


def test_what_a_model_costs_in_each_of_its_roles():
    model = Model(name="m", fingerprint="f", capabilities={"generate"}, engine=Priced())

    async def main():
        async with Runtime(Cache(None)) as runtime:
            state = runtime.state(None)
            context = state.context("respond", Question(id="q", prompt="?"))
            await context.generate(model, "counted")
            judge = context.role("judge")
            await judge.generate(model, "counted", sample=1)
            await judge.gather([judge.generate(model, "stated")])
            judge.count(model, Usage(7, 0))
            await context.role("reference").generate(model, "other")
            await context.on(Question(id="r", prompt="?")).role("judge").generate(model, "third")
            return costs_of(state.ledger), context.calls

    costs, calls = asyncio.run(main())
    whole = costs["respond"]["m"]
    assert whole["prompt"] == 2 * 1000 + 1 + 7 and whole["calls"] + whole["cached"] == 5
    assert whole["roles"]["judge"]["prompt"] == 1000 + 1 + 7 and set(whole["roles"]) == {"judge"}
    assert costs["reference"]["m"]["calls"] == 1
    # one record of the question, whatever the role
    assert [c.kind for c in calls] == ["generate"] * 3 + ["step", "generate"]
