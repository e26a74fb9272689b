"""The contexts of a run: what :class:`~moco_core.context.Context` promises, on a runtime; and what they collect."""

from __future__ import annotations

import asyncio
import bisect
import copy
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from moco_core.context import Context
from moco_core.data import Metric
from moco_core.errors import CapabilityError, ModelCallError, PromptTooLong
from moco_core.models import CAPABILITIES, Call, Model
from moco_core.options import plain
from moco_core.runtime.artifacts import Artifacts
from moco_core.runtime.budget import Budget
from moco_core.runtime.ledger import REFERENCE, Ledger, call_record, usage_of
from moco_core.runtime.order import Place, enter, next_place
from moco_core.runtime.scheduler import Scheduler
from moco_core.runtime.training import train
from moco_core.training import TrainingJob
from moco_core.types import (
    Answer,
    CallRecord,
    ContinuationScore,
    Evaluation,
    Example,
    Generation,
    Message,
    Prompt,
    Question,
    Reply,
    Sampling,
    Score,
    Usage,
    as_messages,
    canonical,
    digest,
)

T = TypeVar("T")


@attrs.define(kw_only=True, eq=False)
class RunState:
    """What all contexts of one run share: what answers them, metric, seed, default decoding, and what is collected."""

    scheduler: Scheduler
    artifacts: Artifacts
    metric: Metric[Any]
    seed: int = 0
    sampling: Sampling = attrs.field(factory=Sampling)
    in_flight: int = 256
    ledger: Ledger = attrs.field(factory=Ledger)
    budget: Budget | None = None
    warnings: list[str] = attrs.field(factory=list)
    on_progress: Callable[[str, int, int | None, str], None] = lambda phase, done, total, note: None
    on_note: Callable[[str, Mapping[str, Any]], None] = lambda phase, note: None
    on_reply: Callable[[str], None] | None = None
    """Told how the reply begins, from any thread, as far as its method tells."""

    def context(
        self, phase: str, question: Question | None = None, *, allowed: frozenset[str] | None = None
    ) -> RunContext:
        """Return a fresh context. ``allowed`` are the capabilities a method declared; None allows all."""
        return RunContext(self, phase, question, allowed)


