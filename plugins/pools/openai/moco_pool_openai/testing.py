"""A small OpenAI-compatible server on loopback, for tests: deterministic replies, and faults on demand.

::

    with StubServer() as server:
        pool = OpenAIPool(Options(models=("alpha",), base_url=server.url))
        server.fault = lambda request: Fault(status=429, headers={"retry-after": "0"}) if request.number % 2 else None
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

__all__ = ["Fault", "Request", "StubServer"]


@attrs.frozen(kw_only=True)
class Request:
    """One request as the server got it. ``number`` counts all requests but lists of models, from 1."""

    number: int
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    query: str = ""

    @property
    def prompt(self) -> str:
        """What was asked last."""
        if "messages" in self.body:
            return str(self.body["messages"][-1]["content"])
        return str(self.body.get("prompt", self.body.get("input", "")))


@attrs.frozen(kw_only=True)
class Fault:
    """What goes wrong with one request.

    ``status`` answers with an error; ``silence`` waits that many seconds before the first byte, ``stall`` in the middle of
    the body; ``cut`` closes the connection there, ``drop`` before any byte; ``body`` replaces the reply's text.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    silence: float = 0.0
    stall: float = 0.0
    cut: bool = False
    drop: bool = False
    body: str | None = None


def _default_reply(request: Request) -> str:
    """A text that depends on what was asked, and on the seed of sampled requests."""
    seed = request.body.get("seed") if request.body.get("temperature") else None
    mark = hashlib.sha256(json.dumps([request.body.get("model"), request.prompt, seed]).encode()).hexdigest()
    return f"I say {int(mark[:4], 16) % 50} of {mark[4:8]}. The answer is {int(mark[8:12], 16) % 20}."


