"""Calls become batches: which wait for which, whose turn it is, and that results do not depend on it."""

import asyncio

from recording_engine import Recorder, Server, models, questions, run

from moco_core.errors import ModelCallError
from moco_core.models import Model
from moco_core.runtime.cache import Cache
from moco_core.types import Question, Sampling, Usage

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


def test_explicit_sample_numbers_are_the_samples():
    engine = Recorder()
    (model,) = models(engine, "a")

    async def work(context, _):
        counted = [await context.generate(model, "x", SAMPLED) for _ in range(3)]
        named = [await context.generate(model, "x", SAMPLED, sample=i) for i in (2, 0, 1)]
        return counted, named

    counted, named = run(work)
    assert [named[1], named[2], named[0]] == counted


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
