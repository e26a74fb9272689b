"""The engine: calls become requests, bounded, paced, repeated where that helps, and paid for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from moco_core.errors import CapabilityError, ConfigError, ModelCallError, PoolError, PromptTooLong
from moco_core.models import CAPABILITIES, Call, Engine, Model
from moco_pool_openai.attempts import retry_after, wait_before, worth_retrying
from moco_pool_openai.memory import ServerMemory
from moco_pool_openai.pacing import Ledger
from moco_pool_openai.server import Place, Server, message_of, root_cause
from moco_pool_openai.wire import embeddings, estimate, generation, request_of, rewards

if TYPE_CHECKING:
    from moco_pool_openai.pool import Entry, Options

__all__ = ["OpenAIEngine"]

_TOO_LONG = (
    "context length",
    "context_length",
    "maximum context",
    "context window",
    "too long",
    "longer than the maximum",
)


class OpenAIEngine(Engine):
    """Asks OpenAI-compatible servers. ``attempts`` counts requests that were sent, ``ledger`` what they cost.

    ``models`` are those of the pool, which must be there before the first question.
    """

    batches_itself: ClassVar[bool] = True

    def __init__(self, options: Options, memory: ServerMemory) -> None:
        self.options = options
        self.memory = memory
        self.max_in_flight = options.max_in_flight
        self.attempts = 0
        self.models: Sequence[Model] = ()
        self.ledger = Ledger(options.budget, options.budget_tokens)
        self._servers: dict[Place, Server] = {}
        self._probes: dict[tuple[Place, str], asyncio.Task[bool]] = {}
        self._jitter = random.Random()  # when a request is repeated decides nothing about its reply

    async def close(self) -> None:
        for task in self._probes.values():
            task.cancel()
        self._probes.clear()
        servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            await server.close()
        # what was spent stays spent; what waits for money belongs to an event loop that is gone
        spent = self.ledger
        self.ledger = Ledger(self.options.budget, self.options.budget_tokens)
        self.ledger.spend(spent.money, spent.tokens)

    # ---------------------------------------------------------------- before the first call

    async def start(self, runtime: Any) -> None:
        """Ask each server of the pool what it has. Raises PoolError with a line per server or model that is not there."""
        for model in self.models:
            place = model.info["place"]
            self._servers.setdefault(place, Server(place, self.options, self.memory))
        problems = await _problems(server.look() for server in self._servers.values())
        for model in self.models:
            lack = self._servers[model.info["place"]].lacks(model.info["entry"].model, model.name)
            problems += [lack] if lack else []
        if not problems and self.options.logprobs == "yes":
            problems = await _problems(self._logprobs(m, self._servers[m.info["place"]]) for m in self.models)
        if problems:
            raise PoolError(list(dict.fromkeys(problems)))

    async def _logprobs(self, model: Model, server: Server) -> bool:
        """Whether a model's server gives log-probabilities: as declared, as remembered, or found out by one request."""
        entry: Entry = model.info["entry"]
        if entry.capabilities is not None:
            return "logprobs" in entry.capabilities
        if self.options.logprobs == "no":
            return False
        key = (server.place, entry.model)
        probe = self._probes.get(key)
        if probe is None:
            probe = self._probes[key] = asyncio.create_task(self._probe(model, server))
        try:
            found = await asyncio.shield(probe)
        except ModelCallError:
            if self._probes.get(key) is probe:  # it failed for reasons of its own: the next call asks again
                del self._probes[key]
            raise
        if self.options.logprobs == "yes" and not found:
            raise ConfigError(
                f"pool openai: {server.place.base_url} gives no log-probabilities for {entry.model!r}; set the pool option "
                "logprobs: no, or use a server that does"
            )
        return found

    async def _probe(self, model: Model, server: Server) -> bool:
        entry: Entry = model.info["entry"]
        known = self.memory.recall(server.place.base_url, entry.model).get("logprobs")
        if isinstance(known, bool):
            return known
        given = {"messages": [["user", "Say yes."]]}
        question = Call(model, "generate", given, {"max_new_tokens": 1, "temperature": 0.0})
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
        """Answer one generate, embed or reward call.

        Raises ModelCallError for a call that failed for good, ConfigError if its server cannot be used at all.
        """
        if call.kind not in call.model.capabilities or call.kind not in ("generate", "embed", "reward"):
            what = CAPABILITIES.get(call.kind, call.kind)
            raise CapabilityError(
                f"model {call.model.name!r} cannot {what} (capability {call.kind!r}) behind this server"
            )
        server = self._servers[call.model.info["place"]]
        if call.kind == "embed":
            return await self._embed(call, server)
        if call.kind == "reward":
            return await self._reward(call, server)
        return await self._generate(call, server, logprobs=await self._logprobs(call.model, server))

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
            reply = await server.post(path, body)
            return generation(
                call, reply, route, server.dialect, tags=options.reasoning_tags, prices=call.model.prices
            ), _used(reply)

        return await self._paid(call, server, attempt)

    async def _embed(self, call: Call, server: Server) -> Any:
        entry: Entry = call.model.info["entry"]

        async def attempt() -> Any:
            body = {"model": entry.model, "input": list(call.input["texts"]), "encoding_format": "float"}
            reply = await server.post("/embeddings", body)
            return embeddings(call, reply), _used(reply)

        return await self._paid(call, server, attempt)

    async def _reward(self, call: Call, server: Server) -> Any:
        """Ask for the raw outputs of a classification head, by vLLM's route for them, which stands beside /v1."""
        entry: Entry = call.model.info["entry"]
        body = {
            "model": entry.model,
            "messages": [{"role": role, "content": content} for role, content in call.input["messages"]],
            "task": "classify",
            "use_activation": False,
            "add_generation_prompt": False,
        }
        address = f"{server.place.base_url.rstrip('/').removesuffix('/v1')}/pooling"

        async def attempt() -> Any:
            reply = await server.post(address, {**body, **self.options.extra_body, **entry.extra_body})
            return rewards(call, reply), _used(reply)

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


async def _problems(checks: Iterable[Awaitable[Any]]) -> list[str]:
    """Make checks together; return what is wrong. A call that failed is no reason: the next one may not."""
    out: list[str] = []
    for found in await asyncio.gather(*checks, return_exceptions=True):
        if isinstance(found, ConfigError):
            out += found.problems
        elif isinstance(found, BaseException) and not isinstance(found, ModelCallError):
            raise found
    return out


class Refused(ModelCallError):
    """The server understood the request and does not take it."""


def _expected(error: Exception) -> bool:
    import openai

    return isinstance(error, (openai.OpenAIError, ValueError, ModelCallError))


def _used(reply: Mapping[str, Any]) -> tuple[int, int]:
    usage = reply.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
