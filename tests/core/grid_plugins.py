"""Plugins for tests of grids: models that answer only together, an executor of other processes, an observer that tells all."""

import asyncio
import json
import pickle
import random
import subprocess
import sys
import threading
import time

import attrs

from moco_core import (
    Engine,
    Executor,
    Generation,
    Method,
    Model,
    Observer,
    PoolSource,
    Reply,
    Sampling,
    System,
    Usage,
    hookimpl,
    option,
)


class Meeting(Engine):
    """Answers the first call of a model once all three models are asked, each on a device of its own."""

    def __init__(self):
        self.barrier = threading.Barrier(3)

    def serve(self, model, inbox):
        calls = inbox.take()
        if not model.info["met"]:
            model.info["met"].append(True)
            self.barrier.wait(timeout=20)
        inbox.resolve([(c, Generation(text=f"{model.name} says 7", usage=Usage(2, 3))) for c in calls])


class MeetingPool(PoolSource):
    "Three models that must be at work at once."

    def models(self):
        engine = Meeting()
        return [
            Model(name=f"m{i}", fingerprint=f"meeting-{i}", capabilities={"generate"}, engine=engine,
                  device_group=f"device{i}", info={"met": []})
            for i in range(3)
        ]  # fmt: skip


class Moody(Engine):
    """Says numbers that seed and prompt decide, a while later: how long is left to chance."""

    def serve(self, model, inbox):
        while calls := inbox.take(random.randint(1, 4)):
            time.sleep(random.random() / 300)
            inbox.resolve([(c, Generation(text=f"maybe {(c.seed or 3) % 97}", usage=Usage(1, 1))) for c in calls])


class MoodyPool(PoolSource):
    "Two models on two devices, answering in any order."

    def models(self):
        engine = Moody()
        return [
            Model(
                name=f"moody{i}",
                fingerprint=f"moody-{i}",
                capabilities={"generate"},
                engine=engine,
                device_group=f"d{i}",
            )
            for i in range(2)
        ]


@attrs.frozen(kw_only=True)
class DrawOptions:
    times: int = option(2, ge=1, help="samples of every model")


class DrawSystem(System):
    async def respond(self, question, context):
        hot = Sampling(temperature=1.0, max_new_tokens=9)
        calls = [context.generate(m, question, hot) for m in self.pool for _ in range(self.options.times)]
        replies = await context.gather(calls)
        return Reply.of(replies[context.rng("pick").randrange(len(replies))], texts=[r.text for r in replies])


class Draw(Method):
    "Samples every model and picks one."

    Options = DrawOptions
    system = DrawSystem

    async def fit(self, pool, dev, context):
        evaluation = await context.evaluate(pool, dev)
        context.note(best=evaluation.best())
        return DrawSystem(pool, self.options)


@attrs.frozen(kw_only=True)
class ElsewhereOptions:
    fails: bool = option(False, help="fail after the first run")


class Elsewhere(Executor):
    "Does every run in a process of its own, the last one first."

    Options = ElsewhereOptions

    async def map(self, jobs, run):
        code = (
            "import pickle, sys\n"
            "from moco_core import run_job\n"
            "job = pickle.load(sys.stdin.buffer)\n"
            "try:\n"
            "    result = run_job(job)\n"
            "except Exception as error:\n"
            "    result = error\n"
            "sys.stdout.buffer.write(pickle.dumps(result))\n"
        )
        for job in reversed(jobs):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            out, _ = await process.communicate(pickle.dumps(job))
            result = pickle.loads(out)
            if isinstance(result, Exception):
                raise result
            yield result
            if self.options.fails:
                raise OSError("the other machine\nis gone")


@attrs.frozen(kw_only=True)
class TellOptions:
    path: str = option("told.jsonl", help="where it writes")


class Tell(Observer):
    "Writes down every event."

    Options = TellOptions

    def _write(self, event):
        with open(self.options.path, "a") as file:
            file.write(json.dumps([type(event).__name__, attrs.asdict(event)], default=str) + "\n")

    @hookimpl
    def moco_benchmark_started(self, event):
        self._write(event)

    @hookimpl
    def moco_run_started(self, event):
        self._write(event)

    @hookimpl
    def moco_run_noted(self, event):
        self._write(event)

    @hookimpl
    def moco_question_answered(self, event):
        self._write(event)

    @hookimpl
    def moco_run_finished(self, event):
        self._write(event)

    @hookimpl
    def moco_benchmark_finished(self, event):
        self._write(event)
