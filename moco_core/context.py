"""What a method does things with: every model call, every random number and every note goes through its context."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from moco_core.errors import CapabilityError, ModelCallError, PromptTooLong
from moco_core.models import CAPABILITIES, Call, Model, Pool
from moco_core.runtime.session import CallRecord, Evaluation, Session
from moco_core.types import (
    Answer,
    ContinuationScore,
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

if TYPE_CHECKING:
    from moco_core.data import Metric

__all__ = ["Context"]

T = TypeVar("T")


class Context:
    """The one argument of ``fit`` and ``respond`` beside their data.

    A context belongs to one question, or to fitting as a whole (``question`` is None there; :meth:`each` and :meth:`on`
    give contexts of single questions). Sampling seeds are derived from the run's seed, the question and the call itself.
    """

    def __init__(
        self,
        session: Session,
        *,
        phase: str,
        question: Question | None = None,
        allowed: frozenset[str] | None = None,
    ) -> None:
        self._session = session
        self.phase = phase
        self.question = question
        self._allowed = allowed
        self._counter: Counter[str] = Counter()
        self.calls: list[CallRecord] = []

    # ---------------------------------------------------------------- facts

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self._session.seed

    @property
    def sampling(self) -> Sampling:
        """The run's decoding settings: what a single model of the pool is asked with."""
        return self._session.sampling

    @property
    def metric(self) -> Metric[Any]:
        """The run's metric, for its ``utility`` and ``binary``; use :meth:`read` to read answers."""
        return self._session.metric

    def on(self, question: Question) -> Context:
        """Return a fresh context for one question, in the same phase."""
        return Context(self._session, phase=self.phase, question=question, allowed=self._allowed)

    def rng(self, *parts: Any) -> random.Random:
        """Return a generator that depends on the run's seed, the question and ``parts`` only."""
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
    ) -> Generation:
        """Have ``model`` write a reply.

        ``prompt`` is a question, user text or a conversation; a conversation that ends with an assistant message is
        continued. ``raw`` sends text as it is, without the chat template. ``sampling`` defaults to the run's.
        ``sample`` numbers independent samples of one call; without it, the n-th identical call of this context gets the
        number n. Raises ModelCallError.
        """
        settings = sampling or self.sampling
        params = settings.params()
        given = self._input(prompt, raw)
        seed = None if settings.greedy else self._seed(model, "generate", given, params, sample)
        result: Generation = await self.call(model, "generate", given, params, seed=seed)
        return result

    async def score(
        self, model: Model, prompt: Prompt, continuations: Sequence[str], *, raw: bool = False
    ) -> tuple[ContinuationScore, ...]:
        """Return the log-probabilities of given continuations of a rendered prompt, teacher-forced."""
        given = {**self._input(prompt, raw), "continuations": list(continuations)}
        result: tuple[ContinuationScore, ...] = await self.call(model, "score", given, {})
        return result

    async def embed(self, model: Model, texts: Sequence[str]) -> tuple[tuple[float, ...], ...]:
        """Return one embedding vector per text."""
        return tuple(tuple(v) for v in await self.call(model, "embed", {"texts": list(texts)}, {}))

    async def reward(self, model: Model, messages: Sequence[Message]) -> tuple[float, ...]:
        """Return the sequence-classification logits of a conversation (one number for a reward model)."""
        return tuple(await self.call(model, "reward", self._input(messages, False), {}))

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
        """Make a call of any kind; the methods above are this with the kinds every engine knows.

        ``requires`` is the capability it needs (by default ``kind``). With ``cached=False`` the call is stateful: it
        goes to the engine with its live ``payload`` and is neither stored nor recorded; see :meth:`count`.
        """
        self._check(model, requires or kind)
        request = Call(model, kind, given, params, seed, None, payload)
        if not cached:
            return await self._session.scheduler.uncached_call(request)
        result, hit = await self._session.scheduler.cached_call(request)
        self._record(request, result, hit)
        return result

    def count(self, model: Model, usage: Usage, *, calls: int = 1, cached: bool = False) -> None:
        """Count work of ``model`` that no call above shows, such as the steps of a session.

        It is reported with the tokens of the calls, and stands in the question's record as one line of the kind ``step``.
        ``cached`` tells that it was done before and is only used again.
        """
        slot = (self.phase, model.name)
        self._session.usage[slot] = self._session.usage.get(slot, Usage()) + usage
        self._session.calls[(*slot, cached)] += calls
        if self.question is None:
            return
        for i, line in enumerate(self.calls):
            if (line.kind, line.model, line.cached) == ("step", model.name, cached):
                self.calls[i] = attrs.evolve(line, usage=line.usage + usage)
                return
        self.calls.append(
            CallRecord(
                model=model.name,
                kind="step",
                phase=self.phase,
                key="",
                cached=cached,
                usage=usage,
                seen=None,
                said=None,
            )
        )

    async def once(self, what: Mapping[str, Any], compute: Callable[[], Awaitable[Any]]) -> Any:
        """Return the stored JSON result of a computation described by ``what``, computing it at most once ever.

        ``what`` must hold everything the result depends on: model fingerprints, inputs, settings, seeds.
        """
        return await self._session.scheduler.once(what, compute)

    # ---------------------------------------------------------------- many at once

    async def gather(
        self, aws: Iterable[Awaitable[T]], *, tolerate: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> list[Any]:
        """Await all, concurrently, in order. Errors of the ``tolerate`` types come back as values.

        Any other error cancels the rest and is raised itself.
        """

        async def run(aw: Awaitable[T]) -> Any:
            if not tolerate:
                return await aw
            try:
                return await aw
            except tolerate as error:
                return error

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run(aw)) for aw in aws]
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
        """Run ``work(item, context_of_that_question)`` for every item, a bounded number at once; results in order."""
        gate = asyncio.Semaphore(self._session.in_flight)
        done = 0

        async def run(item: Any) -> T:
            nonlocal done
            async with gate:
                question = item.question if isinstance(item, Example) else item
                result = await work(item, self.on(question))
            done += 1
            if label:
                self.progress(label, done, len(examples))
            return result

        return await self.gather(run(item) for item in examples)

    async def evaluate(
        self,
        models: Pool | Sequence[Model],
        examples: Sequence[Example],
        sampling: Sampling | None = None,
        *,
        label: str = "dev",
    ) -> Evaluation:
        """Ask every model every question alone and score the replies with the run's metric.

        Calls are shared with the baselines and with every other method through the cache. A question too long for a
        model counts as answered with nothing, with a warning: it is as long for that model in the test.
        """

        async def one(example: Example, scope: Context) -> list[tuple[Generation, float | None]]:
            async def ask(model: Model) -> tuple[Generation, float | None]:
                try:
                    reply = await scope.generate(model, example.question, sampling)
                except PromptTooLong as error:
                    self.warn(
                        f"{model.name}: {label} questions that are too long for it count as answered with nothing"
                    )
                    reply = Generation(text="", finish_reason="length", meta={"error": str(error)})
                return reply, (await scope.grade(example, Reply.of(reply))).value

            return await scope.gather(ask(m) for m in models)

        table = await self.each(examples, one, label=label)
        return Evaluation(
            names=tuple(m.name for m in models),
            scores=tuple(tuple(row[i][1] for row in table) for i in range(len(models))),
            replies=tuple(tuple(row[i][0] for row in table) for i in range(len(models))),
        )

    # ---------------------------------------------------------------- answers

    def read(self, question: Question, text: str) -> Answer:
        """Read the answer out of a reply, as the run's metric does."""
        return self._session.metric.read(question, text)

    async def grade(self, example: Example, reply: Reply) -> Score:
        """Score a reply with the run's metric (dev examples in ``fit``)."""
        inner = Context(self._session, phase="metric", question=example.question)
        score = self._session.metric.score(example, reply, inner)
        return score if isinstance(score, Score) else await score

    # ---------------------------------------------------------------- telling

    def warn(self, text: str) -> None:
        """Tell the user something once per run; it also stands in the run record."""
        if text not in self._session.warnings:
            self._session.warnings.append(text)

    def note(self, **data: Any) -> None:
        """Add a line of JSON data to the run's fit log (a step of a search, a chosen threshold)."""
        self._session.on_note(self.phase, data)

    def progress(self, what: str, done: int, total: int | None = None, note: str = "") -> None:
        """Move the live progress of a phase."""
        self._session.on_progress(what, done, total, note)

    # ---------------------------------------------------------------- inside

    def _check(self, model: Model, capability: str) -> None:
        if capability in CAPABILITIES and not model.can(capability):
            raise CapabilityError(f"model {model.name!r} cannot {CAPABILITIES[capability]} (capability {capability!r})")
        if self._allowed is not None and capability in CAPABILITIES and capability not in self._allowed:
            raise CapabilityError(f"the method uses the capability {capability!r}, which its needs() does not declare")

    def _input(self, prompt: Prompt, raw: bool) -> dict[str, Any]:
        if raw:
            if not isinstance(prompt, str):
                raise ModelCallError("raw=True takes text, not messages")
            return {"text": prompt}
        return {"messages": [[m.role, m.content] for m in as_messages(prompt)]}

    def _seed(self, model: Model, kind: str, given: Any, params: Mapping[str, Any], sample: int | None) -> int:
        content = canonical([model.fingerprint, model.copy, kind, given, params])
        if sample is None:
            sample = self._counter[content]
            self._counter[content] += 1
        scope = self.question.id if self.question else ""
        return int(digest("seed", self.seed, scope, content, sample)[:16], 16)

    def _record(self, call: Call, result: Any, hit: bool) -> None:
        usage = result.usage if isinstance(result, Generation) else Usage()
        if call.kind == "score":
            usage = Usage(sum(s.prompt_tokens + len(s.token_ids) for s in result))
        session, slot = self._session, (self.phase, call.model.name)
        session.usage[slot] = session.usage.get(slot, Usage()) + usage
        session.calls[(self.phase, call.model.name, hit)] += 1
        if not hit and isinstance(result, Generation) and "cost" in result.meta:  # money that this call cost
            session.money[slot] = session.money.get(slot, 0.0) + float(result.meta["cost"])
        if self.question is None:
            return
        said: Any = None
        if isinstance(result, Generation):
            said = {"text": result.text, "finish": result.finish_reason}
            if result.reasoning:
                said["reasoning"] = result.reasoning
        elif call.kind == "score":
            said = [round(c.logprob, 6) for c in result]
        elif call.kind == "reward":
            said = list(result)
        self.calls.append(
            CallRecord(
                model=call.model.name,
                kind=call.kind,
                phase=self.phase,
                key=call.key.hex() if call.key else "",
                cached=hit,
                usage=usage,
                seen=call.input,
                said=said,
            )
        )


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of a group that is not a cancellation caused by another one."""
    for error in group.exceptions:
        inner = first_error(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, asyncio.CancelledError):
            return inner
    return group.exceptions[0]
