"""A step session: one model and one growing text, seen from a method.

::

    session = await open_session(context, model, question)
    draft = await session.draft(16)                # looks ahead; the session stays where it is
    session.append_tokens(draft.ids)               # now it does not
    session.append_text(b" and somebody else's words")
    here = session.mark()
    ...
    session.rollback(here)

Only looking (``peek``, ``draft``, ``score``, ``hidden``) calls the engine, and calls of all sessions of a model that wait
at the same time share its forwards. Appending, marking, rolling back and forking are bookkeeping: the engine reuses of
its cache whatever prefix still holds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from moco_core.errors import CapabilityError
from moco_core.models import Model
from moco_core.types import Prompt, Sampling, Usage, as_messages
from moco_toolkit_decoding.ops import (
    Drafted,
    DraftOp,
    HeadGate,
    InspectOp,
    Opened,
    OpenOp,
    PeekOp,
    RowHandle,
    ScoreOp,
    Seen,
    TopGate,
    Traced,
)
from moco_toolkit_decoding.text import Vocabulary, common, starts_word

if TYPE_CHECKING:
    from moco_core.context import Context

__all__ = ["Draft", "Mark", "StepSession", "inspect", "logsumexp", "open_session"]

Draft = Drafted
CHUNK = 16
"""Tokens drafted per call, by default."""


@attrs.frozen
class Mark:
    """A place in a session to roll back to."""

    ids: tuple[int, ...]


@attrs.define
class Counter:
    """Tokens a session's model read and wrote; drafts that were thrown away are included."""

    read: int = 0
    written: int = 0
    calls: int = 0
    told: Usage = Usage()

    def untold(self) -> Usage:
        """Return the tokens since the last time, for the run's count of them."""
        before, self.told = self.told, Usage(self.read, self.written)
        return Usage(self.read - before.prompt_tokens, self.written - before.completion_tokens)


async def inspect(context: Context, model: Model, function: Callable[[Any], Any]) -> Any:
    """Return ``function(loaded)`` for the loaded model; it must change nothing."""
    op = InspectOp(function=function)
    return await context.call(model, "step", {}, {}, payload=op, cached=False, requires="step")


async def open_session(
    context: Context, model: Model, prompt: Prompt, *, raw: bool = False, reserve: int = 0
) -> StepSession:
    """Open a session on a rendered prompt; ``raw`` takes text as it is, without the chat template.

    ``reserve`` is how many tokens the reply may take. A model that cannot ``step`` gets a
    :class:`~moco_toolkit_decoding.texts.TextSession`, which asks for pieces of text. Raises PromptTooLong.
    """
    if not model.can("step"):
        from moco_toolkit_decoding.texts import TextSession

        return TextSession.on(context, model, prompt, raw=raw)
    given: dict[str, Any]
    given = {"text": prompt} if raw else {"messages": [[m.role, m.content] for m in as_messages(prompt)]}
    opened = await context.call(
        model, "step", {}, {}, payload=OpenOp(given=given, reserve=reserve), cached=False, requires="step"
    )
    return StepSession(context, model, opened)


def logsumexp(values: Sequence[float]) -> float:
    """Return log(sum(exp(v))); -inf of nothing."""
    top = max(values, default=-math.inf)
    return top + math.log(sum(math.exp(v - top) for v in values)) if top > -math.inf else top


