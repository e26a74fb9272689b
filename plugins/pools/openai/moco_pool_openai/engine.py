"""The engine: calls become requests, bounded, paced, repeated where that helps, and paid for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from moco_core.errors import CapabilityError, ConfigError, ModelCallError, PromptTooLong
from moco_core.models import CAPABILITIES, Call, Engine
from moco_pool_openai.attempts import Damaged, retry_after, wait_before, worth_retrying
from moco_pool_openai.memory import ServerMemory
from moco_pool_openai.pacing import Ledger
from moco_pool_openai.server import Place, Server, message_of, root_cause
from moco_pool_openai.wire import embeddings, estimate, generation, request_of

if TYPE_CHECKING:
    from moco_pool_openai.pool import Entry, Options

__all__ = ["OpenAIEngine"]

_TOO_LONG = ("context length", "context_length", "maximum context", "context window", "too long", "longer than the maximum")


class OpenAIEngine(Engine):
    """Asks OpenAI-compatible servers. ``attempts`` counts requests that were sent, ``ledger`` what they cost."""

    batches_itself: ClassVar[bool] = True

    def __init__(self, options: Options, memory: ServerMemory) -> None:
        self.options = options
        self.memory = memory
        self.max_in_flight = options.max_in_flight
        self.attempts = 0
        self.ledger = Ledger(options.budget, options.budget_tokens)
        self._servers: dict[Place, Server] = {}
        self._looks: dict[Place, asyncio.Task[None]] = {}
        self._probes: dict[tuple[Place, str], asyncio.Task[bool]] = {}
        self._jitter = random.Random()  # when a request is repeated decides nothing about its reply

    async def close(self) -> None:
        for task in [*self._looks.values(), *self._probes.values()]:
            task.cancel()
        self._looks.clear()
        self._probes.clear()
        servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            await server.close()
        # what was spent stays spent; what waits for money belongs to an event loop that is gone
        spent = self.ledger
        self.ledger = Ledger(self.options.budget, self.options.budget_tokens)
        self.ledger.spend(spent.money, spent.tokens)

    # ---------------------------------------------------------------- before the first call

    async def _ready(self, call: Call) -> Server:
        """Return the server of a call, looked at once. Raises ConfigError with one line."""
        place: Place = call.model.info["place"]
        entry: Entry = call.model.info["entry"]
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = Server(place, self.options, self.memory)
        look = self._looks.get(place)
        if look is None:
            look = self._looks[place] = asyncio.create_task(server.look())
        await asyncio.shield(look)
        server.require(entry.model, call.model.name)
        return server

    async def _logprobs(self, call: Call, server: Server) -> bool:
        """Whether this model's server gives log-probabilities: as declared, as remembered, or found out by one request."""
        entry: Entry = call.model.info["entry"]
        if entry.capabilities is not None:
            return "logprobs" in entry.capabilities
        if self.options.logprobs == "no":
            return False
        key = (server.place, entry.model)
        probe = self._probes.get(key)
        if probe is None:
            probe = self._probes[key] = asyncio.create_task(self._probe(call, server))
        found = await asyncio.shield(probe)
        if self.options.logprobs == "yes" and not found:
            raise ConfigError(
                f"pool openai: {server.place.base_url} gives no log-probabilities for {entry.model!r}; set the pool option "
                "logprobs: no, or use a server that does"
            )
        return found

    async def _probe(self, call: Call, server: Server) -> bool:
        entry: Entry = call.model.info["entry"]
        known = self.memory.recall(server.place.base_url, entry.model).get("logprobs")
        if isinstance(known, bool):
            return known
        given = {"messages": [["user", "Say yes."]]}
        question = Call(call.model, "generate", given, {"max_new_tokens": 1, "temperature": 0.0})
        try:
            reply = await self._generate(question, server, logprobs=True)
        except PromptTooLong:
            raise
        except Refused:
            found = False  # the field itself is refused; what else is wrong shows in the first real request
        else:
            found = bool(reply.token_logprobs)
        self.memory.note(server.place.base_url, entry.model, logprobs=found)
        return found

    # ---------------------------------------------------------------- calls

    async def submit(self, call: Call) -> Any:
        """Answer one generate or embed call.

        Raises ModelCallError for a call that failed for good, ConfigError if its server cannot be used at all.
        """
        if call.kind not in call.model.capabilities or call.kind not in ("generate", "embed"):
            what = CAPABILITIES.get(call.kind, call.kind)
            raise CapabilityError(f"model {call.model.name!r} cannot {what} (capability {call.kind!r}) behind this server")
        server = await self._ready(call)
        if call.kind == "embed":
            return await self._embed(call, server)
        return await self._generate(call, server, logprobs=await self._logprobs(call, server))

    async def _generate(self, call: Call, server: Server, *, logprobs: bool) -> Any:
        entry: Entry = call.model.info["entry"]
        options = self.options
        route, body = request_of(
            call,
            entry.model,
            server.dialect,
            logprobs=logprobs,
            seeds=options.seeds,
            budget_field=options.max_tokens_field,
            extra={**options.extra_body, **entry.extra_body},
        )
        path = "/chat/completions" if route == "chat" else "/completions"

        async def attempt() -> Any:
            reply = await _post(server, path, body)
            return generation(
                call, reply, route, server.dialect, tags=options.reasoning_tags, prices=call.model.prices
            ), _used(reply)

        return await self._paid(call, server, attempt)

    async def _embed(self, call: Call, server: Server) -> Any:
        entry: Entry = call.model.info["entry"]

        async def attempt() -> Any:
            body = {"model": entry.model, "input": list(call.input["texts"]), "encoding_format": "float"}
            reply = await _post(server, "/embeddings", body)
            return embeddings(call, reply), _used(reply)

        return await self._paid(call, server, attempt)

    async def _paid(self, call: Call, server: Server, attempt: Any) -> Any:
        """Make attempts within budget, pace and deadline; return the first result."""
        prompt, completion = estimate(call)
        prices = call.model.prices or (0.0, 0.0)
        async with self.ledger.hold((prompt * prices[0] + completion * prices[1]) / 1e6, prompt + completion):
            slot = await server.pacer.acquire(prompt + completion)
            try:
                async with asyncio.timeout(self.options.deadline):
                    result, used = await self._attempts(call, server, attempt, prompt + completion)
            except TimeoutError:
                raise ModelCallError(
                    f"{call.model.name}: no reply from {server.place.base_url} within the deadline of "
                    f"{self.options.deadline:g} s; raise the pool option deadline, or ask less at once"
                ) from None
            slot.tokens = sum(used)
            self.ledger.spend((used[0] * prices[0] + used[1] * prices[1]) / 1e6, sum(used))
            return result

    async def _attempts(self, call: Call, server: Server, attempt: Any, tokens: float) -> Any:
        for number in range(self.options.retries + 1):
            self.attempts += 1
            try:
                return await attempt()
            except Exception as error:
                if not _expected(error):
                    raise
                if number == self.options.retries or not worth_retrying(error):
                    raise self._failure(call, server, error, number + 1) from None
                headers = getattr(getattr(error, "response", None), "headers", None) or {}
                asked = retry_after(headers)
                if asked is not None:
                    server.pacer.hold(asked)  # the others would only be refused as well
                await asyncio.sleep(wait_before(number + 1, asked, self.options.backoff, self._jitter))
                await server.pacer.acquire(tokens)
        raise AssertionError("unreachable")

    def _failure(self, call: Call, server: Server, error: Exception, attempts: int) -> Exception:
        """Return one line for a call that failed for good."""
        import openai

        name = call.model.name
        tries = f" after {attempts} attempts" if attempts > 1 else ""
        if isinstance(error, openai.APIStatusError):
            said = server.clean(message_of(error))
            if error.status_code in (400, 413, 422) and any(t in said.lower() for t in _TOO_LONG):
                return PromptTooLong(f"{name}: {said}")
            if error.status_code in (400, 422):
                return Refused(f"{name}: the server refuses the request ({error.status_code}): {said}")
            if error.status_code in (401, 403):
                return ModelCallError(f"{name}: {server.problem(error)}")
            return ModelCallError(f"{name}: {server.place.base_url} answers {error.status_code}{tries}: {said}")
        if isinstance(error, openai.APITimeoutError):
            return ModelCallError(
                f"{name}: {server.place.base_url} stayed silent for {self.options.timeout:g} s{tries}; raise the pool "
                "option timeout"
            )
        if isinstance(error, openai.APIConnectionError):
            cause = server.clean(str(root_cause(error)) or type(error).__name__)
            return ModelCallError(f"{name}: the connection to {server.place.base_url} failed{tries} ({cause})")
        if isinstance(error, ModelCallError):
            return type(error)(f"{server.clean(str(error))}{tries}")
        return ModelCallError(f"{name}: the server's reply is not valid JSON{tries} ({server.clean(str(error))})")


class Refused(ModelCallError):
    """The server understood the request and does not take it."""


def _expected(error: Exception) -> bool:
    import openai

    return isinstance(error, (openai.OpenAIError, ValueError, ModelCallError))


async def _post(server: Server, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Send one request and return the reply's JSON object as it is.

    The client's typed methods would copy request and reply field by field, at a third of a request's cost, and what is
    read here goes beyond their fields anyway.
    """
    reply: Any = await server.client.post(path, cast_to=object, body=body)
    if not isinstance(reply, Mapping):
        raise Damaged("the server's reply is no JSON object")
    return reply


def _used(reply: Mapping[str, Any]) -> tuple[int, int]:
    usage = reply.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
