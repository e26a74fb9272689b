"""The endpoint as an ASGI application: its paths, who may come in, and what happens when a client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from moco_command_serve import replies
from moco_command_serve.asking import Ask, read_ask
from moco_command_serve.card import cards
from moco_command_serve.growing import Growing
from moco_command_serve.limits import Refused
from moco_command_serve.metrics import Metrics
from moco_command_serve.service import Outcome, Service

__all__ = ["make_app"]

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def make_app(service: Service, *, key: str = "", known: Mapping[str, Any] | None = None) -> ASGIApp:
    """Return the application. With a ``key`` everybody has to show it; without one, only this machine is let in.

    ``known`` is what the card of the system tells beside what the system itself says.
    """
    metrics = Metrics(service)
    listed = cards(service, known or {})

    async def health(request: Request) -> Response:
        if service.broken:
            return _json({"status": "broken", "reason": service.broken}, 503)
        return _json({"status": "ok", "model": service.name})

    async def models(request: Request) -> Response:
        return _json({"object": "list", "data": list(listed.values())})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        service.find(name)
        return _json(listed[name])

    async def replay(request: Request) -> Response:
        found = service.replays.get(request.path_params["id"])
        if found is None:
            off = "" if service.limits.replays else "; transcripts are kept with --replays N"
            raise Refused(404, f"no such replay{off}", code="not_found")
        return _json(found)

    async def told(request: Request) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/health", health),
        Route("/metrics", told),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
        Route("/v1/replays/{id}", replay),
        Route("/v1/chat/completions", Answering(service, metrics, chat=True), methods=["POST"]),
        Route("/v1/completions", Answering(service, metrics, chat=False), methods=["POST"]),
        Route("/v1/decide", Deciding(service, metrics), methods=["POST"]),
    ]
    handlers: Any = {Refused: _refused, HTTPException: _http}
    return Door(Starlette(routes=routes, exception_handlers=handlers), key)


def _json(value: Any, status: int = 200) -> Response:
    return Response(replies.dumps(value), status, media_type="application/json")


async def _refused(request: Request, error: Refused) -> Response:
    return _error(error)


async def _http(request: Request, error: HTTPException) -> Response:
    return _error(Refused(error.status_code, error.detail, code="not_found" if error.status_code == 404 else None))


def _error(error: Refused) -> Response:
    response = _json(error.body, error.status)
    if error.wait is not None:
        response.headers["retry-after"] = str(error.wait)
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


class Door:
    """Lets in who shows the key; without a key, whoever speaks to this machine by one of its own names (a page in a browser
    that was lured here by another name does not)."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self.mark = _digest(key) if key else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        given = dict(scope["headers"])
        problem = self._problem(scope["path"], given)
        await (self.app if problem is None else _error(problem))(scope, receive, send)

    def _problem(self, path: str, given: Mapping[bytes, bytes]) -> Refused | None:
        if path == "/health":
            return None
        if self.mark:
            kind, _, shown = given.get(b"authorization", b"").partition(b" ")
            if kind.lower() == b"bearer" and hmac.compare_digest(_digest(shown.strip()), self.mark):
                return None
            return Refused(401, "a valid key is required: Authorization: Bearer KEY", code="invalid_api_key")
        host = given.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return None if name in _LOOPBACK else Refused(403, "this server answers its own machine only", code="forbidden")


