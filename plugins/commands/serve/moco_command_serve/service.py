"""What answers: the system, its members by name, and the router's decision, each request on a ledger of its own."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
import traceback
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from moco_command_serve.asking import Ask
from moco_command_serve.growing import Growing
from moco_command_serve.guard import Guard, Guarded
from moco_command_serve.limits import CapExceeded, Limits, Refused
from moco_core import (
    Context,
    MocoError,
    Model,
    ModelCallError,
    OpenSystem,
    PoolError,
    PromptTooLong,
    Question,
    Reply,
    StoreError,
)
from moco_core.errors import suggest
from moco_core.types import CallRecord, Usage

__all__ = ["Outcome", "Service", "Spent"]


@attrs.frozen(kw_only=True)
class Spent:
    """What one model did for a request, in one role: as its method calls it, else ``judge`` for a model that only says how
    good replies are, and ``member``.
    """

    model: str
    role: str
    calls: int
    usage: Usage
    money: float | None


@attrs.frozen(kw_only=True)
class Outcome:
    """An answered request: as many replies as were asked for, and every call that led to them."""

    id: str
    replies: Sequence[Reply]
    calls: Sequence[CallRecord]
    spent: Sequence[Spent]
    seconds: float

    @property
    def usage(self) -> Usage:
        return sum((s.usage for s in self.spent), Usage())

    @property
    def decision(self) -> str:
        """The model that the method chose or ended with, where it says so."""
        return str(self.replies[0].meta.get("model", "")) if self.replies else ""


class Service:
    """Answers requests on an open system. ``broken`` says why nothing can be answered any more."""

    def __init__(
        self,
        opened: OpenSystem,
        *,
        name: str,
        limits: Limits | None = None,
        kind: str = "text",
        debug: bool = False,
    ) -> None:
        self.opened, self.name, self.kind = opened, name, kind
        self.limits = limits or Limits()
        self.debug = debug
        self.broken = ""
        self.active = 0
        self.replays: OrderedDict[str, Any] = OrderedDict()
        self.members: dict[str, Model] = {
            (m.name if m.name != name else f"{name}/{m.name}"): m for m in opened.parts.pool
        }
        self._judges = {m.name for pool in opened.parts.judges for m in pool}

    @property
    def method(self) -> str:
        return str(type(self.opened.parts.method).title or type(self.opened.parts.method).__name__)

    def find(self, name: str) -> Model | None:
        """Return the member of that name, None for the system itself. Raises Refused."""
        if name == self.name:
            return None
        if name not in self.members:
            known = [self.name, *self.members]
            there = suggest(name, known) or f"; there are: {', '.join(known)}"
            raise Refused(404, f"model: no {name!r} here{there}", param="model", code="model_not_found")
        return self.members[name]

    # ---------------------------------------------------------------- answering

    async def answer(self, ask: Ask, growing: Growing | None = None) -> Outcome:
        """Answer a request within its deadline. Raises Refused, with nothing of the machine in its text.

        ``growing`` is told the replies as they are written, as far as the method, or the one model that writes them, tells.
        """
        member = self.find(ask.model)
        sampling = ask.sampling(self.opened.parts.sampling)
        if ask.n > 1 and sampling.greedy:
            raise Refused(400, "n: at temperature 0 all replies are equal; ask for one", param="n")
        seed = self.opened.parts.seed if ask.seed is None else ask.seed
        writer = member or self.opened.system.model

        tell = growing and growing.tell
        states = [
            self.opened.runtime.state(
                self.opened.parts.metric,
                seed=seed + i,
                sampling=sampling,
                on_reply=tell and functools.partial(tell, i),
            )
            for i in range(ask.n)
        ]
        calls: list[list[CallRecord]] = [[] for _ in states]

        async def one(index: int) -> Reply:
            state = states[index]
            guard = Guard(limits=self.limits, used=lambda: state.ledger.usage, writer=writer)
            allowed = None if member or ask.text is not None else self.opened.parts.allowed
            context = Guarded.around(state.context("respond", ask.question, allowed=allowed), guard)
            calls[index] = context.calls
            reply = await self._reply(ask, member, context)
            self._check_honoured(ask, guard)
            return reply

        started = time.monotonic()
        replies = await self._bounded(asyncio.gather(*(one(i) for i in range(ask.n))))
        return Outcome(
            id=growing.id if growing is not None else uuid.uuid4().hex,
            replies=replies,
            calls=[call for row in calls for call in row],
            spent=self._spent(states),
            seconds=time.monotonic() - started,
        )

    async def _reply(self, ask: Ask, member: Model | None, context: Context) -> Reply:
        if ask.text is not None:
            model = member or self.opened.system.model
            if model is None:
                raise Refused(
                    400, "prompt: this system cannot continue raw text; use /v1/chat/completions", param="prompt"
                )
            return Reply.of(await context.generate(model, ask.text, raw=True))
        if member is not None:
            return Reply.of(await context.generate(member, ask.question))
        return await self.opened.system.respond(ask.question, context)

    def _check_honoured(self, ask: Ask, guard: Guard) -> None:
        """Refuse what the method decoded otherwise in every one of its calls: silence would pass it off as honoured."""
        for setting, value in ask.decoding.items():
            if guard.decoded and all(getattr(sampling, setting) != value for sampling in guard.decoded):
                name = ask.named[setting]
                raise Refused(
                    400, f"{name}: {self.method} has a setting of its own; leave it out", param=name, code="unsupported"
                )

    async def decide(self, question: Question) -> tuple[str, Mapping[str, Any], Sequence[Spent]]:
        """Return the model that a router chooses, what it says about that, and what it cost. Raises Refused."""
        parts = self.opened.parts
        state = self.opened.runtime.state(parts.metric, seed=parts.seed, sampling=parts.sampling)
        guard = Guard(limits=self.limits, used=lambda: state.ledger.usage, decide=question)
        context = Guarded.around(state.context("respond", question, allowed=parts.allowed), guard)
        nobody = Refused(400, f"{self.method} does not choose one model before it is asked", code="unsupported")

        async def respond() -> Reply:
            try:
                return await self.opened.system.respond(question, context)
            except MocoError:
                if len(guard.chosen) > 1:
                    raise nobody from None
                raise

        reply = await self._bounded(respond())
        if len(guard.chosen) != 1:
            raise nobody
        return guard.chosen[0], reply.meta, self._spent([state])

    async def _bounded(self, work: Awaitable[Any]) -> Any:
        """Await work within the deadline; what goes wrong becomes a refusal, and a line on the server's own screen."""
        try:
            async with asyncio.timeout(self.limits.deadline):
                return await work
        except Refused:
            raise
        except TimeoutError:
            raise Refused(504, f"no reply within {self.limits.deadline:g} s", code="deadline") from None
        except CapExceeded as error:
            raise Refused(422, str(error), code="cap_exceeded") from None
        except Exception as error:
            raise self._told(error) from None

    def _told(self, error: Exception) -> Refused:
        mark = uuid.uuid4().hex[:12]
        print(f"[{mark}] {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        if self.debug:
            traceback.print_exception(error)
        if isinstance(error, (PoolError, StoreError)):
            self.broken = type(error).__name__
        if isinstance(error, PromptTooLong):
            return Refused(
                400, "messages: too long for a model of this system", param="messages", code="context_length_exceeded"
            )
        if isinstance(error, ModelCallError):
            return Refused(
                502, f"a model did not answer; the server's log says why under {mark}", code="model_call_failed"
            )
        if isinstance(error, MocoError):
            return Refused(503, f"the system cannot answer; the server's log says why under {mark}", code="unavailable")
        return Refused(500, f"an error of the server; its log says more under {mark}", code="internal")

    def _spent(self, states: Sequence[Any]) -> list[Spent]:
        """Return what every model did in every role: as the method calls it, else as judge or as member."""
        rows: dict[tuple[str, str], list[Any]] = {}
        for state in states:
            parts = [(phase, model, role, tally) for (phase, model, role), tally in state.ledger.roles.items()]
            for phase, model, whole in state.ledger:
                usual = "judge" if phase == "metric" or model in self._judges else "member"
                mine = [(role, tally) for its, name, role, tally in parts if (its, name) == (phase, model)]
                for role, tally in mine:
                    rows.setdefault((model, role), []).append(tally)
                if whole.calls > sum(tally.calls for _, tally in mine):
                    rows.setdefault((model, usual), []).append(_rest(whole, [tally for _, tally in mine]))
        return [_sum(model, role, tallies) for (model, role), tallies in rows.items()]

    # ---------------------------------------------------------------- transcripts

    def keep(self, ask: Ask, outcome: Outcome, show: Callable[[CallRecord], Any]) -> str:
        """Keep the transcript of an answered request where that is turned on; return its id, empty where it is not."""
        if not self.limits.replays:
            return ""
        self.replays[outcome.id] = {
            "id": outcome.id,
            "model": ask.model,
            "question": ask.text if ask.text is not None else [[m.role, m.content] for m in ask.question.messages()],
            "replies": [{"text": r.text, "finish": r.finish_reason, "meta": dict(r.meta)} for r in outcome.replies],
            "calls": [show(call) for call in outcome.calls],
        }
        while len(self.replays) > self.limits.replays:
            self.replays.popitem(last=False)
        return outcome.id


def _rest(whole: Any, parts: Sequence[Any]) -> Any:
    """Return what a model did beside what it did in roles."""
    usage = Usage(
        whole.usage.prompt_tokens - sum(t.usage.prompt_tokens for t in parts),
        whole.usage.completion_tokens - sum(t.usage.completion_tokens for t in parts),
    )
    fields = ("calls", "priced", "unpriced", "money")
    return attrs.evolve(
        whole, usage=usage, **{f: getattr(whole, f) - sum(getattr(t, f) for t in parts) for f in fields}
    )


def _sum(model: str, role: str, tallies: Sequence[Any]) -> Spent:
    known = any(t.priced for t in tallies) and not any(t.unpriced for t in tallies)
    return Spent(
        model=model,
        role=role,
        calls=sum(t.calls for t in tallies),
        usage=sum((t.usage for t in tallies), Usage()),
        money=sum(t.money for t in tallies) if known else None,
    )
