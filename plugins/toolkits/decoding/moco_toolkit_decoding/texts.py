"""Sessions of models that only write text: a server, say.

A :class:`TextSession` is used like a :class:`~moco_toolkit_decoding.session.StepSession`, and asks the model for pieces of text
that continue the answer. What is a token there is a word here: its ids number pieces of text. Log-probabilities of the
emitted tokens (capability ``logprobs``) serve gates and :meth:`TextSession.peek`; nothing else needs them. All calls go
through the cache, and are counted and recorded like any other.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from moco_core.errors import CapabilityError
from moco_core.models import Model
from moco_core.types import Generation, Message, Prompt, Sampling, as_messages
from moco_toolkit_decoding.ops import Drafted, HeadGate, Opened, Seen, TopGate
from moco_toolkit_decoding.session import CHUNK, Draft, Mark, StepSession, logsumexp
from moco_toolkit_decoding.text import Vocabulary, words

if TYPE_CHECKING:
    from moco_core.context import Context

__all__ = ["TextSession"]

LABEL_TOKENS = 4
"""Tokens in which a model that gives no scores may name its choice."""


class Pieces(Vocabulary):
    """Pieces of text by number; ``weights[id]`` is how many tokens of the model a piece took."""

    def __init__(self) -> None:
        self.tokenizer = self._backend = None
        self.special = self.ends = self.defined = frozenset()
        self.size = 0
        self.pieces: list[bytes] = []
        self.weights: list[int] = []
        self.single = {}
        self.drops_first_space, self.exact = False, True

    def add(self, data: bytes, weight: int) -> int:
        """Number a piece and return its number."""
        self.pieces.append(data)
        self.weights.append(weight)
        self.size = len(self.pieces)
        return self.size - 1

    def cut(self, text: str, tokens: int) -> list[int]:
        """Number the words of a text that took so many tokens, shared out by length."""
        out, total, done, given = [], len(text), 0, 0
        for word in words(text):
            done += len(word)
            share = round(tokens * done / total)
            out.append(self.add(word.encode(), share - given))
            given = share
        return out


class TextSession(StepSession):
    """One model, its prompt, and the continuation so far, asked for piece by piece. See :func:`open_session`."""

    prompt: str | tuple[Message, ...]

    @classmethod
    def on(cls, context: Context, model: Model, prompt: Prompt, *, raw: bool) -> TextSession:
        """Open a session; ``raw`` takes text as it is."""
        opened = Opened(vocabulary=Pieces(), prompt=(), context_length=model.context_length, meta={})
        session = cls(context, model, opened)
        session.prompt = str(prompt) if raw else as_messages(prompt)
        return session

    @property
    def _pieces(self) -> Pieces:
        assert isinstance(self.vocabulary, Pieces)
        return self.vocabulary

    @property
    def n_tokens(self) -> int:
        return self.weigh(self.ids)

    def weigh(self, ids: Sequence[int]) -> int:
        return sum(self._pieces.weights[i] for i in ids)

    def append_text(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        if data:
            # nobody tells how many tokens this is: about one for four letters
            self.append_tokens([self._pieces.add(data, -(-len(data) // 4))])

    def rollback(self, to: Mark | int) -> None:
        if isinstance(to, Mark):
            return super().rollback(to)
        kept = list(self.ids)
        while kept and self.weigh(self.ids) - self.weigh(kept) < to:
            kept.pop()
        return super().rollback(Mark(tuple(kept)))

    def fork(self) -> TextSession:
        other = TextSession(self.context, self.model, self.opened, ids=self.ids, counter=self.counter)
        other.prompt = self.prompt
        return other

    def close(self) -> None:
        self._handle.closed = True  # its calls were counted one by one

    async def reopen(self, prompt: Prompt) -> None:
        self.prompt = as_messages(prompt)
        super().rollback(Mark(()))

    # ---------------------------------------------------------------- asking

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
        """As in a step session, in whole words; a word cap is kept for all words of a draft together."""
        settings = attrs.evolve(sampling or Sampling(), stop=())
        if isinstance(gate, HeadGate) or (gate is not None and not settings.greedy):
            self._cannot("be gated by more than its greedy tokens' log-probabilities")
        whole, count, reason = "", 0, "length"
        limit = min(n, words * word_tokens) if words else n
        while count < limit and reason == "length":
            step = min(chunk, limit - count) if gate is not None or words else limit - count
            text, took, reason = await self._piece(whole, step, settings, gate, max(0, free - count))
            whole, count = whole + text, count + took
            parts = _words(whole)
            if words and len(parts) > words:
                kept = "".join(parts[:words])
                count, whole, reason = max(1, round(count * len(kept) / len(whole))), kept, "word"
            elif not took:
                break
        if words and reason == "length" and limit < n:
            reason = "word"
        ids = self._pieces.cut(whole, count)
        if commit:
            self.append_tokens(ids)
        begun = min(words, len(_words(whole)))
        return Drafted(ids=tuple(ids), logprobs=(), tops=(), reason=reason, words=begun)  # type: ignore[arg-type]

    async def _piece(
        self, so_far: str, n: int, settings: Sampling, gate: TopGate | None, free: int
    ) -> tuple[str, int, str]:
        """Return the next text of at most ``n`` tokens, its tokens, and why it is over; with a gate, greedy."""
        reply = await self._ask(so_far, n, settings)
        ended = reply.finish_reason == "eos"
        count = max(0, (reply.usage.completion_tokens or len(reply.token_ids)) - ended)
        if gate is not None:
            tops = self._logprobs(reply)
            refused = next((i for i, x in enumerate(tops) if i >= free and math.exp(x) < gate.least), None)
            if refused is not None and refused < max(count, 1):
                # greedy text of fewer tokens is the beginning of this one: asked for, it tells where the tokens end
                text = _complete((await self._ask(so_far, refused, settings)).text) if refused else ""
                return text, refused, "gate"
            if refused is not None:
                return reply.text, count, "gate"
        return _complete(reply.text) if not ended else reply.text, count, "end" if ended else "length"

    async def peek(self, k: int = 1, *, want: Sequence[int] = (), full: bool = False, temperature: float = 1.0) -> Seen:
        """Return the most probable next token; only that one can be had."""
        if k != 1 or want or full or temperature != 1.0:
            self._cannot("give more than its best next token")
        reply = await self._ask("", 1, Sampling())
        token = self._pieces.add(reply.text.encode(), 1)
        if not reply.token_logprobs and reply.finish_reason == "eos":
            return Seen(ids=(token,), logprobs=(-math.inf,))  # some servers give none for an end token
        return Seen(ids=(token,), logprobs=(self._logprobs(reply)[0],))

    async def choice(self, labels: Sequence[str]) -> list[float]:
        """As in a step session where the model can score; otherwise 0 for the label it names first, -inf for others."""
        if self.model.can("score"):
            forms = [form for label in labels for form in (label, " " + label)]
            given, raw = self._given("")
            scored = [s.logprob for s in await self.context.score(self.model, given, forms, raw=raw)]
            return [logsumexp(scored[i : i + 2]) for i in range(0, len(scored), 2)]
        said = (await self._ask("", LABEL_TOKENS, Sampling())).text
        pattern = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
        found = re.search(rf"(?<!\w)(?:{pattern})(?!\w)", said)
        return [0.0 if found is not None and found[0] == label else -math.inf for label in labels]

    def _given(self, more: str) -> tuple[Any, bool]:
        text = self.text + more
        if isinstance(self.prompt, str):
            return self.prompt + text, True
        return (*self.prompt, Message("assistant", text)) if text else self.prompt, False

    async def _ask(self, more: str, n: int, settings: Sampling) -> Generation:
        given, raw = self._given(more)
        reply = await self.context.generate(self.model, given, attrs.evolve(settings, max_new_tokens=n), raw=raw)
        self.counter.read += reply.usage.prompt_tokens
        self.counter.written += reply.usage.completion_tokens
        self.counter.calls += 1
        return reply

    def _logprobs(self, reply: Generation) -> Sequence[float]:
        if not reply.token_logprobs and reply.text:
            self._cannot("return the log-probabilities of its tokens")
        return reply.token_logprobs

    def _cannot(self, what: str) -> NoReturn:
        raise CapabilityError(
            f"model {self.model.name!r} cannot {what}; the transformers engine can (pip install moco-pool-transformers)"
        )

    async def hidden(self) -> Any:
        self._cannot("return hidden states")

    async def look(self) -> Seen:
        self._cannot("return hidden states")

    async def score(self, text: Any) -> Any:
        self._cannot("score within a session")

    async def trace(self, ids: Sequence[int], start: int = 0, **_: Any) -> Any:
        self._cannot("score within a session")


def _words(text: str) -> list[str]:
    """Cut text into words; white space at the very end belongs to the word that is not there yet."""
    parts = words(text)
    return parts[:-1] if parts and parts[-1].isspace() else parts


def _complete(text: str) -> str:
    """Drop the replacement characters at which a cut inside a character shows."""
    return text.rstrip("\ufffd")
