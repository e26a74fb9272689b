import asyncio
import gc
import threading
import time

import pytest

from moco_core.errors import CapabilityError, EngineOutOfMemory, ModelCallError, PoolError, StoreError
from moco_core.models import Engine, Model
from moco_core.runtime.cache import Cache, encode_result, key_parts
from moco_core.runtime.memo import Memo
from moco_core.runtime.runtime import Runtime
from moco_core.types import Generation, Question, Sampling, Usage


class Recorder(Engine):
    """Says what it was asked and seeded with; keeps every batch."""

    def __init__(self, largest=10**9, step=10**9):
        self.batches = []
        self.asked = []
        self.largest = largest
        self.step = step
        self.closed = 0

    def serve(self, model, inbox):
        while calls := inbox.take(min(self.step, inbox.limit)):
            self.batches.append((model.name, len(calls)))
            if len(calls) > self.largest:
                raise EngineOutOfMemory(f"{len(calls)} do not fit")
            self.asked += [(model.name, c.input["messages"][-1][1]) for c in calls]
            inbox.resolve([(c, self.reply(model, c)) for c in calls])

    def reply(self, model, call):
        return Generation(text=f"{model.name}:{call.input['messages'][-1][1]}:{call.seed}", usage=Usage(2, 1))

    async def close(self):
        self.closed += 1


def models(engine, names="ab", **kw):
    return [Model(name=n, fingerprint=f"fp-{n}", capabilities={"generate"}, engine=engine, **kw) for n in names]


def run(work, cache=None, seed=0, **session):
    async def main():
        async with Runtime(cache) as runtime:
            return await work(runtime.state(None, seed=seed, **session).context("respond"), runtime.scheduler)

    return asyncio.run(main())


def questions(n):
    return [Question(id=f"q{i}", prompt=f"p{i}") for i in range(n)]


SAMPLED = Sampling(temperature=1.0)


def test_waiting_calls_form_one_batch_per_model_and_round():
    engine = Recorder()
    pool = models(engine)

    async def respond(question, context):
        first = await context.gather(context.generate(m, question) for m in pool)
        return await context.gather(context.generate(m, "again " + first[0].text) for m in pool)

    run(lambda context, _: context.each(questions(40), respond))
    assert sum(n for _, n in engine.batches) == 160
    assert len(engine.batches) <= 6  # four full batches; a split or two if a model came up while others were woken


def test_a_fast_model_is_not_swapped_out_while_calls_for_it_wait():
    engine = Recorder(step=10)
    pool = models(engine)

    async def work(context, scheduler):
        await context.each(questions(50), lambda q, c: c.gather(c.generate(m, q) for m in pool))

    run(work)
    assert [n for n, _ in engine.batches] == ["a"] * 5 + ["b"] * 5


def test_the_longest_queue_is_served_where_both_models_are_ready():
    class Ready(Recorder):
        def ready(self, model):
            return True

        def serve(self, model, inbox):
            calls = inbox.take()
            self.batches.append((model.name, len(calls)))
            inbox.resolve([(c, self.reply(model, c)) for c in calls])

    async def respond(question, context):
        await context.generate(pool[0], question)
        # two of ten stay with the first model, eight need the second
        await context.generate(pool[int(question.id[1:]) >= 2], "again " + question.id)

    engine = Ready()
    pool = models(engine)
    run(lambda context, _: context.each(questions(10), respond))
    assert engine.batches == [("a", 10), ("b", 8), ("a", 2)]
    engine = Recorder()  # nobody knows whether a change costs: the open model goes first
    pool = models(engine)
    run(lambda context, _: context.each(questions(10), respond))
    assert engine.batches == [("a", 10), ("a", 2), ("b", 8)]


def test_equal_calls_in_flight_are_made_once():
    engine = Recorder()
    (model,) = models(engine, "a")

    async def work(context, _):
        return await context.gather(context.generate(model, "same") for _ in range(5))

    replies = run(work)
    assert len({r.text for r in replies}) == 1 and engine.asked == [("a", "same")]


def sampled_texts(order, *, in_flight=256, step=10**9, cache=None):
    engine = Recorder(step=step)
    pool = models(engine)

    async def respond(question, context):
        out = await context.gather(context.generate(m, question, SAMPLED) for m in pool for _ in range(2))
        return question.id, [r.text for r in out]

    return dict(run(lambda c, _: c.each(order, respond), cache, in_flight=in_flight))


