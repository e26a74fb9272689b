"""What is computed once: equal calls, remembered results, replies and results that another process stored."""

import asyncio

from recording_engine import Recorder, models, questions, run

from moco_core.models import Model
from moco_core.runtime.cache import Cache, encode_result, key_parts
from moco_core.runtime.memo import Memo
from moco_core.types import Generation


def test_equal_calls_in_flight_are_made_once():
    engine = Recorder()
    (model,) = models(engine, "a")

    async def work(context, _):
        return await context.gather(context.generate(model, "same") for _ in range(5))

    replies = run(work)
    assert len({r.text for r in replies}) == 1 and engine.asked == [("a", "same")]


def test_greedy_calls_of_copies_are_shared():
    engine = Recorder()
    first = Model(name="a", fingerprint="same", capabilities={"generate"}, engine=engine)
    copy = Model(name="a2", fingerprint="same", capabilities={"generate"}, engine=engine, copy=1)
    run(lambda c, _: c.gather(c.generate(m, "x") for m in (first, copy)))
    assert len(engine.asked) == 1


def test_once_computes_once_per_description_and_shares_running_work():
    cache, calls = Cache(None), []

    async def compute():
        calls.append(1)
        await asyncio.sleep(0.01)
        return {"x": [1, 2]}

    async def work(context, _):
        return await context.gather(context.once({"kind": "t", "n": 1}, compute) for _ in range(3))

    assert run(work, cache) == [{"x": [1, 2]}] * 3 == run(work, cache)
    assert len(calls) == 1


def test_a_reply_that_another_process_stored_meanwhile_is_the_reply_of_both(tmp_path):
    """Two draws of one call on a server without seeds: whoever resumes from the store must see what the records hold."""
    other = Cache(tmp_path / "c.sqlite")

    class Slow(Recorder):
        def reply(self, model, call):
            parts = key_parts(call)
            other.put_many([(call.key, parts, encode_result(Generation(text="theirs")), 0.5)])
            return super().reply(model, call)

    (model,) = models(Slow(), "a")
    (question,) = questions(1)
    assert run(lambda c, _: c.generate(model, question), Cache(tmp_path / "c.sqlite")).text == "theirs"


def test_a_result_that_another_process_stored_meanwhile_is_the_result_of_both(tmp_path):
    async def ours():
        await Memo(Cache(tmp_path / "c.sqlite")).once({"kind": "t"}, theirs)
        return "ours"

    async def theirs():
        return "theirs"

    assert asyncio.run(Memo(Cache(tmp_path / "c.sqlite")).once({"kind": "t"}, ours)) == "theirs"