class StepSession:
    """One model, its prompt, and the continuation so far: token ids whose bytes are :attr:`data`."""

    def __init__(
        self,
        context: Context,
        model: Model,
        opened: Opened,
        *,
        ids: Sequence[int] = (),
        parent: RowHandle | None = None,
        counter: Counter | None = None,
    ) -> None:
        self.context = context
        self.model = model
        self.opened = opened
        self.ids: list[int] = list(ids)
        self.counter = counter or Counter(read=len(opened.prompt))
        self._handle = RowHandle(parent)
        self._raw = b"".join(map(self.vocabulary.piece, self.ids))

    # ---------------------------------------------------------------- where it stands

    @property
    def vocabulary(self) -> Vocabulary:
        return self.opened.vocabulary

    @property
    def data(self) -> bytes:
        """The continuation as bytes; it may end inside a character."""
        return self._raw[1:] if self.vocabulary.drops_first_space and self._raw.startswith(b" ") else self._raw

    @property
    def text(self) -> str:
        """The continuation as text."""
        return self.data.decode("utf-8", "replace")

    @property
    def n_tokens(self) -> int:
        """Tokens of the continuation."""
        return len(self.ids)

    def weigh(self, ids: Sequence[int]) -> int:
        """Return how many tokens of the model these ids are."""
        return len(ids)

    def append_tokens(self, ids: Sequence[int]) -> None:
        """Continue with tokens of this model's own tokenizer."""
        self.ids += ids
        self._raw += b"".join(map(self.vocabulary.piece, ids))

    def append_text(self, text: str | bytes) -> None:
        """Continue with text that somebody else wrote.

        The end of the continuation is tokenised again together with the new text, so that the ids are what this tokenizer
        makes of the whole; the piece is never encoded alone. Raises CapabilityError if the tokenizer has no such tokens.
        """
        data = text.encode() if isinstance(text, str) else text
        if not data:
            return
        kept, new = self.vocabulary.extend(self.ids, data)
        self.ids[kept:] = new
        self._raw = b"".join(map(self.vocabulary.piece, self.ids))
        self.counter.read += len(new)

    def mark(self) -> Mark:
        """Remember this place."""
        return Mark(tuple(self.ids))

    def rollback(self, to: Mark | int) -> None:
        """Return to a mark, or drop the last so many tokens."""
        self.ids = list(to.ids) if isinstance(to, Mark) else self.ids[: len(self.ids) - to]
        self._raw = b"".join(map(self.vocabulary.piece, self.ids))

    def fork(self) -> StepSession:
        """Return a second session that stands at the same place; the cache is copied, not computed again."""
        return StepSession(
            self.context, self.model, self.opened, ids=self.ids, parent=self._handle, counter=self.counter
        )

    def close(self) -> None:
        """Give the cached row back. A session, closed, has the run count what it and its forks read and wrote."""
        self._handle.closed = True
        if self._handle.parent is None:
            usage = self.counter.untold()
            if usage != Usage():
                self.context.count(self.model, usage)

    def next_is_boundary(self, piece: bytes) -> bool:
        """Return whether a next token with these bytes would start a new word here."""
        return starts_word(self.data, piece)

    # ---------------------------------------------------------------- looking ahead

    async def peek(self, k: int = 1, *, want: Sequence[int] = (), full: bool = False, temperature: float = 1.0) -> Seen:
        """Return the next-token distribution: the ``k`` best ids, then the ``want`` ids, with log-probabilities.

        ``full`` adds the whole float32 vector (V,). A ``temperature`` other than 1 needs ``full`` and rescales it.
        """
        seen: Seen = await self._call(PeekOp(handle=self._handle, ids=self._whole(), k=k, want=tuple(want), full=full))
        if temperature != 1.0:
            if seen.full is None:
                raise ValueError("a temperature needs full=True: the rest of the distribution decides the scale")
            scaled = (seen.full / temperature).log_softmax(-1)
            seen = attrs.evolve(seen, full=scaled, logprobs=tuple(scaled[list(seen.ids)].tolist()))
        return seen

    async def hidden(self) -> Any:
        """Return the last layer's hidden state at the last token, float32 (H,)."""
        seen: Seen = await self._call(PeekOp(handle=self._handle, ids=self._whole(), k=0, hidden=True))
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
    ) -> Draft:
        """Let the model write up to ``n`` tokens; the session stays where it is unless ``commit``.

        Greedy unless ``sampling`` has a temperature; then ``generator`` gives one number per token and is left where the
        draft ended. ``gate`` refuses tokens from the ``free``-th on; ``words`` stops at the end of so many words, which are
        taken to be over after ``word_tokens`` tokens each; ``size`` limits the choice to ids below it; ``ends`` replaces the
        model's end tokens. ``chunk`` tokens are drafted per call; other work of the model waits meanwhile.
        Returns :class:`~moco_toolkit_decoding.ops.Drafted`.
        """
        settings = sampling or Sampling()
        if generator is None and not settings.greedy:
            raise ValueError("a draft with a temperature needs a generator")
        state = generator.getstate() if generator is not None and not settings.greedy else None
        parts: list[Drafted] = []
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
            part: Drafted = await self._call(op)
            parts.append(part)
            ids += part.ids
            state = part.state
            if part.reason != "length" or len(ids) >= n:
                break
        if generator is not None and state is not None:
            generator.setstate(state)
        self.counter.written += len(ids)
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
        """Score a continuation of this place, one forward; the session stays where it is.

        Text is tokenised in place; where that changes tokens before the seam, those are scored too.
        """
        here = self.mark()
        if isinstance(text, (str, bytes)):
            self.append_text(text)
        else:
            self.append_tokens(text)
        ids = list(self.ids)
        self.rollback(here)
        return await self.trace(ids, common(here.ids, ids))

    async def choice(self, labels: Sequence[str]) -> list[float]:
        """Return the log-probability of each label as what comes next, with and without a space in front taken together."""
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
        """Score a whole continuation ``ids`` (from the prompt on), teacher-forced, from its index ``start`` on.

        ``full`` adds all log-probabilities, ``hidden`` the hidden states that they come from; ``size`` limits the
        distribution to ids below it. Where the session stands does not matter and does not change.
        """
        begin = len(self.opened.prompt) + start
        op = ScoreOp(
            handle=self._handle,
            ids=[*self.opened.prompt, *ids],
            start=begin,
            full=full,
            hidden=hidden,
            size=size,
        )
        traced: Traced = await self._call(op)
        self.counter.read += len(ids) - start
        return traced

    async def look(self) -> Seen:
        """Return the whole next-token distribution and the hidden state it comes from."""
        op = PeekOp(handle=self._handle, ids=self._whole(), k=1, full=True, hidden=True)
        seen: Seen = await self._call(op)
        return seen

    async def reopen(self, prompt: Prompt) -> None:
        """Start again from another prompt; what the two prompts have in common at their beginning is not read again."""
        given = {"messages": [[m.role, m.content] for m in as_messages(prompt)]}
        before = self._whole()
        self.opened = await self._call(OpenOp(given=given))
        self.ids, self._raw = [], b""
        self.counter.read += len(self.opened.prompt) - common(before, self.opened.prompt)

    # ---------------------------------------------------------------- inside

    def _whole(self) -> list[int]:
        return [*self.opened.prompt, *self.ids]

    async def _call(self, op: Any) -> Any:
        if self._handle.closed:
            raise CapabilityError(f"the session of model {self.model.name!r} is closed; open another one")
        self.counter.calls += 1
        return await self.context.call(self.model, "step", {}, {}, payload=op, cached=False, requires="step")
