"""Several processes on one cache make every call once; a claim ends with its process."""

import asyncio
import multiprocessing
import os
import signal
import time

import moco_core.runtime.claims as claims
from moco_core.models import Engine, Model
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import Runtime
from moco_core.types import Generation, Question

SPAWN = multiprocessing.get_context("spawn")


class Logged(Engine):
    """Writes a line for every call it answers, slowly."""

    def __init__(self, log, seconds):
        self.log, self.seconds = log, seconds

    def serve(self, model, inbox):
        while calls := inbox.take(1):
            with open(self.log, "a") as file:
                file.write(calls[0].input["messages"][-1][1] + "\n")
            time.sleep(self.seconds)
            inbox.resolve([(calls[0], Generation(text="done"))])


def work(folder, count, seconds, lease=claims.LEASE):
    claims.LEASE = lease

    async def main():
        model = Model(
            name="m", fingerprint="f", capabilities={"generate"}, engine=Logged(folder / f"{os.getpid()}.log", seconds)
        )
        async with Runtime(folder / "c.sqlite") as runtime:
            context = runtime.state(None).context("respond")
            items = [Question(id=str(i), prompt=f"p{i}") for i in range(count)]
            replies = await context.each(items, lambda q, c: c.generate(model, q))
            assert [r.text for r in replies] == ["done"] * count

    asyncio.run(main())


def made(folder):
    return [line for log in folder.glob("*.log") for line in log.read_text().splitlines()]


def test_two_processes_at_once_make_every_call_once(tmp_path):
    workers = [SPAWN.Process(target=work, args=(tmp_path, 40, 0.02)) for _ in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert [w.exitcode for w in workers] == [0, 0]
    assert sorted(made(tmp_path)) == sorted(f"p{i}" for i in range(40))


def test_what_a_killed_process_was_making_is_made_by_the_next(tmp_path):
    first = SPAWN.Process(target=work, args=(tmp_path, 5, 60.0, 1.0))
    first.start()
    while not made(tmp_path):
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    second = SPAWN.Process(target=work, args=(tmp_path, 5, 0.0, 1.0))
    second.start()
    second.join(60)
    assert second.exitcode == 0 and Cache(tmp_path / "c.sqlite").count == 5


def test_a_claim_keeps_others_out_until_it_expires_or_is_given_up(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    keys = [bytes([i]) for i in range(3)]
    assert cache.claim(keys, "one", 100) == set()
    assert cache.claim(keys, "two", 100) == set(keys)
    cache.release(keys[:1], "two")  # not theirs to give up
    cache.release(keys[1:2], "one")
    assert cache.claim(keys, "two", 100) == {keys[0], keys[2]}
    assert cache.claim(keys[:1], "one", -1) == set()  # renewed, and over at once
    assert cache.claim(keys, "two", 100) == {keys[2]}
