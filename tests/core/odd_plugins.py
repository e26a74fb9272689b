"""Plugins that do odd things, for tests of what a run makes of them (``--plugin odd_plugins.py``)."""

import math
import time
from fractions import Fraction

import attrs

from moco_core import (
    Answer,
    Dataset,
    DatasetFacts,
    Engine,
    Example,
    Generation,
    Method,
    Metric,
    Model,
    PoolSource,
    Question,
    Reply,
    Score,
    System,
    Unit,
    option,
)


class Tardy(Engine):
    """Answers with the prompt, slowly; model 0 slowest and the first questions last."""

    def serve(self, model, inbox):
        calls = sorted(inbox.take(), key=lambda c: c.input["messages"][-1][1], reverse=True)
        for call in calls:
            time.sleep(0.002 * (3 - model.info["number"]))
            inbox.resolve([(call, Generation(text=call.input["messages"][-1][1] + f" {model.name}"))])


class TardyPool(PoolSource):
    "Three models, each on a device of its own."

    def models(self):
        engine = Tardy()
        return [
            Model(name=f"m{i}", fingerprint=f"tardy-{i}", capabilities={"generate"}, engine=engine, device_group=f"device{i}",
                  info={"number": i})
            for i in range(3)
        ]  # fmt: skip


class TwoRounds(System):
    async def respond(self, question, context):
        async def chain(model):
            first = await context.generate(model, question)
            return await context.generate(model, f"again {first.text}")

        replies = await context.gather(chain(m) for m in self.pool)
        last = await context.generate(self.pool[0], " ".join(r.text for r in replies))
        return Reply.of(last)


class Rounds(Method):
    "Every model twice, side by side, then the first once more."

    system = TwoRounds

    async def fit(self, pool, dev, context):
        return TwoRounds(pool, self.options)


@attrs.frozen(kw_only=True)
class OddOptions:
    state: str = option("", help="what is odd about the state: inf, nan, type, key")
    meta: str = option("", help="what is odd about replies and notes: nan")


@attrs.define(eq=False, slots=False)
class OddSystem(System):
    learnt: dict

    def state(self):
        return {"learnt": self.learnt}

    async def respond(self, question, context):
        meta = (
            {"confidence": math.nan, "odds": -math.inf, "share": Fraction(1, 4), "set": {1}}
            if self.options.meta
            else {}
        )
        return Reply.of(await context.generate(self.pool[0], question), **meta)


class Odd(Method):
    "Learns what JSON cannot hold."

    Options = OddOptions
    system = OddSystem

    async def fit(self, pool, dev, context):
        if self.options.meta:
            context.note(step=1, threshold=math.inf)
        odd = {"inf": math.inf, "nan": math.nan, "type": Fraction(1, 3), "": 0.5, "key": 0.5}[self.options.state]
        learnt = {"weights": [0.5, {"last": odd}]}
        return OddSystem(pool, self.options, {1: learnt} if self.options.state == "key" else learnt)


@attrs.frozen(kw_only=True)
class OddMetricOptions:
    fails: str = option("", help="which part fails: extra_metrics, nan, units, unit, score, check, none")


class OddMetric(Metric):
    "Fails where it is told to."

    Options = OddMetricOptions

    def check(self):
        return ["it has no sandbox; apt install one"] if self.options.fails == "check" else []

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")

    def score(self, example, reply, context):
        value = {"score": math.nan, "none": None}.get(self.options.fails, True)
        return Score(value=value, answer=self.read(example.question, reply.text))

    def units(self, rows):
        if self.options.fails == "units":
            raise ZeroDivisionError("no\nrows")
        return [Unit("all", math.nan)] if self.options.fails == "unit" else super().units(rows)

    def extra_metrics(self, rows):
        if self.options.fails == "extra_metrics":
            raise RuntimeError("no extra metric")
        return {"odd": math.inf if self.options.fails == "nan" else 1, "even": 2}


@attrs.frozen(kw_only=True)
class LossyOptions:
    dropped: int = option(0, ge=0, help="rows of the test split without an answer")


class Lossy(Dataset):
    "Leaves rows out."

    Options = LossyOptions
    facts = DatasetFacts(title="Lossy", metric="odd_metric")

    def examples(self, split):
        for i in range(3):
            yield Example(question=Question(id=f"{split}{i}", prompt=f"{i} of {split}"), references=("yes",))

    def notes(self):
        lost = {"no answer": self.options.dropped} if self.options.dropped else {}
        return {"dropped": {"dev": {}, "test": lost}, "odd": (1, 2)}
