"""A context under guard: what a request may spend is bounded, stragglers of a panel are not waited for, and a routing
decision is taken without asking whom it chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import attrs

from moco_command_serve.limits import CapExceeded, Limits
from moco_core import (
    Context,
    ContinuationScore,
    Example,
    Generation,
    Message,
    Model,
    ModelCallError,
    Question,
    Sampling,
    Usage,
)
from moco_core.types import Prompt

__all__ = ["Guard", "Guarded"]

T = TypeVar("T")


@attrs.define(kw_only=True, eq=False)
class Guard:
    """What is watched of one request. ``used`` returns the tokens that its calls read and wrote so far.

    ``calls`` counts calls as they are made; ``decoded`` collects the settings that a method chose itself. With ``decide``,
    whoever is asked that question writes nothing and is only named in ``chosen``. What ``writer`` writes is the reply.
    """

    limits: Limits
    used: Callable[[], Usage]
    decide: Question | None = None
    writer: Model | None = None
    calls: int = 0
    decoded: list[Sampling] = attrs.field(factory=list)
    chosen: list[str] = attrs.field(factory=list)

    def begin(self, calls: int = 1) -> None:
        """Count calls that are to be made. Raises CapExceeded."""
        self.calls += calls
        limits = self.limits
        if limits.calls is not None and self.calls > limits.calls:
            raise CapExceeded(f"the request needs more than {limits.calls} model calls, which is what it may make")
        used = self.used()
        if limits.tokens is not None and used.prompt_tokens + used.completion_tokens >= limits.tokens:
            raise CapExceeded(f"the request has used the {limits.tokens} tokens that it may use")


class Guarded:
    """A context that asks its guard before every call; whatever else it is asked for, the context inside of it does."""

    def __init__(self, inner: Context, guard: Guard) -> None:
        self.inner, self.guard = inner, guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @classmethod
    def around(cls, inner: Context, guard: Guard) -> Context:
        """Return a guarded context as the context that it stands for."""
        return cast(Context, cls(inner, guard))

    async def generate(
        self,
        model: Model,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        sample: int | None = None,
        raw: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> Generation:
        if self.guard.decide is not None and prompt == self.guard.decide:
            self.guard.chosen.append(model.name)
            return Generation(text="")
        if sampling is not None:
            self.guard.decoded.append(sampling)
        self.guard.begin()
        tell = tell or (self.inner.tell if model is self.guard.writer else None)
        reply = await self.inner.generate(model, prompt, sampling, sample=sample, raw=raw, tell=tell)
        self.guard.begin(int(reply.meta.get("calls", 1)) - 1)  # those that a nested system made
        return reply

    async def score(
        self, model: Model, prompt: Prompt, continuations: Sequence[str], *, raw: bool = False
    ) -> tuple[ContinuationScore, ...]:
        self.guard.begin()
        return await self.inner.score(model, prompt, continuations, raw=raw)

    async def embed(self, model: Model, texts: Sequence[str]) -> tuple[tuple[float, ...], ...]:
        self.guard.begin()
        return await self.inner.embed(model, texts)

    async def reward(self, model: Model, messages: Sequence[Message]) -> tuple[float, ...]:
        self.guard.begin()
        return await self.inner.reward(model, messages)

    async def call(
        self,
        model: Model,
        kind: str,
        given: Any,
        params: Mapping[str, Any],
        *,
        seed: int | None = None,
        payload: Any = None,
        cached: bool = True,
        requires: str | None = None,
    ) -> Any:
        self.guard.begin(int(cached))  # the steps of a session are one call, told by `count`
        return await self.inner.call(
            model, kind, given, params, seed=seed, payload=payload, cached=cached, requires=requires
        )

    def count(self, model: Model, usage: Usage, *, calls: int = 1, cached: bool = False) -> None:
        self.inner.count(model, usage, calls=calls, cached=cached)
        self.guard.begin(calls)

    async def gather(
        self, aws: Iterable[Awaitable[T]], *, tolerate: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> list[Any]:
        """Gather; where a method can do without some, those that come too late after the others have failed."""
        limits, kinds = self.guard.limits, tolerate if isinstance(tolerate, tuple) else (tolerate,)
        if limits.grace is None or not any(issubclass(ModelCallError, kind) for kind in kinds):
            return await self.inner.gather(aws, tolerate=tolerate)
        over = asyncio.Event()
        loop, here, timers = asyncio.get_running_loop(), 0, list[asyncio.TimerHandle]()

        async def within(aw: Awaitable[T]) -> T:
            nonlocal here
            task, end = asyncio.ensure_future(aw), asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    raise ModelCallError(f"left out: no reply {limits.grace:g} s after the others")
                result = task.result()
            finally:
                for each in (task, end):
                    each.cancel()
            here += 1
            if here == limits.min_responses:
                timers.append(loop.call_later(limits.grace or 0, over.set))
            return result

        try:
            return await self.inner.gather((within(aw) for aw in aws), tolerate=tolerate)
        finally:
            for timer in timers:
                timer.cancel()

    async def each(
        self,
        examples: Sequence[Example] | Sequence[Question],
        work: Callable[[Any, Context], Awaitable[T]],
        *,
        label: str = "",
    ) -> list[T]:
        return await self.inner.each(
            examples, lambda item, inner: work(item, Guarded.around(inner, self.guard)), label=label
        )

    def on(self, question: Question) -> Guarded:
        return Guarded(self.inner.on(question), self.guard)

    def role(self, name: str) -> Guarded:
        return Guarded(self.inner.role(name), self.guard)