class StubServer:
    """Serves ``models`` at :attr:`url` until it is stopped. ``requests`` holds what it was asked, ``most`` how many it
    worked on at once at most. ``reply`` writes the replies; ``fault`` says what goes wrong with a request, ``list_fault`` with
    the list of models that is asked for the n-th time; ``latency`` is seconds per request, ``pace`` per word of a reply that
    is sent as a stream; with ``key`` everybody else is refused.
    """

    def __init__(
        self,
        models: Sequence[str] = ("alpha", "beta", "gamma"),
        *,
        reply: Callable[[Request], str] = _default_reply,
        fault: Callable[[Request], Fault | None] = lambda request: None,
        list_fault: Callable[[int], Fault | None] = lambda number: None,
        latency: float = 0.0,
        pace: float = 0.0,
        key: str = "",
        owner: str = "stub",
        logprobs: bool = True,
        reasoning: str = "",
    ) -> None:
        self.models, self.reply, self.latency = list(models), reply, latency
        self.pace = pace
        self.fault, self.list_fault = fault, list_fault
        self.key, self.owner, self.logprobs, self.reasoning = key, owner, logprobs, reasoning
        self.requests: list[Request] = []
        self.lists = 0
        self.most = 0
        self.port = 0
        self._active = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------- life

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> StubServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after a stop, on the same port again."""
        ready = threading.Event()

        def work() -> None:
            asyncio.run(self._serve(ready))

        self._thread = threading.Thread(target=work, daemon=True, name="stub-server")
        self._thread.start()
        if not ready.wait(30):
            raise TimeoutError("the stub server did not start")

    def stop(self) -> None:
        """Close everything at once, in the middle of whatever is under way."""
        if self._loop is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._halt.set)
            self._thread.join(30)
        self._loop = self._thread = None

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._halt = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                    while await self._one(reader, writer):
                        pass
            finally:
                tasks.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(connection, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._halt.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---------------------------------------------------------------- one request

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines) if k}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        path, _, query = first.split()[1].partition("?")
        body = json.loads(raw) if raw else {}
        self._active += 1
        self.most = max(self.most, self._active)
        try:
            request = Request(number=len(self.requests) + 1, path=path, body=body, headers=headers, query=query)
            return await self._answer(request, writer)
        finally:
            self._active -= 1

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        if request.path.endswith("/models"):
            self.lists += 1
            fault = self.list_fault(self.lists) or Fault()
            status, out = self._list(request.headers)
        else:
            self.requests.append(request)
            fault = self.fault(request) or Fault()
            await asyncio.sleep(fault.silence or self.latency)
            status, out = self._result(request, request.headers)
        if fault.drop:
            return False
        if fault.status != 200:
            status, out = fault.status, {"error": {"message": f"injected failure {fault.status}", "code": None}}
        parts: Sequence[str] = [json.dumps(out)] if fault.body is None else [fault.body]
        if status == 200 and fault.body is None and request.body.get("stream"):
            parts = _events(out)
        data = "".join(parts).encode()
        extra = "".join(f"{k}: {v}\r\n" for k, v in fault.headers.items())
        writer.write(
            f"HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n{extra}\r\n".encode()
        )
        if fault.cut or fault.stall:
            writer.write(data[: len(data) // 2])
            await writer.drain()
            await asyncio.sleep(fault.stall)
            data = data[len(data) // 2 :]
        if fault.cut:
            return False
        if self.pace and len(parts) > 1:
            for part in parts:
                writer.write(part.encode())
                await writer.drain()
                await asyncio.sleep(self.pace)
            return True
        writer.write(data)
        await writer.drain()
        return True

    def _refused(self, headers: Mapping[str, str]) -> bool:
        return bool(self.key) and headers.get("authorization") != f"Bearer {self.key}"

    def _list(self, headers: Mapping[str, str]) -> tuple[int, Any]:
        if self._refused(headers):
            return 401, {"error": {"message": f"wrong key: {headers.get('authorization')}"}}
        return 200, {
            "object": "list",
            "data": [{"id": m, "object": "model", "owned_by": self.owner} for m in self.models],
        }

    def _result(self, request: Request, headers: Mapping[str, str]) -> tuple[int, Any]:
        if self._refused(headers):  # servers exist that repeat the key in their message
            return 401, {"error": {"message": f"wrong key: {headers.get('authorization')}"}}
        if request.body.get("model") not in self.models:
            return 404, {"error": {"message": f"no model {request.body.get('model')!r}"}}
        if request.body.get("logprobs") and not self.logprobs:
            return 400, {"error": {"message": "logprobs are not supported"}}
        if request.path.endswith("/embeddings"):
            return 200, _embeddings(request)
        if request.path.endswith("/pooling"):
            return 200, _reward(request)
        return 200, self._completion(request)

    def _completion(self, request: Request) -> Any:
        body = request.body
        chat = request.path.endswith("/chat/completions")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        text, finish = self.reply(request), "stop"
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        places = [at for s in stops if (at := text.find(s)) >= 0]
        if places:
            text = text[: min(places)]
        tokens = [w if i == 0 else " " + w for i, w in enumerate(text.split(" "))] if text else []
        if len(tokens) > limit:
            tokens, finish = tokens[:limit], "length"
        text = "".join(tokens)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        scores = [-(int(hashlib.sha256(t.encode()).hexdigest()[:4], 16) / 65536) - 0.01 for t in tokens]
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
            if self.reasoning:
                choice["message"]["reasoning_content"] = self.reasoning
            if body.get("logprobs"):
                rows = [
                    {"token": t, "bytes": list(t.encode()), "logprob": p, "top_logprobs": []}
                    for t, p in zip(tokens, scores, strict=True)
                ]
                choice["logprobs"] = {"content": rows}
        else:
            choice["text"] = text
            if body.get("logprobs"):
                choice["logprobs"] = {
                    "tokens": tokens,
                    "token_logprobs": scores,
                    "top_logprobs": None,
                    "text_offset": [],
                }
        read = sum(len(m["content"].split()) for m in body["messages"]) if chat else len(request.prompt.split())
        return {
            "id": "stub",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": read or 1, "completion_tokens": len(tokens), "total_tokens": read + len(tokens)},
        }

    def prompts(self) -> Counter[str]:
        """How often each thing was asked, failed requests included."""
        return Counter(r.prompt for r in self.requests)


def _events(completion: Mapping[str, Any]) -> list[str]:
    """Return a completion as the events of a stream: a word at a time, how it ended, what was used."""
    (choice,) = completion["choices"]
    message = choice.get("message")
    text, logprobs = choice["text"] if message is None else message["content"], choice.get("logprobs")
    words = [w if i == 0 else " " + w for i, w in enumerate(text.split(" "))]
    choices: list[dict[str, Any]] = []
    if message is not None and "reasoning_content" in message:
        choices.append({"delta": {"reasoning_content": message["reasoning_content"]}})
    for i, word in enumerate(words):
        said: dict[str, Any] = {"text": word} if message is None else {"delta": {"content": word}}
        if logprobs:
            said["logprobs"] = {name: rows[i : i + 1] for name, rows in logprobs.items() if rows}
        choices.append(said)
    choices.append({"delta": {}, "finish_reason": choice["finish_reason"]})
    head = {k: v for k, v in completion.items() if k not in ("choices", "usage")}
    events = [{**head, "choices": [{"index": 0, "finish_reason": None, **c}]} for c in choices]
    events.append({**head, "choices": [], "usage": completion["usage"]})
    return [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]


def _reward(request: Request) -> Any:
    said = "\x1f".join(f"{m['role']}: {m['content']}" for m in request.body["messages"])
    logit = int(hashlib.sha256(said.encode()).hexdigest()[:4], 16) / 6553.6 - 5
    if request.body.get("use_activation", True):
        logit = 1 / (1 + math.exp(-logit))
    return {
        "object": "list",
        "model": request.body["model"],
        "data": [{"index": 0, "object": "pooling", "data": [logit]}],
        "usage": {"prompt_tokens": len(said.split()), "total_tokens": len(said.split())},
    }


def _embeddings(request: Request) -> Any:
    texts = request.body["input"]
    rows = []
    for index, text in enumerate(texts):
        mark = hashlib.sha256(text.encode()).digest()
        rows.append({"index": index, "object": "embedding", "embedding": [b / 255 for b in mark[:8]]})
    return {
        "object": "list",
        "model": request.body["model"],
        "data": rows[::-1],  # order is told by the index alone
        "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
    }
