"""What a Ray cluster costs and brings: a call through an actor, a grid on two nodes, the driver's memory and its limit.

All nodes are of this machine. Times are of waiting, not of work, where that is to be measured: a scripted engine takes as long
for a batch as a model would, and no CPU. ``python tests/benchmarks/bench_ray.py [PART ...]``, parts: call, grid, memory, limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}

from moco_core import PoolSource, Question, Sampling
from moco_core.catalogue import installed
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_pool_ray.options import Options
from moco_pool_ray.pool import RayPool
from moco_toolkit_authoring import open_state
from moco_toolkit_ray import connect
from moco_toolkit_ray.testing import Nodes

ROOT = Path(__file__).resolve().parents[2]
TIMED = """
import time
import attrs
from moco_core import Generation, PoolSource, Usage, option
from moco_toolkit_authoring import ScriptedPool
from moco_toolkit_authoring.scripted import ScriptedEngine


@attrs.frozen(kw_only=True)
class Options:
    step: float = option(0.0, help="seconds of a token, for a whole batch")
    tokens: int = option(200)
    batch: int = option(64)


class Timed(ScriptedEngine):
    def __init__(self, options):
        super().__init__()
        self.options = options
        self.reply = Generation(text="word " * options.tokens, token_ids=tuple(range(options.tokens)),
                                token_logprobs=tuple(-0.1 for _ in range(options.tokens)), usage=Usage(300, options.tokens))

    def serve(self, model, inbox):
        o = self.options
        while not inbox.cancelled and (calls := inbox.take(o.batch)):
            time.sleep(o.step * o.tokens)
            inbox.resolve([(c, self.reply) for c in calls])


class TimedPool(PoolSource):
    "Models that take their time and no CPU."

    Options = Options

    def models(self):
        if not hasattr(self, "known"):
            self.known = tuple(ScriptedPool({"timed": ""}, engine=Timed(self.options)).pool)
        return self.known
"""


def pools(address: str, **given: Any) -> tuple[PoolSource[Any], PoolSource[Any]]:
    """Return the same models in this process and on an actor."""
    options = build(Options, {"pool": given, "address": address, "memory": 0.5}, plugins=installed())
    return options.pool.make(), RayPool(options)


async def ask(source: PoolSource[Any], cache: Cache, count: int, sampling: Sampling, start: int = 0) -> float:
    """Return the seconds that ``count`` prompts of 300 words take, once the models are open."""
    model = source.models()[0]
    async with open_state(cache=cache, sampling=sampling, in_flight=count) as state:
        context = state.context("fit")
        await context.generate(model, "open")
        started = time.monotonic()
        words = "word " * 300

        async def one(number: int) -> None:
            await state.context("respond").generate(model, f"{number} {words}")

        await context.gather(one(i) for i in range(start, start + count))
        return time.monotonic() - started


def cost_of_a_call(address: str, folder: Path) -> dict[str, Any]:
    """Replies of 200 tokens and of 20, in batches of 64 at 10 ms a token, and the tiny pool: in process and on an actor."""
    out: dict[str, Any] = {}
    settings: dict[str, tuple[dict[str, Any], int, Sampling]] = {
        "200 tokens, 10 ms each, 256 calls": ({"name": "timed_pool", "step": 0.01}, 256, Sampling()),
        "20 tokens, 10 ms each, 512 calls": ({"name": "timed_pool", "step": 0.01, "tokens": 20}, 512, Sampling()),
        "tiny pool, at most 48 tokens, 64 calls": (
            {"name": "tiny", "models": ["generalist"], "max_batch": 32},
            64,
            Sampling(temperature=1.5, max_new_tokens=48),
        ),
    }
    for name, (given, count, sampling) in settings.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(2):
            for place, source in enumerate(pools(address, **given)):
                cache = Cache(folder / f"{len(out)}-{turn}-{place}.sqlite")
                times[place].append(asyncio.run(ask(source, cache, count, sampling)))
                cache.close()
        here, there = (min(t) for t in times)
        out[name] = {"in process": here, "actor": there, "ratio": there / here}
    return out


def grid(address: str, folder: Path, name: str, *more: str) -> tuple[float, float, float]:
    """Return the seconds from the beginning of a grid's first run to the end of its last, and those before and after."""
    command = [sys.executable, "-m", "moco_core", "bench", "--method", "majority_vote", "-d", "skills"]
    command += ["--plugin", str(folder / "timed.py"), "-o", f"executor={{name: ray, address: '{address}'}}", *more]
    command += ["-o", "baselines=false", "-o", "sampling.temperature=1.0", "-o", "sampling.max_new_tokens=32"]
    command += ["--out", str(folder / name), "--cache", str(folder / f"{name}.sqlite"), "--json"]
    started = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ended = time.time()
    runs = [json.loads(p.read_text()) for p in (folder / name).glob("*/run.json")]
    first, last = min(r["started"] for r in runs), max(r["updated"] for r in runs)
    return last - first, first - started, ended - last


