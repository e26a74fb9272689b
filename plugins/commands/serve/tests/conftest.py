"""A server in a thread of the test: it ends with the test, and with the process of the tests if that is killed."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from moco_command_serve.app import make_app
from moco_command_serve.limits import Limits
from moco_command_serve.server import listen, make_server
from moco_command_serve.service import Service
from moco_core import Method, NoOptions, Plugin, Pool, Question, Sampling
from moco_core.api import fitted
from moco_core.catalogue import installed
from moco_core.config import plugin_of
from moco_core.runtime.systems import OpenSystem
from moco_core.types import digest
from moco_toolkit_authoring.harness import as_plugin
from moco_toolkit_authoring.scripted import ScriptedCall, ScriptedEngine, ScriptedPool
from moco_toolkit_authoring.toy import LastWord

LAST_WORD = Plugin(kind="metric", name="last_word", given={}, options=NoOptions(), cls=LastWord)


def say(call: ScriptedCall) -> str:
    """A text that the model, what it reads and its seed decide: the answer is its last word."""
    number = int(digest(call.model, call.transcript, call.seed)[:4], 16) % 3
    return f"I am {call.model} and I say ünïcode 🙂 {number}"


@attrs.define
class Running:
    """A server that runs: where it is, what answers, and its loop."""

    url: str
    service: Service
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].split("/")[0])

    def post(self, path: str, body: Any, **how: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/{path}", json=body, timeout=60, **how)

    def chat(self, text: str, model: str = "", **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return self.post("chat/completions", {"model": model or self.service.name, "messages": messages, **more})


@contextmanager
def running(
    opened: OpenSystem, *, key: str = "", known: Mapping[str, Any] | None = None, **how: Any
) -> Iterator[Running]:
    """Serve a system until the block ends."""
    name = how.pop("name", "system")
    kind, limits = how.pop("kind", "text"), Limits(**how)
    ready, found = threading.Event(), list[Any]()

    async def work() -> None:
        async with opened as system:
            service = Service(system, name=name, limits=limits, kind=kind)
            server = make_server(make_app(service, key=key, known=known), limits)
            with listen("127.0.0.1", 0) as sock:
                url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
                found.extend([Running(url, service, asyncio.get_running_loop()), server])
                ready.set()
                await server.serve([sock])

    def main() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            found.append(error)
            ready.set()

    thread = threading.Thread(target=main, daemon=True, name="moco-serve")
    thread.start()
    assert ready.wait(30)
    if isinstance(found[-1], BaseException):
        raise found[-1]
    try:
        yield found[0]
    finally:
        found[1].should_exit = found[1].force_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    """Return a function that serves a method over scripted models: ``serve("majority_vote", {"a": say, ...})``."""

    def start(method: Any, scripts: Any = ("a", "b", "c"), **how: Any) -> Any:
        source = scripts if isinstance(scripts, (ScriptedPool, Pool)) else ScriptedPool(_scripts(scripts))
        opened = open_system(method, source, tmp_path, sampling=how.pop("sampling", Sampling(max_new_tokens=64)))
        return running(opened, **how)

    return start


def _scripts(scripts: Any) -> Any:
    return scripts if isinstance(scripts, dict) else dict.fromkeys(scripts, say)


def open_system(method: Any, source: Any, folder: Path, *, sampling: Sampling, seed: int = 0) -> OpenSystem:
    """Return a system that is fitted when it is entered, over scripted models."""
    if isinstance(method, type) and issubclass(method, Method):
        plugin = Plugin(kind="method", name="own", given={}, options=method.Options(), cls=method)
    else:
        plugin = plugin_of(installed(), "method", method, "method")
    cache = folder / f"calls-{len(list(folder.iterdir()))}.sqlite"
    return fitted(plugin, as_plugin(source), LAST_WORD, cache=cache, sampling=sampling, seed=seed)


def answers(opened: OpenSystem, questions: list[Question]) -> list[Any]:
    """Ask a system directly."""

    async def work() -> list[Any]:
        async with opened as system:
            return await system.ask_many(questions)

    return asyncio.run(work())


def events(text: str) -> list[Any]:
    """Return the events of a stream, comments as texts."""
    out: list[Any] = []
    for block in text.split("\n\n"):
        if block.startswith("data: "):
            out.append("DONE" if block == "data: [DONE]" else json.loads(block[6:]))
        elif block:
            out.append(block)
    return out


class Telling(ScriptedEngine):
    """Tells what it writes letter by letter, and waits for the server to send it."""

    lies = False

    def answer(self, call: Any) -> Any:
        result = super().answer(call)
        for end in range(1, len(result.text)) if call.tell is not None else ():
            call.tell(result.text[:end])
            time.sleep(0.005)
        if self.lies and call.tell is not None:
            call.tell("something else, and longer than it is")
        return result


def grown(got: list[Any], index: int = 0) -> list[str]:
    """The pieces in which one reply of a stream came."""
    choices = [e["choices"][0] for e in got if isinstance(e, dict) and e.get("choices")]
    return [c["delta"]["content"] for c in choices if c["index"] == index and "content" in c["delta"]]
