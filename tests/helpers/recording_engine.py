"""An engine that records its batches and answers by model, prompt and seed; models on it; and work on a runtime."""

import asyncio
import threading
import time

from moco_core.errors import EngineOutOfMemory
from moco_core.models import Engine, Model
from moco_core.runtime.runtime import Runtime
from moco_core.types import Generation, Question, Usage


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


class Slow(Recorder):
    def __init__(self):
        super().__init__()
        self.left = threading.Event()

    def serve(self, model, inbox):
        inbox.take()
        while not inbox.cancelled:
            time.sleep(0.005)
        self.left.set()


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
