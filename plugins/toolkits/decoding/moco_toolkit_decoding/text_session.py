"""Sessions of models that only write text: a server, say.

The model is asked for pieces of text that continue the answer. Log-probabilities of the emitted tokens (capability
``logprobs``) serve gates and ``peek``; nothing else needs them. All calls go through the cache, and are counted and recorded
like any other.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import attrs

from moco_core.context import Context
from moco_core.errors import CapabilityError
from moco_core.models import Model
from moco_core.types import Generation, Message, Prompt, Sampling, as_messages
from moco_toolkit_checkpoints.growing import settled
from moco_toolkit_decoding.ops import Draft, HeadGate, Seen, TopGate, Traced
from moco_toolkit_decoding.session import CHUNK, Counter, Mark, logsumexp
from moco_toolkit_decoding.text import words

__all__ = ["TextSession"]

LABEL_TOKENS = 4
"""Tokens in which a model that gives no scores may name its choice."""


class TextSession:
    """See :class:`~moco_toolkit_decoding.session.DecodingSession`; ids number pieces of text.

    ``prompt`` is text to be continued as it is, or a conversation.
    """

    tokenizes = False

    def __init__(
        self,
        context: Context,
        model: Model,
        prompt: str | tuple[Message, ...],
        *,
        origin: TextSession | None = None,
    ) -> None:
        self.context = context
        self.model = model
        self.prompt = prompt
        self.ids: list[int] = list(origin.ids) if origin is not None else []
        self.counter: Counter = origin.counter if origin is not None else Counter()
        # every piece so far, and how many tokens of the model it took; a session and its forks number them together
        self._pieces: list[tuple[bytes, int]] = origin._pieces if origin is not None else []

    # ---------------------------------------------------------------- where it stands

    @property
    def data(self) -> bytes:
        return self.spell(self.ids, first=True)

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")

    @property
    def n_tokens(self) -> int:
        return self.weigh(self.ids)

    def weigh(self, ids: Sequence[int]) -> int:
        return sum(self._pieces[i][1] for i in ids)

    def piece(self, token: int) -> bytes:
        return self._pieces[token][0]

    def spell(self, ids: Sequence[int], *, first: bool) -> bytes:
        return b"".join(map(self.piece, ids))

    def answer_in(self, text: str) -> tuple[str, str]:
        return "", text  # a server has taken its reasoning out already

    def answer_so_far(self, text: str, stops: Sequence[str]) -> str:
        return settled(text, stops)

    def append_tokens(self, ids: Sequence[int]) -> None:
        self.ids += ids

    def append_text(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        if data:
            # nobody tells how many tokens this is: about one for four letters
            self.append_tokens([self._add(data, -(-len(data) // 4))])

    def mark(self) -> Mark:
        return Mark(tuple(self.ids))

    def rollback(self, to: Mark | int) -> None:
        if isinstance(to, Mark):
            self.ids = list(to.ids)
            return
        before = self.n_tokens
        while self.ids and before - self.n_tokens < to:
            self.ids.pop()

    def fork(self) -> TextSession:
        return TextSession(self.context, self.model, self.prompt, origin=self)

    def close(self) -> None:
        """Do nothing: its calls were counted one by one."""

    async def reopen(self, prompt: Prompt) -> None:
        self.prompt = as_messages(prompt)
        self.ids = []

    def _add(self, data: bytes, weight: int) -> int:
        """Number a piece."""
        self._pieces.append((data, weight))
        return len(self._pieces) - 1

    def _cut(self, text: str, tokens: int) -> list[int]:
        """Number the words of a text that took so many tokens, shared out by length."""
        out, total, done, given = [], len(text), 0, 0
        for word in words(text):
            done += len(word)
            share = round(tokens * done / total)
            out.append(self._add(word.encode(), share - given))
            given = share
        return out

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
        tell: Callable[[Sequence[int]], None] | None = None,
    ) -> Draft:
        """As in a step session, in whole words; a word cap is kept for all words of a draft together. Nothing is told."""
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
        ids = self._cut(whole, count)
        if commit:
            self.append_tokens(ids)
        begun = min(words, len(_words(whole)))
        return Draft(ids=tuple(ids), logprobs=(), tops=(), reason=reason, words=begun)  # type: ignore[arg-type]

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
        token = self._add(reply.text.encode(), 1)
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
            f"model {self.model.name!r} cannot {what}; `moco list pool --can step` names the pools whose models can"
        )

    # ---------------------------------------------------------------- what text alone does not tell

    async def hidden(self) -> Any:
        self._cannot("return hidden states")

    async def look(self) -> Seen:
        self._cannot("return hidden states")

    async def score(self, text: str | bytes | Sequence[int]) -> Traced:
        self._cannot("score within a session")

    async def trace(
        self, ids: Sequence[int], start: int = 0, *, full: bool = False, hidden: bool = False, size: int | None = None
    ) -> Traced:
        self._cannot("score within a session")


def _words(text: str) -> list[str]:
    """Cut text into words; white space at the very end belongs to the word that is not there yet."""
    parts = words(text)
    return parts[:-1] if parts and parts[-1].isspace() else parts


def _complete(text: str) -> str:
    """Drop the replacement characters at which a cut inside a character shows."""
    return text.rstrip("\ufffd")
