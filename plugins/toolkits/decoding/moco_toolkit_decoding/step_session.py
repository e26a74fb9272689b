"""Sessions of models that can ``step``: token ids, the engine's cache, and calls that share forwards.

Calls of all sessions of a model that wait at the same time are answered together. The engine reuses of its cache whatever
prefix still holds, so that marks, rollbacks and forks cost nothing; see :mod:`moco_toolkit_decoding.ops`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from moco_core.context import Context
from moco_core.errors import CapabilityError
from moco_core.models import Model
from moco_core.types import Prompt, Sampling, Usage, as_messages
from moco_toolkit_checkpoints.growing import answer_so_far
from moco_toolkit_checkpoints.reasoning import split
from moco_toolkit_decoding.ops import (
    Draft,
    DraftOp,
    HeadGate,
    Opened,
    OpenOp,
    PeekOp,
    RowHandle,
    ScoreOp,
    Seen,
    StepOp,
    TopGate,
    Traced,
)
from moco_toolkit_decoding.session import CHUNK, Counter, Mark, logsumexp
from moco_toolkit_decoding.steps import Served
from moco_toolkit_decoding.text import Vocabulary, common

__all__ = ["StepSession", "call"]


async def call(context: Context, model: Model, op: StepOp) -> Any:
    """Have the model's engine answer an operation."""
    return await context.call(model, "step", {}, {}, payload=Served(op), cached=False, requires="step")