class RunContext(Context):
    """A context of a run."""

    def __init__(self, state: RunState, phase: str, question: Question | None, allowed: frozenset[str] | None) -> None:
        self.state = state
        self.seed, self.sampling, self.metric = state.seed, state.sampling, state.metric
        self.phase = phase
        self.question = question
        self.calls: list[CallRecord] = []
        self._places: list[Place] = []
        self._allowed = allowed
        self._counter: dict[str, int] = {}
        self._role = ""

    def on(self, question: Question) -> RunContext:
        other = RunContext(self.state, self.phase, question, self._allowed)
        other._role = self._role
        return other

    def role(self, name: str) -> RunContext:
        other = copy.copy(self)  # the same record, the same counters
        if name == REFERENCE:
            other.phase = name
        else:
            other._role = name
        return other

    def rng(self, *parts: Any) -> random.Random:
        scope = self.question.id if self.question else None
        return random.Random(int(digest("rng", self.seed, scope, list(parts))[:16], 16))

    # ---------------------------------------------------------------- model calls

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
        settings = sampling or self.sampling
        params = settings.params()
        given = self._input(model, prompt, raw)
        seed = None if settings.greedy else self._seed(model, "generate", given, params, sample)
        listened = tell if self.state.on_reply else None  # telling what nobody hears would only cost
        result: Generation = await self.call(model, "generate", given, params, seed=seed, tell=listened)
        return result

    async def score(
        self, model: Model, prompt: Prompt, continuations: Sequence[str], *, raw: bool = False
    ) -> tuple[ContinuationScore, ...]:
        given = {**self._input(model, prompt, raw), "continuations": list(continuations)}
        result: tuple[ContinuationScore, ...] = await self.call(model, "score", given, {})
        return result

    async def embed(self, model: Model, texts: Sequence[str]) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(v) for v in await self.call(model, "embed", {"texts": list(texts)}, {}))

    async def reward(self, model: Model, messages: Sequence[Message]) -> tuple[float, ...]:
        return tuple(await self.call(model, "reward", self._input(model, messages, False), {}))

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
        tell: Callable[[str], None] | None = None,
    ) -> Any:
        self._check(model, requires or kind)
        request, place = Call(model, kind, given, params, seed, None, payload, tell), next_place()
        if not cached:
            return await self.state.scheduler.uncached_call(request)
        answered = await self.state.scheduler.cached_call(request)
        usage = usage_of(kind, answered.value)
        for tally in self.state.ledger.each(self.phase, model.name, self._role):
            tally.add(model, usage, answered)
        if self.state.budget is not None and not answered.cached:
            self.state.budget.pay(model, usage, answered.value)
        if isinstance(answered.value, Generation) and "warning" in answered.value.meta:
            self.warn(str(answered.value.meta["warning"]))
        if self.question is not None:
            self._add(place, call_record(self.phase, request, usage, answered))
        return answered.value

    def count(self, model: Model, usage: Usage, *, calls: int = 1, cached: bool = False) -> None:
        for tally in self.state.ledger.each(self.phase, model.name, self._role):
            tally.count(model, usage, calls, cached)
        if self.state.budget is not None and not cached:
            self.state.budget.pay(model, usage)
        if self.question is None:
            return
        line = CallRecord(model=model.name, kind="step", phase=self.phase, cached=cached, usage=usage)
        for i, known in enumerate(self.calls):
            if (known.kind, known.model, known.cached) == (line.kind, line.model, line.cached):
                self.calls[i] = attrs.evolve(known, usage=known.usage + usage)
                return
        self._add(next_place(), line)

    def _add(self, place: Place, record: CallRecord) -> None:
        """Keep the calls in the order in which the method makes them: what is cached is answered sooner."""
        index = bisect.bisect(self._places, place)
        self._places.insert(index, place)
        self.calls.insert(index, record)

    async def once(self, what: Mapping[str, Any], compute: Callable[[], Awaitable[Any]]) -> Any:
        return await self.state.scheduler.memo.once(what, compute)

    async def artifact(
        self, what: Mapping[str, Any], build: Callable[[Path], Awaitable[None]], *, resume: bool = False
    ) -> Path:
        return await self.state.artifacts.get(what, build, resume=resume)

    async def train(self, model: Model, job: TrainingJob, *, name: str = "") -> Model:
        self._check(model, "train")
        return await train(self, self.state.scheduler, self.state.ledger, model, job, name)

    # ---------------------------------------------------------------- many at once

    async def gather(
        self, aws: Iterable[Awaitable[T]], *, tolerate: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> list[Any]:
        place = next_place()

        async def run(number: int, aw: Awaitable[T]) -> Any:
            enter(place, number)
            if not tolerate:
                return await aw
            try:
                return await aw
            except tolerate as error:
                return error

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(i, aw)) for i, aw in enumerate(aws)]
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        return [t.result() for t in tasks]

    async def each(
        self,
        examples: Sequence[Example] | Sequence[Question],
        work: Callable[[Any, Context], Awaitable[T]],
        *,
        label: str = "",
    ) -> list[T]:
        results: list[Any] = [None] * len(examples)
        waiting: Iterator[tuple[int, Any]] = enumerate(examples)
        place, done = next_place(), 0

        async def run() -> None:
            nonlocal done
            for number, item in waiting:
                enter(place, number)
                question = item.question if isinstance(item, Example) else item
                results[number] = await work(item, self.on(question))
                done += 1
                if label:
                    self.progress(label, done, len(examples))

        # so many workers, not a task for every item behind a gate: the gate's cost grows with those who wait at it
        await self.gather(run() for _ in range(min(self.state.in_flight, len(examples))))
        return results

    async def evaluate(
        self,
        models: Sequence[Model],
        examples: Sequence[Example],
        sampling: Sampling | None = None,
        *,
        label: str = "dev",
    ) -> Evaluation:

        async def one(example: Example, scope: Context) -> list[tuple[Generation, float | None]]:
            async def ask(model: Model) -> tuple[Generation, float | None]:
                try:
                    reply = await scope.generate(model, example.question, sampling)
                except PromptTooLong as error:
                    self.warn(f"{model.name}: {label} questions that are too long for it count as empty replies")
                    reply = Generation(text="", finish_reason="length", meta={"error": str(error)})
                return reply, (await scope.grade(example, Reply.of(reply))).value

            return await scope.gather(ask(m) for m in models)

        table = await self.each(examples, one, label=label)
        return Evaluation(
            names=tuple(m.name for m in models),
            scores=tuple(tuple(row[i][1] for row in table) for i in range(len(models))),
            replies=tuple(tuple(row[i][0] for row in table) for i in range(len(models))),
        )

    def read(self, question: Question, text: str) -> Answer:
        return self.state.metric.read(question, text)

    async def grade(self, example: Example, reply: Reply) -> Score:
        inner = RunContext(self.state, "metric", example.question, None)
        score = self.state.metric.score(example, reply, inner)
        return score if isinstance(score, Score) else await score

    # ---------------------------------------------------------------- telling

    def warn(self, text: str) -> None:
        if text not in self.state.warnings:
            self.state.warnings.append(text)

    def note(self, **data: Any) -> None:
        self.state.on_note(self.phase, data)

    def tell(self, text: str) -> None:
        if self.state.on_reply is not None and self.phase == "respond":
            self.state.on_reply(text)

    def progress(self, what: str, done: int, total: int | None = None, note: str = "") -> None:
        self.state.on_progress(what, done, total, note)

    def _check(self, model: Model, capability: str) -> None:
        if capability in CAPABILITIES and not model.can(capability):
            raise CapabilityError(f"model {model.name!r} cannot {CAPABILITIES[capability]} (capability {capability!r})")
        if self._allowed is not None and capability in CAPABILITIES and capability not in self._allowed:
            raise CapabilityError(f"the method uses the capability {capability!r}, which its needs() does not declare")

    def _input(self, model: Model, prompt: Prompt, raw: bool) -> dict[str, Any]:
        if raw:
            if not isinstance(prompt, str):
                raise ModelCallError("raw=True takes text, not messages")
            return {"text": prompt}
        if isinstance(prompt, Question) and model.can("question"):
            return {"question": plain(prompt)}
        return {"messages": [[m.role, m.content] for m in as_messages(prompt)]}

    def _seed(self, model: Model, kind: str, given: Any, params: Mapping[str, Any], sample: int | None) -> int:
        content = canonical([model.fingerprint, model.copy, kind, given, params])
        if sample is None:
            sample = self._counter.get(content, 0)
            self._counter[content] = sample + 1
        scope = self.question.id if self.question else ""
        return int(digest("seed", self.seed, scope, content, sample)[:16], 16)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is not a cancellation caused by another one."""
    for error in group.exceptions:
        inner = first_error(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, asyncio.CancelledError):
            return inner
    return group.exceptions[0]
