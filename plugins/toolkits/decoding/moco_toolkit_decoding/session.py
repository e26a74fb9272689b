"""What a method works with token by token: one model and one growing text.

::

    session = await open_session(context, model, question)
    draft = await session.draft(16)                # looks ahead; the session stays where it is
    session.append_tokens(draft.ids)               # now it does not
    session.append_text(b" and somebody else's words")
    here = session.mark()
    ...
    session.rollback(here)

Looking (``peek``, ``draft``, ``score``, ``hidden``) calls the model; appending, marking, rolling back and forking are
bookkeeping. There are two kinds: :class:`~moco_toolkit_decoding.step_session.StepSession` for models that can ``step``, and
:class:`~moco_toolkit_decoding.text_session.TextSession` for those that only write text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import attrs

from moco_core.models import Model
from moco_core.types import Prompt, Sampling, Usage
from moco_toolkit_decoding.ops import Draft, HeadGate, Seen, TopGate, Traced

__all__ = ["CHUNK", "Counter", "DecodingSession", "Mark", "logsumexp"]

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


class DecodingSession(Protocol):
    """One model, its prompt, and the continuation so far: ``ids`` whose bytes are ``data``.

    An id numbers a piece of text: a token of the model's own tokenizer where ``tokenizes``, else a word that the model wrote
    or a text that it was given, known to this session and its forks alone. What a model cannot do raises CapabilityError.
    """

    model: Model
    ids: list[int]
    counter: Counter
    tokenizes: bool

    @property
    def data(self) -> bytes:
        """The continuation as bytes; it may end inside a character."""

    @property
    def text(self) -> str:
        """The continuation as text."""

    @property
    def n_tokens(self) -> int:
        """Tokens of the continuation; an estimate unless the session ``tokenizes``."""

    def weigh(self, ids: Sequence[int]) -> int:
        """Return how many tokens of the model these ids are."""

    def piece(self, token: int) -> bytes:
        """Return the bytes of one id."""

    def spell(self, ids: Sequence[int], *, first: bool) -> bytes:
        """Return the bytes of ids; at the beginning of a reply (``first``) without the space that some tokenizers add."""

    def answer_in(self, text: str) -> tuple[str, str]:
        """Return ``(reasoning, answer)`` of a whole continuation of this session's prompt, as a single model's reply has it."""

    def answer_so_far(self, text: str, stops: Sequence[str]) -> str:
        """Return how the answer begins of a continuation that still grows and ends before one of ``stops``."""

    def append_tokens(self, ids: Sequence[int]) -> None:
        """Continue with ids of this session: those of a draft, say."""

    def append_text(self, text: str | bytes) -> None:
        """Continue with text that somebody else wrote."""

    def mark(self) -> Mark:
        """Remember this place."""

    def rollback(self, to: Mark | int) -> None:
        """Return to a mark, or drop the last so many tokens."""

    def fork(self) -> Self:
        """Return a second session that stands at the same place."""

    def close(self) -> None:
        """Give back what the session holds. Once closed, the run has counted what it and its forks read and wrote."""

    async def reopen(self, prompt: Prompt) -> None:
        """Start again from another prompt."""

    async def peek(self, k: int = 1, *, want: Sequence[int] = (), full: bool = False, temperature: float = 1.0) -> Seen:
        """Return the next-token distribution: the ``k`` best ids, then the ``want`` ids, with log-probabilities.

        ``full`` adds the whole float32 vector (V,). A ``temperature`` other than 1 needs ``full`` and rescales it.
        """

    async def look(self) -> Seen:
        """Return the whole next-token distribution and the hidden state it comes from."""

    async def hidden(self) -> Any:
        """Return the last layer's hidden state at the last token, float32 (H,)."""

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
        """Let the model write up to ``n`` tokens; the session stays where it is unless ``commit``.

        Greedy unless ``sampling`` has a temperature; then ``generator`` gives one number per token and is left where the
        draft ended. ``gate`` refuses tokens from the ``free``-th on; ``words`` stops at the end of so many words, which are
        taken to be over after ``word_tokens`` tokens each; ``size`` limits the choice to ids below it; ``ends`` replaces the
        model's end tokens. ``chunk`` tokens are drafted per call; other work of the model waits meanwhile. ``tell`` is told
        all ids of the draft after each call that does not end it.
        """

    async def score(self, text: str | bytes | Sequence[int]) -> Traced:
        """Score a continuation of this place, one forward; the session stays where it is."""

    async def trace(
        self, ids: Sequence[int], start: int = 0, *, full: bool = False, hidden: bool = False, size: int | None = None
    ) -> Traced:
        """Score a whole continuation ``ids`` (from the prompt on), teacher-forced, from its index ``start`` on.

        ``full`` adds all log-probabilities, ``hidden`` the hidden states that they come from; ``size`` limits the
        distribution to ids below it. Where the session stands does not matter and does not change.
        """

    async def choice(self, labels: Sequence[str]) -> list[float]:
        """Return the log-probability of each label as what comes next, with and without a space in front taken together."""


def logsumexp(values: Sequence[float]) -> float:
    """Return log(sum(exp(v))); -inf of nothing."""
    top = max(values, default=-math.inf)
    return top + math.log(sum(math.exp(v - top) for v in values)) if top > -math.inf else top
