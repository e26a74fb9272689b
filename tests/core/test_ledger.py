"""The cost of work is what it costs, whoever paid for it first; what is unknown is not taken for nothing."""

import asyncio

import pytest

from moco_core.models import Engine, Model
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import Runtime
from moco_core.types import Generation, Usage


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
