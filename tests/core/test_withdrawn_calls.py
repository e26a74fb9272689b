"""A call that nobody waits for any more is not made; one that is under way is kept; others that want the same get it."""

import asyncio
import contextlib
import threading

import pytest

from moco_core.models import Engine, Model
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import Runtime
from moco_core.types import Generation


class Slow(Engine):
    """Answers one call at a time, each once ``go`` is set."""

    def __init__(self):
        self.go, self.begun, self.asked = threading.Event(), threading.Event(), []

    def serve(self, model, inbox):
        while calls := inbox.take(1):
            self.asked += [c.input["messages"][-1][1] for c in calls]
            self.begun.set()
            self.go.wait(10)
            inbox.resolve([(c, Generation(text="said")) for c in calls])


class SlowServer(Engine):
    """The same as a server that works on one request at a time."""

    batches_itself = True
    max_in_flight = 1

    def __init__(self, gives_up=False):
        self.gives_up = gives_up
        self.go, self.begun, self.asked, self.cancelled = asyncio.Event(), asyncio.Event(), [], []

    async def submit(self, call):
        said = call.input["messages"][-1][1]
        self.asked.append(said)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(said)
            raise
        return Generation(text="said")


def model(engine):
    return Model(name="a", fingerprint="fp", capabilities={"generate"}, engine=engine)


async def begun(engine):
    while not engine.begun.is_set():
        await asyncio.sleep(0.001)


async def cancelled(task):
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("make", [Slow, SlowServer])
def test_a_waiting_call_is_dropped_and_one_under_way_is_kept_in_the_cache(make):
    async def main(cache):
        engine = make()
        async with Runtime(cache) as runtime:
            context = runtime.state(None).context("respond")
            first, second, third = (
                asyncio.create_task(context.generate(model_, prompt))
                for model_ in [model(engine)]
                for prompt in ("first", "second", "third")
            )
            await begun(engine)
            await cancelled(first)
            await cancelled(second)
            engine.go.set()
            assert (await third).text == "said"
            assert engine.asked == ["first", "third"]
            again = make()  # answers nothing: what was under way is stored
            assert (await context.generate(model(again), "first")).text == "said" and not again.asked

    cache = Cache(None)
    asyncio.run(asyncio.wait_for(main(cache), 20))
    cache.close()


@pytest.mark.parametrize("make", [Slow, SlowServer])
def test_a_call_that_somebody_else_waits_for_too_is_made(make):
    async def main():
        engine = make()
        async with Runtime(None) as runtime:
            context = runtime.state(None).context("respond")
            one = model(engine)
            block = asyncio.create_task(context.generate(one, "block"))
            await begun(engine)
            mine, theirs = (asyncio.create_task(context.generate(one, "shared")) for _ in range(2))
            await asyncio.sleep(0.01)
            await cancelled(mine)
            engine.go.set()
            assert (await theirs).text == "said" and engine.asked == ["block", "shared"]
            await block
            assert not runtime.scheduler._pending and not runtime.scheduler._in_flight

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_dropped_call_can_be_made_again():
    async def main():
        engine = Slow()
        async with Runtime(None) as runtime:
            context = runtime.state(None).context("respond")
            one = model(engine)
            block = asyncio.create_task(context.generate(one, "block"))
            await begun(engine)
            dropped = asyncio.create_task(context.generate(one, "again"))
            await asyncio.sleep(0.01)
            await cancelled(dropped)
            again = asyncio.create_task(context.generate(one, "again"))
            engine.go.set()
            assert (await again).text == "said"
            await block
            assert engine.asked == ["block", "again"]

    asyncio.run(asyncio.wait_for(main(), 20))


def test_an_engine_that_gives_up_is_cancelled():
    async def main():
        engine = SlowServer(gives_up=True)
        async with Runtime(None) as runtime:
            context = runtime.state(None).context("respond")
            task = asyncio.create_task(context.generate(model(engine), "long"))
            await begun(engine)
            await cancelled(task)
            await asyncio.sleep(0.01)
            assert engine.cancelled == ["long"] and not runtime.scheduler._pending

    asyncio.run(asyncio.wait_for(main(), 20))


def test_an_engine_that_knows_its_time_better_than_the_clock_says_so():
    class Knowing(SlowServer):
        async def submit(self, call):
            return Generation(text="said", meta={"seconds": 7.5})

    async def main():
        async with Runtime(None) as runtime:
            state = runtime.state(None)
            await state.context("respond").generate(model(Knowing()), "hello")
            (tally,) = [tally for _, _, tally in state.ledger]
            assert tally.seconds == 7.5

    asyncio.run(main())
