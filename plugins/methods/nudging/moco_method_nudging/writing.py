"""Writing one answer: nudge phases and base phases in turn, until somebody ends it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from typing import Any

from moco_core import Context, Model, Question, Sampling
from moco_method_nudging.options import Options
from moco_toolkit_decoding import DecodingSession, JointAnswer, TopGate, open_session
from moco_toolkit_decoding.text import common

__all__ = ["Writing", "repeats", "without_repeated_end", "write"]

BASE, NUDGING = 0, 1
REPEATS = 4
"""The same nudge in so many consecutive rounds ends the answer before it (author code: three repeats of the first)."""
REPEATED_WORDS = 5
"""A piece of more words than this may not come twice under ``repetition_guard`` (author code)."""


async def write(
    models: Sequence[Model],
    question: Question,
    options: Options,
    gamma: float,
    sampling: Sampling,
    shared: bool,
    context: Context,
) -> dict[str, Any]:
    """Write the answer of ``models`` (base, nudging) to one question; ``shared`` tells that they have one tokenizer.

    Returns what ``JointAnswer.result`` does.
    """
    limit = sampling.max_new_tokens
    if options.base_prompt == "plain":
        text = "\n\n".join(m.content for m in question.messages())
        prompt = options.plain_template.replace("{question}", text)
        opening = open_session(context.role("base"), models[BASE], prompt, raw=True, reserve=limit)
    else:
        opening = open_session(context.role("base"), models[BASE], question, reserve=limit)
    sessions = await context.gather(
        [opening, open_session(context.role("nudging"), models[NUDGING], question, reserve=limit)]
    )
    listener = None if options.repetition_guard else context.tell  # the guard takes back what was written
    answer = JointAnswer(sessions, shared=shared, stops=sampling.stop, listener=listener)
    writing = Writing(answer, options, gamma, sampling, context.rng("nudging"))
    try:
        return await writing.run()
    finally:
        answer.close()


class Writing:
    """The state of one answer."""

    def __init__(
        self, answer: JointAnswer, options: Options, gamma: float, sampling: Sampling, generator: random.Random
    ) -> None:
        self.answer, self.options, self.gamma = answer, options, gamma
        self.sampling, self.generator = sampling, generator
        self.rounds = self.handovers = self.agreements = 0
        self.reason = ""
        self._last, self._repeats = b"", 0

    async def run(self) -> dict[str, Any]:
        """Alternate until the answer has ended."""
        answer = self.answer
        while answer.finish is None:
            if self.rounds == self.options.max_rounds:
                self._end("length", "max_rounds")
                break
            self.rounds += 1
            if await self._nudge():
                await self._base()
        if self.options.repetition_guard:
            answer.data = without_repeated_end(answer.text).encode()
        return answer.result(
            rounds=self.rounds,
            handovers=self.handovers,
            agreements=self.agreements,
            ended_by=self.reason or answer.finish,
        )

    def _end(self, finish: Any, reason: str) -> None:
        self.answer.finish, self.reason = finish, reason

    def _room(self) -> int:
        """Tokens that may still be written, counted by the base model; ends the answer if there are none."""
        room = self.sampling.max_new_tokens - self.answer.tokens(BASE)
        if room <= 0 and self.answer.finish is None:
            self.answer.truncate(self.sampling.max_new_tokens, BASE)
        elif room > 0:
            self.answer.tell()
        return room

    # ---------------------------------------------------------------- nudge phase

    async def _nudge(self) -> bool:
        """Let the nudging model add words; return whether the base model takes over."""
        room = self._room()
        if self.answer.finish is not None:
            return False
        session = self.answer.turn(NUDGING)
        draft = await session.draft(
            min(self.options.nudge_tokens, room), sampling=self.sampling, generator=self.generator
        )
        if draft.reason == "end":
            self.answer.commit(NUDGING, draft.ids)
            if self.answer.finish is None:
                self._end("eos", "nudging")
            return False
        words = self.answer.words(NUDGING, draft.ids)
        taken, takeover = len(words), False
        if len(words) > 1:
            found = await self._handover(words)
            taken, takeover = (found, True) if found is not None else (len(words) - 1, False)
        ids = [token for word in words[:taken] for token in word]
        if not takeover and len(words) == 1:
            # a single word is followed by another nudge: what is left of a character comes then
            ids = self.answer.whole(NUDGING, ids, words=False) or ids
        text = self.answer.drafted(NUDGING, ids)
        self._repeats = self._repeats + 1 if text == self._last else 1
        self._last = text
        if not text:
            self._end("eos", "empty nudge")
        elif self._repeats >= REPEATS:
            self._end("stop", "repeated nudge")
        else:
            self.answer.commit(NUDGING, ids)
        return takeover and self.answer.finish is None

    async def _handover(self, words: Sequence[Sequence[int]]) -> int | None:
        """Return the number of words after which the base model takes over, or None if it never does.

        The base model looks at the place before each word but the first: it takes over if its top probability is at least
        gamma, or if its top token opens the word that the nudging model wants to write next (agreement).
        """
        pieces = [self.answer.drafted(NUDGING, word) for word in words]
        base = self.answer.turn(BASE)
        looks: list[tuple[int, float]] = []
        if base.tokenizes:
            looks = await self._looks(base, [list(w) for w in words[:-1]], pieces[:-1])
        for j in range(1, len(words)):
            # a model that only writes text looks at one place after the other, and no further than needed
            token, logprob = looks[j - 1] if looks else await self._look_at_text(base, b"".join(pieces[:j]))
            opening = base.piece(token)
            sure = math.exp(logprob) >= self.gamma
            agrees = self.options.agreement_rule and bool(opening) and pieces[j].startswith(opening)
            if sure or agrees:
                self.handovers += 1
                self.agreements += not sure
                return j
        return None

    @staticmethod
    async def _look_at_text(session: DecodingSession, text: bytes) -> tuple[int, float]:
        here = session.mark()
        session.append_text(text)
        try:
            seen = await session.peek()
        finally:
            session.rollback(here)
        return seen.ids[0], seen.logprobs[0]

    async def _looks(
        self, session: DecodingSession, words: Sequence[list[int]], pieces: Sequence[bytes]
    ) -> list[tuple[int, float]]:
        """Return the base model's top token and log-probability after each of ``words``, in one forward where possible."""
        here = session.mark()
        if self.answer.shared:
            ids = [token for word in words for token in word]
            places, at = [], 0
            for word in words:
                at += len(word)
                places.append(at)
            seen = await session.trace([*here.ids, *ids], len(here.ids))
            return [(seen.top_ids[p], seen.top_logprobs[p]) for p in places]
        # different tokenizers: a boundary can be read off the encoding of the whole where encoding the prefix gives a
        # prefix of it; elsewhere the base model looks at that prefix by itself
        prefixes: list[list[int]] = []
        for n in range(1, len(pieces) + 1):
            session.append_text(b"".join(pieces[:n]))
            prefixes.append(list(session.ids))
            session.rollback(here)
        whole = prefixes[-1]
        start = min(len(here.ids), min(common(p, whole) for p in prefixes))
        seen = await session.trace(whole, start)
        out: list[tuple[int, float]] = []
        for prefix in prefixes:
            if whole[: len(prefix)] == prefix and len(prefix) >= start:
                p = len(prefix) - start
                out.append((seen.top_ids[p], seen.top_logprobs[p]))
            else:
                out.append(await self._look_alone(session, prefix))
        return out

    @staticmethod
    async def _look_alone(session: DecodingSession, ids: list[int]) -> tuple[int, float]:
        here = session.mark()
        session.rollback(len(session.ids))
        session.append_tokens(ids)
        try:
            seen = await session.peek()
        finally:
            session.rollback(here)
        return seen.ids[0], seen.logprobs[0]

    # ---------------------------------------------------------------- base phase

    async def _base(self) -> None:
        """Let the base model write while it is sure; the token that triggered the hand-over is taken in any case."""
        answer, room = self.answer, self._room()
        if answer.finish is not None:
            return
        draft = await answer.turn(BASE).draft(
            room,
            sampling=self.sampling,
            generator=self.generator,
            gate=TopGate(self.gamma),
            free=1,
            chunk=self.options.base_chunk,
            tell=lambda ids: answer.tell(answer.drafted(BASE, answer.whole(BASE, ids, words=False))),
        )
        ids = self.answer.whole(BASE, draft.ids, words=False)
        fresh = self._fresh(ids) if self.options.repetition_guard else len(ids)
        self.answer.commit(BASE, ids[:fresh])
        if fresh < len(ids) and self.answer.finish is None:
            self._end("stop", "repeated chunk")
        if draft.reason == "end" and self.options.base_eos == "stop" and self.answer.finish is None:
            self._end("eos", "base")

    def _fresh(self, ids: Sequence[int]) -> int:
        """Return how many base tokens come before the first chunk that the answer has already."""
        size, told = self.options.base_chunk, self.answer.data
        for at in range(0, len(ids), size):
            chunk = self.answer.drafted(BASE, ids[at : at + size])
            if repeats(chunk, told):
                return at
            told += chunk
        return len(ids)


def repeats(chunk: bytes, told: bytes) -> bool:
    """Return whether a chunk of more than five words stands in what was told before."""
    return len(chunk.split()) > REPEATED_WORDS and chunk.strip() in told


def without_repeated_end(text: str) -> str:
    """Drop copies of a piece of more than five words at the end of a text, until it ends in no piece twice."""
    words = [(found.group(), found.start()) for found in re.finditer(r"\S+", text)]
    size = REPEATED_WORDS + 1
    while 2 * size <= len(words):
        told = [word for word, _ in words]
        if told[-size:] == told[-2 * size : -size]:
            text = text[: words[-size][1]].rstrip()
            words, size = words[:-size], REPEATED_WORDS + 1
        else:
            size += 1
    return text