def two_nodes_against_one(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    timed = ("-p", "timed_pool", "-o", "pool.batch=8", "-o", "pool.step=0.01")
    grids = {
        "8 runs of a scripted engine": (*timed, "--dev", "0", "--test", "48", "-o", "seeds=[0,1,2,3,4,5,6,7]"),
        "4 runs of the tiny pool": ("-p", "tiny", "--dev", "0", "--test", "100", "-o", "seeds=[0,1,2,3]"),
    }
    for name, given in grids.items():
        seconds = []
        for count in (1, 2):
            with Nodes(*[{"cpus": 1}] * count) as nodes:
                seconds.append(grid(nodes.address, folder, f"{len(out)}-{count}", *given))
        one, two = seconds
        out[name] = {"runs, before them, after them": seconds, "ratio": one[0] / two[0], "of commands": sum(one) / sum(two)}
        show("so far", out)
    return out


def resident() -> float:
    """Return the MiB that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def memory_and_limit(address: str, folder: Path) -> dict[str, Any]:
    """Calls of an engine that costs nothing: how many a second, and what is left in memory after how many."""
    out: dict[str, Any] = {}
    for place, where in enumerate(("in process", "actor")):
        source = pools(address, name="timed_pool")[place]
        cache = Cache(folder / f"limit-{place}.sqlite")
        asyncio.run(ask(source, cache, 500, Sampling()))
        grown, rates, start = {}, [], 1000
        for count in (1000, 4000, 15000, 20000, 40000):
            seconds = asyncio.run(waves(source, cache, count, start))
            start += count
            rates.append(round(count / seconds))
            grown[start - 1000] = round(resident(), 1)
        cache.close()
        size = (folder / f"limit-{place}.sqlite").stat().st_size / start
        out[where] = {"calls a second": rates, "MiB after": grown, "bytes of a call in the cache": round(size)}
    return out


class Questions(Sequence[Question]):
    """Questions of 300 words that nobody keeps."""

    def __init__(self, start: int, count: int) -> None:
        self.numbers = range(start, start + count)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        number = self.numbers[index]
        return Question(id=str(number), prompt=f"{number} {'word ' * 300}")


async def waves(source: PoolSource[Any], cache: Cache, count: int, start: int) -> float:
    """Ask ``count`` prompts, 500 at once, as a run does that has 500 questions in flight."""
    model = source.models()[0]
    async with open_state(cache=cache, in_flight=500, sampling=Sampling()) as state:
        root = state.context("respond")
        await root.generate(model, "open")
        started = time.monotonic()

        async def one(question: Question, context: Any) -> None:
            await context.generate(model, question)

        await root.each(Questions(start, count), one)
        return time.monotonic() - started


def limit_of_the_keeper(address: str, folder: Path) -> dict[str, Any]:
    """Results a second that one run stores and finds through the keeper of a grid's cache, 64 at once."""
    import ray

    from moco_core.runtime.cache import KeyParts, encode_result
    from moco_core.types import Generation, Usage
    from moco_executor_ray.keeper import Keeper, KeptCache

    connection = connect(address)
    keeper = ray.remote(Keeper).options(num_cpus=0).remote(str(folder / "kept.sqlite"))
    cache = KeptCache(folder / "kept.sqlite", keeper)
    reply = Generation(
        text="word " * 200, token_ids=tuple(range(200)), token_logprobs=(-0.1,) * 200, usage=Usage(300, 200)
    )
    rows = [(KeyParts("m", "generate", f"{i:032x}", "{}", ""), encode_result(reply)) for i in range(6400)]
    cache.put_many([(p.key(), p, v, 0.1) for p, v in rows[:64]])
    started = time.monotonic()
    for at in range(64, 6400, 64):
        cache.put_many([(p.key(), p, v, 0.1) for p, v in rows[at : at + 64]])
    stored = time.monotonic() - started
    started = time.monotonic()
    for at in range(0, 6400, 64):
        assert len(cache.get_many([p.key() for p, _ in rows[at : at + 64]])) == 64
    found = time.monotonic() - started
    connection.close()
    return {"stored a second": round(6336 / stored), "found a second": round(6400 / found)}


def show(part: str, found: dict[str, Any]) -> None:
    print(f"{part}: {json.dumps(found, indent=1)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["call", "grid", "memory", "limit"])
    parts = parser.parse_args().parts
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "timed.py").write_text(TIMED)
        installed().register_file(folder / "timed.py")
        if {"call", "memory", "limit"} & set(parts):
            with Nodes({"cpus": 2}) as nodes:
                if "memory" in parts:
                    show("an engine that costs nothing", memory_and_limit(nodes.address, folder))
                if "limit" in parts:
                    show("the cache of a grid", limit_of_the_keeper(nodes.address, folder))
                if "call" in parts:
                    show("a call", cost_of_a_call(nodes.address, folder))
        if "grid" in parts:
            show("a grid", two_nodes_against_one(folder))


if __name__ == "__main__":
    main()
