"""The engine: calls become requests, bounded, paced, repeated where that helps, and paid for."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import attrs

from moco_core.errors import CapabilityError, ConfigError, ModelCallError, PoolError, PromptTooLong
from moco_core.models import CAPABILITIES, Call, Engine, Model
from moco_core.types import Generation
from moco_pool_openai.attempts import wait_before
from moco_pool_openai.endpoint import Endpoint
from moco_pool_openai.failures import RequestFailed, Unreachable, names_in
from moco_pool_openai.listing import answers_for
from moco_pool_openai.memory import ServerMemory
from moco_pool_openai.options import NEEDED_FIELDS, Entry, Options
from moco_pool_openai.pacing import Held, Ledger, Slot
from moco_pool_openai.reading import Listener, generation
from moco_pool_openai.server import Server
from moco_pool_openai.usage import used_by
from moco_pool_openai.wire import embedding_request, embeddings, estimate, request_of, reward_request, rewards

__all__ = ["OpenAIEngine"]

T = TypeVar("T")


class Refused(ModelCallError):
    """The server understood the request and does not take it."""


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
        self._servers: dict[Endpoint, Server] = {}
        self._probes: dict[tuple[Endpoint, str], asyncio.Task[bool]] = {}
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
            endpoint = model.info["endpoint"]
            self._servers.setdefault(endpoint, Server(endpoint, self.options))
        problems = await _problems(self._fetch_info(server) for server in self._servers.values())
        if not problems:
            problems += [line for server in self._servers.values() if (line := self._changed(server))]
        for model in self.models:
            server, entry = self._servers[model.info["endpoint"]], model.info["entry"]
            lack = server.lacks(entry.model, model.name)
            problems += [lack] if lack else []
            if entry.template and not server.dialect.template:
                problems.append(
                    f"pool openai: {server.endpoint.base_url} takes no arguments of chat templates (entry {model.name!r}); "
                    "drop template, or state the server's dialect"
                )
        if not problems and self.options.logprobs == "yes":
            # what was promised to a method is checked before anything is asked
            writers = [m for m in self.models if m.can("generate")]
            problems = await _problems(self._logprobs(m, self._servers[m.info["endpoint"]]) for m in writers)
        if problems:
            raise PoolError(list(dict.fromkeys(problems)))

    async def _fetch_info(self, server: Server) -> None:
        """Ask one server for its models, again where that helps: its dialect must not depend on its mood."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.options.deadline
        number = 0
        while True:
            number += 1
            try:
                await server.fetch_info()
                return
            except RequestFailed as error:
                failure = error
            passing = failure.passing and failure.status is not None
            wait = wait_before(number, failure.wait, self.options.backoff, self._jitter)
            if not passing or number > self.options.retries or clock() + wait > until:
                break
            await asyncio.sleep(wait)
        if passing and self.options.dialect != "auto":
            return  # nothing of the list is needed, and the first request shows what is wrong
        raise server.problem(failure)

    def _changed(self, server: Server) -> str:
        """Return one line if a server told its dialect before and has no list of models now, or the other way round.

        What it is sent depends on that, and the cache would take the replies for the same.
        """
        if self.options.dialect != "auto" or not self.options.check:
            return ""
        now = server.introduced or ("" if server.listed is None else "openai")
        before = self.memory.recall(server.endpoint.address, "").get("dialect")
        if before is None or (before and now) or {before, now} <= {"", "openai"}:
            self.memory.note(server.endpoint.address, "", dialect=now)
            return ""
        lost = f"introduced itself as {before} before, and has no list of models now"
        new = f"introduces itself as {now}, and had no list of models before"
        return (
            f"pool openai: {server.endpoint.base_url} {new if now else lost}; requests depend on it: state the pool option "
            "dialect"
        )

    async def _logprobs(self, model: Model, server: Server) -> bool:
        """Return whether a model's server gives log-probabilities: as declared, as remembered, or found out by one request."""
        entry: Entry = model.info["entry"]
        if entry.capabilities is not None:
            return "logprobs" in entry.capabilities
        if self.options.logprobs == "no":
            return False
        key = (server.endpoint, entry.model)
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
                f"pool openai: {server.endpoint.base_url} gives no log-probabilities for {entry.model!r}; set the pool option "
                "logprobs: no, or use a server that does"
            )
        return found

    async def _probe(self, model: Model, server: Server) -> bool:
        entry: Entry = model.info["entry"]
        known = self.memory.recall(server.endpoint.address, entry.model).get("logprobs")
        if isinstance(known, bool):
            return known
        given = {"messages": [["user", "Say yes."]]}
        question = Call(model, "generate", given, {"max_new_tokens": 1, "temperature": 0.0})
        try:
            reply = await self._generate(question, server, logprobs=True)
        except PromptTooLong:
            raise
        except Refused as refusal:
            if "logprob" not in str(refusal).lower():
                return False  # something else is refused, which shows in the first real request: nothing to remember
            found = False
        else:
            found = bool(reply.token_logprobs)
        self.memory.note(server.endpoint.address, entry.model, logprobs=found)
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
        server = self._servers[call.model.info["endpoint"]]
        entry: Entry = call.model.info["entry"]
        if call.kind == "embed":
            body = embedding_request(call, entry, self.options)
            return await self._asked(call, server, "/embeddings", body, lambda reply: embeddings(call, reply))
        if call.kind == "reward":
            # vLLM's route for the raw outputs of a classification head stands beside /v1
            address = f"{server.endpoint.base_url.removesuffix('/v1')}/pooling"
            body = reward_request(call, entry, self.options)
            return await self._asked(call, server, address, body, lambda reply: rewards(call, reply))
        return await self._generate(call, server, logprobs=await self._logprobs(call.model, server))

    async def _generate(self, call: Call, server: Server, *, logprobs: bool) -> Generation:
        entry: Entry = call.model.info["entry"]
        tags = self.options.reasoning_tags
        route, body = request_of(call, entry, self.options, server.dialect, logprobs=logprobs)

        def read(reply: Mapping[str, Any]) -> Generation:
            return generation(
                call,
                reply,
                route,
                server.dialect,
                tags=tags,
                prices=entry.prices,
                cached_price=entry.cached_price,
            )

        path = "/chat/completions" if route == "chat" else "/completions"
        try:
            heard = (lambda: Listener(call, server.dialect, tags, server.hide_begun)) if call.tell is not None else None
            found = await self._asked(call, server, path, body, read, heard)
        except Refused:
            if call.tell is None or self.options.stream:
                raise
            call.tell = None  # a server that sends no parts, perhaps: it is asked for the whole
            return await self._generate(call, server, logprobs=logprobs)
        if any(map(server.tells, (found.text, found.reasoning, str(found.meta.get("served_model"))))):
            meta = {k: server.hide(v) if isinstance(v, str) else v for k, v in found.meta.items()}
            found = attrs.evolve(found, text=server.hide(found.text), reasoning=server.hide(found.reasoning), meta=meta)
        served = str(found.meta.get("served_model", entry.model))
        if answers_for(entry.model, served):
            return found
        told = server.clean(f"{entry.model!r} was asked and {served!r} answers; see that it is the model meant")
        return attrs.evolve(found, meta={**found.meta, "warning": told})

    async def _asked(
        self,
        call: Call,
        server: Server,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], T],
        heard: Callable[[], Callable[[str], None]] | None = None,
    ) -> T:
        """Make attempts within budget, pace and deadline; return the first result. ``heard`` makes who hears an attempt."""
        prompt, completion = estimate(call)
        prices = call.model.prices or (0.0, 0.0)
        most, deadline = (prompt * prices[0] + completion * prices[1]) / 1e6, self.options.deadline

        async def attempt(slot: Slot) -> T:
            reply = await server.post(path, body, heard and heard())
            used = used_by(reply)  # it is paid, whether it can be read or not
            money = used.cost(call.model.prices, call.model.info["entry"].cached_price)
            tokens = sum(attrs.astuple(used.usage)) if used.known else prompt + completion
            unknown = most if call.model.prices else 0.0
            self.ledger.spend(unknown if money is None else money, math.ceil(tokens))
            slot.tokens = tokens
            return read(reply)

        async with self.ledger.hold(most, prompt + completion):
            try:
                slot = await server.pacer.acquire(prompt + completion)
                async with asyncio.timeout(deadline - slot.held):
                    return await self._attempts(call, server, attempt, slot, sent=body)
            except TimeoutError:
                raise ModelCallError(
                    f"{call.model.name}: no reply from {server.endpoint.base_url} within the deadline of {deadline:g} s; raise "
                    "the pool option deadline, or ask less at once"
                ) from None
            except Held as held:
                raise ModelCallError(
                    f"{call.model.name}: {server.endpoint.base_url} asks to wait {held.seconds:.0f} s, and a call may take "
                    f"{deadline:g} s (pool option deadline); what is finished is kept, so run again later"
                ) from None

    async def _attempts(
        self,
        call: Call,
        server: Server,
        attempt: Callable[[Slot], Awaitable[T]],
        slot: Slot,
        *,
        sent: Mapping[str, Any],
    ) -> T:
        clock = asyncio.get_running_loop().time
        until = clock() + self.options.deadline - slot.held
        tokens = slot.tokens
        for number in range(self.options.retries + 1):
            self.attempts += 1
            try:
                return await attempt(slot)
            except RequestFailed as failure:
                if number == self.options.retries or not failure.passing:
                    raise self._failure(call, server, failure, number + 1, sent) from None
                asked = failure.wait
            if asked is not None:
                server.pacer.hold(asked)  # the others would only be refused as well
                if asked > until - clock():
                    raise Held(asked)
            await asyncio.sleep(wait_before(number + 1, asked, self.options.backoff, self._jitter))
            slot = await server.pacer.acquire(tokens)
        raise AssertionError("unreachable")

    def _failure(
        self, call: Call, server: Server, failure: RequestFailed, attempts: int, sent: Mapping[str, Any]
    ) -> ModelCallError:
        """Return one line for a call that failed for good."""
        name, at = call.model.name, server.endpoint.base_url
        tries = f" after {attempts} attempts" if attempts > 1 else ""
        said = server.clean(failure.said).removeprefix(f"{name}: ")
        if failure.too_long:
            return PromptTooLong(f"{name}: {said}")
        if failure.bad_key:
            return ModelCallError(f"{name}: {server.problem(failure)}")
        if failure.status in (400, 422) or (failure.status == 403 and "logprob" in said):
            return Refused(f"{name}: the server refuses the request ({failure.status}): {said}{_advice(failure, sent)}")
        if failure.status is not None:
            return ModelCallError(f"{name}: {at} answers {failure.status}{tries}: {said}")
        if isinstance(failure, Unreachable) and failure.silent:
            return ModelCallError(
                f"{name}: {at} stayed silent for {self.options.timeout:g} s{tries}; raise the pool option timeout"
            )
        if isinstance(failure, Unreachable):
            return ModelCallError(f"{name}: the connection to {at} failed{tries} ({said})")
        detail = server.clean(failure.detail)
        return ModelCallError(f"{name}: {said}{tries}" + (f" ({detail})" if detail else ""))


def _advice(failure: RequestFailed, sent: Mapping[str, Any]) -> str:
    """Return which options change the fields that a refusal names."""
    named = [n for n in names_in(f"{failure.code} {failure.said}", sent) if n not in NEEDED_FIELDS]
    if "max_tokens" in named and "max_completion_tokens" in failure.said:
        return "; set the pool option max_tokens_field: max_completion_tokens"
    if names_in(failure.said, ["stream"]) and "stream" not in sent:
        return "; set the pool option stream: true"
    if not named:
        return ""
    return f"; the pool option omit leaves fields out: omit: [{', '.join(named)}]" + (
        " (or one of them)" if named[1:] else ""
    )


async def _problems(checks: Iterable[Awaitable[Any]]) -> list[str]:
    """Make checks together; return what is wrong. A call that failed is no reason: the next one may not."""
    out: list[str] = []
    for found in await asyncio.gather(*checks, return_exceptions=True):
        if isinstance(found, ConfigError):
            out += found.problems
        elif isinstance(found, BaseException) and not isinstance(found, ModelCallError):
            raise found
    return out