def test_results_do_not_depend_on_batching_order_or_cache():
    items = questions(12)
    base = sampled_texts(items)
    assert sampled_texts(items[::-1]) == base
    assert sampled_texts(items, in_flight=1) == base
    assert sampled_texts(items, step=1) == base
    cache = Cache(None)
    half = sampled_texts(items[:5], cache=cache)
    assert {**half, **sampled_texts(items, cache=cache)} == base == sampled_texts(items, cache=cache)


def test_seeds_differ_by_sample_question_model_copy_and_run_seed():
    engine = Recorder()
    first = Model(name="a", fingerprint="same", capabilities={"generate"}, engine=engine)
    copy = Model(name="a2", fingerprint="same", capabilities={"generate"}, engine=engine, copy=1)

    async def respond(question, context):
        two = await context.gather(context.generate(m, "x", SAMPLED) for m in (first, first, copy))
        return [r.text.split(":")[-1] for r in two]

    seeds = run(lambda c, _: c.each(questions(2), respond))
    other = run(lambda c, _: c.each(questions(2), respond), seed=1)
    flat = [s for row in seeds + other for s in row]
    assert len(set(flat)) == len(flat) == 12


def test_greedy_calls_of_copies_are_shared():
    engine = Recorder()
    first = Model(name="a", fingerprint="same", capabilities={"generate"}, engine=engine)
    copy = Model(name="a2", fingerprint="same", capabilities={"generate"}, engine=engine, copy=1)
    run(lambda c, _: c.gather(c.generate(m, "x") for m in (first, copy)))
    assert len(engine.asked) == 1


def test_explicit_sample_numbers_are_the_samples():
    engine = Recorder()
    (model,) = models(engine, "a")

    async def work(context, _):
        counted = [await context.generate(model, "x", SAMPLED) for _ in range(3)]
        named = [await context.generate(model, "x", SAMPLED, sample=i) for i in (2, 0, 1)]
        return counted, named

    counted, named = run(work)
    assert [named[1], named[2], named[0]] == counted


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


class Slow(Recorder):
    def __init__(self):
        super().__init__()
        self.left = threading.Event()

    def serve(self, model, inbox):
        inbox.take()
        while not inbox.cancelled:
            time.sleep(0.005)
        self.left.set()


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


class Server(Engine):
    batches_itself = True
    max_in_flight = 4

    def __init__(self):
        self.now = self.most = 0

    async def submit(self, call):
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.002)
        self.now -= 1
        if call.input["messages"][-1][1] == "p3":
            raise OSError("connection reset")
        return Generation(text=call.input["messages"][-1][1])


def test_a_self_batching_engine_gets_a_bounded_number_of_calls():
    engine = Server()
    (model,) = models(engine, "a")

    async def one(question, context):
        try:
            return (await context.generate(model, question)).text
        except ModelCallError as error:
            return str(error)

    out = run(lambda c, _: c.each(questions(20), one))
    assert engine.most == 4
    assert out[3] == "a: OSError: connection reset" and out[4] == "p4"


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


def test_counted_work_is_reported_with_the_calls_tokens():
    (model,) = models(Recorder(), "a")

    async def work(context, _):
        scope = context.on(Question(id="q", prompt="p"))
        await scope.generate(model, "p")
        scope.count(model, Usage(10, 4))
        scope.count(model, Usage(1, 2))
        scope.count(model, Usage(5, 5), cached=True)
        session = scope.state
        tally = session.ledger.of("respond", "a")
        assert tally.usage == Usage(2 + 10 + 1 + 5, 1 + 4 + 2 + 5) and tally.saved_usage == Usage(5, 5)
        assert (tally.calls, tally.cached) == (4, 1)
        return [(c.kind, c.cached, c.usage) for c in scope.calls]

    assert run(work) == [
        ("generate", False, Usage(2, 1)),
        ("step", False, Usage(11, 6)),
        ("step", True, Usage(5, 5)),
    ]


def test_many_questions_are_worked_on_a_bounded_number_at_once_and_wait_without_a_task():
    async def work(context, _):
        busy = tasks = 0

        async def one(item, scope):
            nonlocal busy, tasks
            busy += 1
            assert busy <= 5 and scope.question is item
            tasks = max(tasks, len(asyncio.all_tasks()))
            await asyncio.sleep(0)
            busy -= 1
            return item.id

        items = [Question(id=str(i), prompt="p") for i in range(500)]
        assert await context.each(items, one) == [item.id for item in items]
        assert await context.each([], one) == []
        return tasks

    assert run(work, in_flight=5) < 20
