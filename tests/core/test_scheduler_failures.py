"""Calls and engines that fail, and runs that are cancelled: who is told, who goes on, and that nothing is left running."""

import asyncio
import gc
import threading

import pytest
from recording_engine import Recorder, Server, Slow, models, questions, run

from moco_core.errors import CapabilityError, EngineOutOfMemory, ModelCallError, PoolError, StoreError
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import Runtime


def test_out_of_memory_halves_the_batch_until_it_fits():
    engine = Recorder(largest=3)
    (model,) = models(engine, "a")
    replies = run(lambda c, _: c.each(questions(20), lambda q, s: s.generate(model, q)))
    assert len(replies) == 20 and sorted(engine.asked) == sorted({("a", f"p{i}") for i in range(20)})
    assert [n for _, n in engine.batches][:4] == [20, 10, 5, 2]


def test_one_call_that_never_fits_fails_alone_with_the_engines_words():
    (model,) = models(Recorder(largest=0), "a")
    with pytest.raises(EngineOutOfMemory, match="1 do not fit"):
        run(lambda c, _: c.generate(model, "x"))


class Faulty(Recorder):
    def serve(self, model, inbox):
        for call in inbox.take():
            if "bad" in call.input["messages"][-1][1]:
                inbox.reject(call, ModelCallError("no"))
            else:
                inbox.resolve([(call, self.reply(model, call))])


def test_a_rejected_call_does_not_lose_the_others():
    (model,) = models(Faulty(), "a")

    async def work(context, _):
        return await context.gather(
            (context.generate(model, p) for p in ("ok", "bad", "fine")), tolerate=ModelCallError
        )

    first, second, third = run(work)
    assert first.text.startswith("a:ok") and third.text.startswith("a:fine") and str(second) == "no"


def test_gather_raises_the_first_error_itself_and_cancels_the_rest():
    (model,) = models(Faulty(), "a")
    with pytest.raises(ModelCallError, match=r"^no$"):
        run(lambda c, _: c.gather(c.generate(model, p) for p in ("bad", "bad two")))


class Crash(Recorder):
    def serve(self, model, inbox):
        inbox.take(1)
        raise RuntimeError("boom\nsecond line")


def test_an_engine_crash_fails_what_it_had_taken_and_names_the_model():
    (model,) = models(Crash(), "a")
    with pytest.raises(ModelCallError, match=r"a: RuntimeError: boom"):
        run(lambda c, _: c.generate(model, "x"))


class Forgetful(Recorder):
    def serve(self, model, inbox):
        inbox.take()


def test_an_engine_that_forgets_calls_is_reported():
    (model,) = models(Forgetful(), "a")
    with pytest.raises(ModelCallError, match="returned without answering 1 calls"):
        run(lambda c, _: c.generate(model, "x"))


def test_cancelling_leaves_no_task_and_no_thread():
    engine = Slow()
    (model,) = models(engine, "a")

    async def main():
        async with Runtime(None) as runtime:
            context = runtime.state(None).context("respond")
            async with asyncio.timeout(0.2):
                await context.generate(model, "x")

    async def outer():
        with pytest.raises(TimeoutError):
            await main()
        return [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    assert asyncio.run(outer()) == []
    assert engine.left.is_set() and engine.closed == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("moco-engine")]
    gc.collect()


class Closed(Server):
    def __init__(self):
        super().__init__()
        self.starts = 0

    async def start(self, runtime):
        self.starts += 1
        await asyncio.sleep(0.01)
        raise PoolError("nobody is at home")


def test_a_pool_that_cannot_be_opened_ends_everything_before_anybody_is_asked():
    """Engines that are expected start together, so that what is wrong with one is known before another is asked."""
    fine, closed, cache = Recorder(), Closed(), Cache(None)
    (near,), (far,) = models(fine, "a"), models(closed, "b")

    async def work(ask):
        async with Runtime(cache, [fine, closed]) as runtime:
            context = runtime.state(None).context("respond")
            return await context.each(questions(5), ask)

    for model in (near, far):
        with pytest.raises(PoolError, match="nobody is at home"):
            asyncio.run(work(lambda q, s, model=model: s.generate(model, q)))
    assert fine.asked == [] and closed.most == 0 and closed.starts == 2
    # what is cached needs no engine
    run(lambda c, _: c.each(questions(5), lambda q, s: s.generate(near, q)), cache)
    assert len(asyncio.run(work(lambda q, s: s.generate(near, q)))) == 5 and closed.starts == 2


def test_a_store_that_cannot_be_written_stops_everything_with_one_error():
    cache = Cache(None)
    (model,) = models(Recorder(), "a")

    def fail(rows):
        raise StoreError("disk full")

    cache.put_many = fail
    with pytest.raises(StoreError, match="disk full"):
        run(lambda c, _: c.each(questions(5), lambda q, s: s.generate(model, q)), cache)


def test_capabilities_are_enforced_before_the_call():
    engine = Recorder()
    (model,) = models(engine, "a")
    with pytest.raises(CapabilityError, match="cannot score given continuations"):
        run(lambda c, _: c.score(model, "x", ["y"]))

    async def undeclared(context, _):
        limited = context.state.context("respond", allowed=frozenset())
        await limited.generate(model, "x")

    with pytest.raises(CapabilityError, match="does not declare"):
        run(undeclared)
    assert engine.asked == []
