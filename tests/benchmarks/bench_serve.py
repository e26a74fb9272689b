"""What serving costs: throughput of 64 clients on loopback beside asking directly, latencies, replies compared, memory.

The bound that the project keeps to: a served system answers at least 0.9 times as many questions per second as the same
system asked directly (what `moco run` does), with the same replies; memory does not grow with the number of requests.

    python tests/benchmarks/bench_serve.py [QUESTIONS] [--memory REQUESTS]
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from moco_core.api import fit
from moco_core.catalogue import installed
from moco_core.config import plugin_of

CLIENTS = 64
METHOD = {"name": "majority_vote", "tie": "order"}


def questions(count):
    data = plugin_of(installed(), "dataset", {"name": "skills", "test_size": count}, "dataset")
    return [e.question for e in data.make().examples("test")][:count]


async def directly(asked, folder):
    """Ask as a run does, with engines that are open; return replies and seconds."""
    opened = fit(method=METHOD, pool="tiny", metric="exact_match", cache=folder / "direct.sqlite")
    async with opened as system:
        await system.ask("Are you there?")
        begin = time.perf_counter()
        replies = await system.ask_many(asked)
        return [r.text for r in replies], time.perf_counter() - begin


@contextlib.contextmanager
def server(folder, *args):
    """Serve in a process of its own; yield it and its port."""
    command = [
        sys.executable,
        "-m",
        "moco_core",
        "serve",
        *args,
        "--cache",
        str(folder / "served.sqlite"),
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"http://127.0.0.1:(\d+)/v1", line):
                yield process, int(found[1])
                break
    finally:
        process.terminate()
        process.communicate()


async def post(reader, writer, body):
    data = json.dumps(body).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    top = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", top)[1])
    reply = json.loads(await reader.readexactly(length))
    assert top.startswith(b"HTTP/1.1 200"), reply
    return reply["choices"][0]["message"]["content"]


def body_of(question):
    own = {"id": question.id, "kind": question.answer_kind, "answer_format": question.answer_format}
    if question.choices:
        own["choices"] = list(question.choices)
    return {"model": "majority_vote", "messages": [{"role": "user", "content": question.prompt}], "moco": own}


async def through(port, asked):
    """Ask through the endpoint, 64 clients at once; return replies, seconds in all and per request."""
    todo, replies, each = list(enumerate(asked))[::-1], [""] * len(asked), []

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while todo:
            index, question = todo.pop()
            begin = time.perf_counter()
            replies[index] = await post(reader, writer, body_of(question))
            each.append(time.perf_counter() - begin)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return replies, time.perf_counter() - begin, each


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def load(count, folder):
    asked = questions(count)
    plain, seconds = asyncio.run(directly(asked, folder))
    with server(folder, "majority_vote", "-p", "tiny", "-o", "metric=exact_match", "-o", "method.tie=order") as (
        _,
        port,
    ):
        asyncio.run(through(port, asked[:1]))
        served, took, each = asyncio.run(through(port, asked[1:]))
        again, cached, quick = asyncio.run(through(port, asked))
    same = plain[1:] == served and plain == again
    cuts = statistics.quantiles(each, n=100)
    fast = statistics.quantiles(quick, n=100)
    print(f"{count} questions, {CLIENTS} clients, tiny pool of 6, majority_vote; replies equal: {same}")
    print(
        f"directly {count / seconds:.1f}/s, served {(count - 1) / took:.1f}/s: {(count - 1) / took * seconds / count:.2f} x"
    )
    print(f"latency p50 {cuts[49]:.2f} s, p95 {cuts[94]:.2f} s")
    print(f"from the cache {count / cached:.0f}/s, p50 {fast[49] * 1000:.0f} ms, p95 {fast[94] * 1000:.0f} ms")
    assert same


def memory(count, folder):
    asked = questions(50)
    with server(folder, "majority_vote", "-p", "tiny", "-o", "metric=exact_match") as (process, port):
        for _ in range(10):
            asyncio.run(through(port, asked))
        before, rounds = resident(process.pid), count // len(asked)
        for i in range(rounds):
            asyncio.run(through(port, asked))
            if (i + 1) % max(1, rounds // 4) == 0:
                print(
                    f"after {(i + 1) * len(asked):6} requests: {resident(process.pid):.0f} MiB (before: {before:.0f})"
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("questions", nargs="?", type=int, default=256)
    parser.add_argument("--memory", type=int, default=0, help="requests for a look at the memory")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        load(given.questions, Path(temporary)) if not given.memory else memory(given.memory, Path(temporary))