class StepSession:
    """See :class:`~moco_toolkit_decoding.session.DecodingSession`; ids are tokens of the model's own tokenizer."""

    tokenizes = True

    def __init__(
        self,
        context: Context,
        model: Model,
        opened: Opened,
        *,
        origin: StepSession | None = None,
    ) -> None:
        self.context = context
        self.model = model
        self.opened = opened
        self.ids: list[int] = list(origin.ids) if origin is not None else []
        self.counter: Counter = origin.counter if origin is not None else Counter()
        self._handle: RowHandle = RowHandle(origin._handle if origin is not None else None)
        self._raw = self.spell(self.ids, first=False)
        # what the model has read or written, with the prompt: a cache that is never full would hold it
        self._counted: Sequence[int] = origin._counted if origin is not None else ()

    # ---------------------------------------------------------------- where it stands

    @property
    def vocabulary(self) -> Vocabulary:
        """The byte view of the model's tokenizer."""
        return self.opened.vocabulary

    @property
    def data(self) -> bytes:
        return self._raw[1:] if self.vocabulary.drops_first_space and self._raw.startswith(b" ") else self._raw

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")

    @property
    def n_tokens(self) -> int:
        return len(self.ids)

    def weigh(self, ids: Sequence[int]) -> int:
        return len(ids)

    def piece(self, token: int) -> bytes:
        return self.vocabulary.piece(token)

    def spell(self, ids: Sequence[int], *, first: bool) -> bytes:
        return self.vocabulary.text(ids, first=first)

    def answer_in(self, text: str) -> tuple[str, str]:
        return split(text, self.opened.tags, self.opened.closing)

    def answer_so_far(self, text: str, stops: Sequence[str]) -> str:
        return answer_so_far(text, stops, self.opened.tags, self.opened.closing)

    def append_tokens(self, ids: Sequence[int]) -> None:
        self.ids += ids
        self._raw += self.spell(ids, first=False)

    def append_text(self, text: str | bytes) -> None:
        """Continue with text.

        The end of the continuation is tokenised again together with the new text, so that the ids are what this tokenizer
        makes of the whole; the piece is never encoded alone. Raises CapabilityError if the tokenizer has no such tokens.
        """
        data = text.encode() if isinstance(text, str) else text
        if not data:
            return
        kept, new = self.vocabulary.extend(self.ids, data)
        self.ids[kept:] = new
        self._raw = self.spell(self.ids, first=False)

    def mark(self) -> Mark:
        return Mark(tuple(self.ids))

    def rollback(self, to: Mark | int) -> None:
        self.ids = list(to.ids) if isinstance(to, Mark) else self.ids[: len(self.ids) - to]
        self._raw = self.spell(self.ids, first=False)

    def fork(self) -> StepSession:
        # the cache is copied, not computed again
        return StepSession(self.context, self.model, self.opened, origin=self)

    def close(self) -> None:
        self._handle.closed = True
        if self._handle.parent is None:
            usage = self.counter.untold()
            if usage != Usage():
                self.context.count(self.model, usage)

    # ---------------------------------------------------------------- looking ahead

    async def peek(self, k: int = 1, *, want: Sequence[int] = (), full: bool = False, temperature: float = 1.0) -> Seen:
        seen: Seen = await self._ask(PeekOp(handle=self._handle, ids=self._whole(), k=k, want=tuple(want), full=full))
        if temperature != 1.0:
            if seen.full is None:
                raise ValueError("a temperature needs full=True: the rest of the distribution decides the scale")
            scaled = (seen.full / temperature).log_softmax(-1)
            seen = attrs.evolve(seen, full=scaled, logprobs=tuple(scaled[list(seen.ids)].tolist()))
        return seen

    async def hidden(self) -> Any:
        seen: Seen = await self._ask(PeekOp(handle=self._handle, ids=self._whole(), k=0, hidden=True))
        return seen.hidden

    async def draft(
        self,
        n: int,
        *,
        sampling: Sampling | None = None,
        generator: random.Random | None = None,
        gate: TopGate | HeadGate | None = None,
        free: int = 0,
        words: int = 0,
        word_tokens: int = 1 << 30,
        size: int | None = None,
        ends: frozenset[int] | None = None,
        chunk: int = CHUNK,
        commit: bool = False,
        tell: Callable[[Sequence[int]], None] | None = None,
    ) -> Draft:
        settings = sampling or Sampling()
        if generator is None and not settings.greedy:
            raise ValueError("a draft with a temperature needs a generator")
        state = generator.getstate() if generator is not None and not settings.greedy else None
        parts: list[Draft] = []
        ids: list[int] = []
        while True:
            op = DraftOp(
                handle=self._handle,
                ids=self._whole() + ids,
                # words are counted within one call
                n=n if words else min(chunk, n - len(ids)),
                sampling=settings,
                state=state,
                gate=gate,
                free=max(0, free - len(ids)),
                words=words,
                word_tokens=word_tokens,
                done=len(self.ids) + len(ids),
                size=size,
                ends=ends,
            )
            part: Draft = await self._ask(op)
            self._counted = (*op.ids, *part.ids)
            self.counter.written += len(part.ids)
            parts.append(part)
            ids += part.ids
            state = part.state
            if part.reason != "length" or len(ids) >= n:
                break
            if tell is not None:
                tell(ids)
        if generator is not None and state is not None:
            generator.setstate(state)
        if commit:
            self.append_tokens(ids)
        if len(parts) == 1:
            return parts[0]
        return attrs.evolve(
            parts[-1],
            ids=tuple(ids),
            logprobs=tuple(x for p in parts for x in p.logprobs),
            tops=tuple(x for p in parts for x in p.tops),
            gates=tuple(x for p in parts for x in p.gates),
        )

    async def score(self, text: str | bytes | Sequence[int]) -> Traced:
        # text is tokenised in place; where that changes tokens before the seam, those are scored too
        here = self.mark()
        if isinstance(text, (str, bytes)):
            self.append_text(text)
        else:
            self.append_tokens(text)
        ids = list(self.ids)
        self.rollback(here)
        return await self.trace(ids, common(here.ids, ids))

    async def choice(self, labels: Sequence[str]) -> list[float]:
        single = self.vocabulary.single
        forms = [[single.get(label.encode()), single.get(b" " + label.encode())] for label in labels]
        if all(form[0] is not None for form in forms):
            want = [i for form in forms for i in form if i is not None]
            seen = await self.peek(0, want=want)
            found = dict(zip(want, seen.logprobs, strict=True))
            return [logsumexp([found[i] for i in form if i is not None]) for form in forms]
        return [sum((await self.score(label)).logprobs) for label in labels]

    async def trace(
        self, ids: Sequence[int], start: int = 0, *, full: bool = False, hidden: bool = False, size: int | None = None
    ) -> Traced:
        begin = len(self.opened.prompt) + start
        op = ScoreOp(
            handle=self._handle,
            ids=[*self.opened.prompt, *ids],
            start=begin,
            full=full,
            hidden=hidden,
            size=size,
        )
        traced: Traced = await self._ask(op)
        return traced

    async def look(self) -> Seen:
        op = PeekOp(handle=self._handle, ids=self._whole(), k=1, full=True, hidden=True)
        seen: Seen = await self._ask(op)
        return seen

    async def reopen(self, prompt: Prompt) -> None:
        # what the two prompts have in common at their beginning is not read again
        given = {"messages": [[m.role, m.content] for m in as_messages(prompt)]}
        self.opened = await self._call(OpenOp(given=given))
        self.ids, self._raw = [], b""

    # ---------------------------------------------------------------- inside

    def _whole(self) -> list[int]:
        return [*self.opened.prompt, *self.ids]

    async def _ask(self, op: PeekOp | DraftOp | ScoreOp) -> Any:
        """Have the model read what it has not read yet, and answer."""
        answer = await self._call(op)
        kept = common(self._counted, op.ids)
        if isinstance(op, ScoreOp):  # what it scores is read again: nothing remembers scores
            kept = min(kept, op.start)
        self.counter.read += len(op.ids) - kept
        self._counted = op.ids
        return answer

    async def _call(self, op: StepOp) -> Any:
        if self._handle.closed:
            raise CapabilityError(f"the session of model {self.model.name!r} is closed; open another one")
        self.counter.calls += 1
        return await call(self.context, self.model, op)