def _digest(text: str | bytes) -> bytes:
    """Digests are of one length and are compared in constant time, whatever was shown."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text).digest()


class Posted(ABC):
    """An endpoint that reads JSON and works on it while it watches whether the client is still there."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self.service, self.metrics = service, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service
        response: Response | None = None
        try:
            given = await self._body(scope, receive)
            if service.active >= service.limits.requests:
                raise Refused(429, "the server is busy; try again", code="busy", wait=1)
            service.active += 1
            try:
                response = await self._work(given, scope, receive, send)
            finally:
                service.active -= 1
        except Refused as error:
            response = _error(error)
        except ConnectionError:
            return
        if response is not None:
            self.metrics.answered(response.status_code)
            await response(scope, receive, send)

    async def _body(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/json":
            raise Refused(415, "the body has to be JSON: Content-Type: application/json")
        limit, size, parts = self.service.limits.body, 0, list[bytes]()
        too_large = Refused(413, f"the body is larger than {limit} bytes", code="too_large")
        told = headers.get(b"content-length", b"0")
        if told.isdigit() and int(told) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self.service.limits.patience):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise Refused(408, "the body did not arrive in time") from None
        try:
            body = json.loads(b"".join(parts))
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not valid JSON", code="invalid_json") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body has to be a JSON object", code="invalid_json")
        return body

    @abstractmethod
    async def _work(self, given: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> Response | None:
        """Do what the request asks; return its response, or None if it was sent."""


class Deciding(Posted):
    """``POST /v1/decide``: whom a router would choose, without asking that model."""

    async def _work(self, given: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> Response | None:
        service = self.service
        ask = read_ask(given, chat=True, kind=service.kind, limits=service.limits)
        if service.find(ask.model or service.name) is not None:
            raise Refused(400, "model: a member decides nothing", param="model")
        async with _while_there(service.decide(ask.question), receive) as task:
            await task
        chosen, meta, spent = task.result()
        return _json({"object": "decision", "model": chosen, "scores": dict(meta), "usage": replies.spent_rows(spent)})


class Answering(Posted):
    """``POST /v1/chat/completions`` and ``/v1/completions``."""

    def __init__(self, service: Service, metrics: Metrics, *, chat: bool) -> None:
        super().__init__(service, metrics)
        self.chat = chat

    async def _work(self, given: dict[str, Any], scope: Scope, receive: Receive, send: Send) -> Response | None:
        service = self.service
        ask = read_ask(given, chat=self.chat, kind=service.kind, limits=service.limits)
        growing = Growing(ask.n) if ask.stream else None
        async with _while_there(service.answer(ask, growing), receive) as task:
            if growing is not None:
                return await self._stream(ask, task, growing, send)
            outcome = await task
        response = _json(replies.body(ask, outcome))
        response.raw_headers += self._headers(ask, outcome)
        return response

    def _headers(self, ask: Ask, outcome: Outcome | None) -> list[tuple[bytes, bytes]]:
        kept = ""
        if outcome is not None:
            self.metrics.spent(outcome)
            kept = self.service.keep(ask, outcome, replies.call_row)
        models = list(self.service.members) if ask.model == self.service.name else [ask.model]
        return replies.headers(self.service.method, models, outcome, kept)

    async def _stream(self, ask: Ask, task: asyncio.Task[Outcome], growing: Growing, send: Send) -> Response | None:
        """Send events. What goes wrong before the first word, or the first comment, is still an ordinary error."""
        await self._wait(task, growing)
        if task.done() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]
        own = self._headers(ask, task.result() if task.done() else None)
        head = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"), *own]
        await send({"type": "http.response.start", "status": 200, "headers": head})

        async def say(data: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        chunks = replies.Chunks(ask, growing.id)
        while not task.done():
            new = growing.take()
            await say(b"".join(chunks.piece(i, text, first=first) for i, text, first in new) or b": working\n\n")
            await self._wait(task, growing)
        try:
            outcome = task.result()
        except Refused as error:
            self.metrics.answered(error.status)
            await say(replies.event(error.body) + replies.DONE, more=False)
            return None
        if not any(name == b"x-moco-seconds" for name, _ in own):
            self._headers(ask, outcome)
        self.metrics.answered(200)
        for data in chunks.end(outcome, growing.sent):
            await say(data, more=data is not replies.DONE)
        return None

    async def _wait(self, task: asyncio.Task[Outcome], growing: Growing) -> None:
        """Wait until there is an answer, or more of one, or the next comment is due."""
        more = asyncio.ensure_future(growing.changed.wait())
        try:
            await asyncio.wait(
                (task, more), timeout=self.service.limits.keep_alive, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            more.cancel()


@contextlib.asynccontextmanager
async def _while_there(work: Any, receive: Receive) -> AsyncIterator[asyncio.Task[Any]]:
    """Do work in a task that is cancelled when the client goes away, or nobody cares any more. Raises ConnectionError."""
    task = asyncio.ensure_future(work)

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        task.cancel()

    watch = asyncio.ensure_future(gone())
    try:
        yield task
    except asyncio.CancelledError:
        if watch.done() and task.cancelled():
            raise ConnectionError from None
        raise
    finally:
        for each in (watch, task):
            each.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)
