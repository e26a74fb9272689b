"""What the core costs: start-up of the command line, overhead per call, replay from the cache, memory.

Prints ratios and per-call figures measured in this one run. Bounds that the project keeps to: `moco --help` at most 1.5 times
and `moco list` at most 2 times `python -c "import click"`; at most 0.3 ms per call with an engine that costs nothing;
100,000 cached calls replayed in under 30 s; peak memory that does not grow with the number of questions; a grid of three
single models on three devices at most 1.15 times the longest of them (and 1.5 times its memory), on one device no slower than
one after the other.
"""

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs

import moco_core
from moco_core.context import Context
from moco_core.data import Dataset, DatasetFacts, Metric
from moco_core.models import Engine, Model, PoolSource
from moco_core.options import option
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import Runtime
from moco_core.types import Answer, Example, Generation, Question, Score, Usage

MOCO = "from moco_core.cli import main; main()"


def startup(rounds: int = 9) -> None:
    """Time the three commands in turn, so that a drift of the machine meets all of them; compare medians."""
    commands = {
        "import click": [sys.executable, "-c", "import click"],
        "moco --help": [sys.executable, "-c", MOCO, "--help"],
        "moco list": [sys.executable, "-c", MOCO, "list"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - begin)
    base = statistics.median(seconds["import click"])
    for name in ("moco --help", "moco list"):
        print(f"{name}: {statistics.median(seconds[name]) / base:.2f} x import click")


class Free(Engine):
    """Answers at once."""

    def serve(self, model, inbox):
        while calls := inbox.take(256):
            inbox.resolve([(c, Generation(text="The answer is 4.", usage=Usage(20, 6))) for c in calls])


async def ask_all(path: Path, count: int, models: list[Model]) -> float:
    """Ask every model every question, a method's way; return the seconds."""
    cache = Cache(path)

    async def respond(question: Question, context: Context) -> str:
        replies = await context.gather(context.generate(m, question) for m in models)
        return replies[0].text

    # questions come from a generator of bounded chunks, so that the benchmark itself does not hold them all
    async with Runtime(cache) as runtime:
        begin = time.process_time()  # other work on the machine does not count
        for start in range(0, count, 2000):
            session = runtime.state(None)
            items = [Question(id=str(i), prompt=f"What is {i} + {i}?") for i in range(start, min(start + 2000, count))]
            await session.context("respond").each(items, respond)
        seconds = time.process_time() - begin
    cache.close()
    return seconds


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def calls() -> None:
    models = [Model(name=n, fingerprint=n, capabilities={"generate"}, engine=Free()) for n in "abcde"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calls.sqlite"
        asyncio.run(ask_all(path, 2000, models))
        first = peak()
        seconds = asyncio.run(ask_all(path, 20_000, models))
        print(
            f"computed calls: {1000 * seconds / 100_000:.3f} ms of processor time each (100,000, 10 % of them cached)"
        )
        print(f"peak memory after 100,000 calls: {peak() / first:.2f} x that after 10,000")
        seconds = asyncio.run(ask_all(path, 20_000, models))
        print(f"cached calls: 100,000 replayed in {seconds:.1f} s")
        print(f"peak memory after the replay: {peak() / first:.2f} x")


class Slow(Engine):
    """Needs a while to take a model up, and for every batch of 16."""

    def __init__(self) -> None:
        self.resident: dict[str, str] = {}
        self.swaps = 0

    def serve(self, model, inbox):
        if self.resident.get(model.device_group) != model.name:
            self.swaps += 1
            self.resident[model.device_group] = model.name
            time.sleep(0.3)
        while batch := inbox.take(16):
            time.sleep(0.1)
            inbox.resolve([(c, Generation(text="4", usage=Usage(20, 6))) for c in batch])


@attrs.frozen(kw_only=True)
class SlowOptions:
    devices: int = option(3, ge=1)
    models: int = option(3, ge=1)


class SlowPool(PoolSource):
    Options = SlowOptions

    def models(self):
        engine = Slow()
        return [
            Model(name=f"m{i}", fingerprint=f"slow{i}", capabilities={"generate"}, engine=engine,
                  device_group=f"device{i % self.options.devices}")
            for i in range(self.options.models)
        ]  # fmt: skip


class Sums(Dataset):
    facts = DatasetFacts(title="Sums", metric="always")

    def examples(self, split):
        for i in range(400):
            yield Example(question=Question(id=f"{split}{i}", prompt=f"{split}: What is {i} + {i}?"), references=("4",))


class Always(Metric):
    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")

    def score(self, example, reply, context):
        return Score(value=1.0, answer=self.read(example.question, reply.text))


def grid() -> None:
    """Time grids of single models on a scripted engine with real delays."""
    for cls in (SlowPool, Sums, Always):
        moco_core.register(cls)

    def seconds(parallel: int, **pool: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            moco_core.run(
                pool={"name": "slow_pool", **pool}, dataset="sums", dev=100, out=os.path.join(folder, "runs"),
                parallel=parallel, cache=Path(folder) / "calls.sqlite",
            )  # fmt: skip
            return time.perf_counter() - begin

    one, first = seconds(1, models=1), peak()
    print(f"three models on three devices: {seconds(4, models=3) / one:.2f} x one of them")
    print(f"peak memory of three runs at once: {peak() / first:.2f} x that of one")
    after = seconds(1, models=3, devices=1)
    print(f"three models on one device: {seconds(4, models=3, devices=1) / after:.2f} x one after the other")


if __name__ == "__main__":
    startup()
    grid()
    calls()
