"""Writing one answer patch by patch."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from moco_core import Context, Model, PromptTooLong, Question, Sampling
from moco_method_switch_generation.options import Options
from moco_method_switch_generation.switcher import Switcher
from moco_toolkit_decoding import DecodingSession, JointAnswer, open_session
from moco_toolkit_decoding.text import valid_prefix

__all__ = ["Patch", "Writing", "opened", "texts_of", "write"]


@attrs.define
class Patch:
    """A committed piece: the writer's index, why it wrote, and the bytes of the answer from ``start`` to ``end``.

    The reasons are ``switcher``, ``first``, ``last`` and ``fallback`` (the switcher could not read the answer so far). A cue
    belongs to the patch that it stands at.
    """

    writer: int
    reason: str
    start: int
    end: int


def texts_of(patches: Sequence[Patch], data: bytes) -> list[str]:
    """Return what each patch says; a character split between two of them belongs to the one that finished it."""
    text, places = data.decode("utf-8", "replace"), _places(patches, data)
    return [text[start:end] for start, end in places]


def _places(patches: Sequence[Patch], data: bytes) -> list[tuple[int, int]]:
    def place(at: int) -> int:
        return len(valid_prefix(data[:at]).decode("utf-8", "replace")) if at < len(data) else len(whole)

    whole = data.decode("utf-8", "replace")
    return [(place(p.start), place(p.end)) for p in patches]


async def write(
    writers: Sequence[Model],
    question: Question,
    options: Options,
    shared: bool,
    switcher: Switcher,
    context: Context,
) -> dict[str, Any]:
    """Write one answer; ``shared`` tells that all writers have one tokenizer. See ``JointAnswer.result``."""
    generator = context.rng("switch_generation")
    async with opened(writers, question, options, shared, switcher, context, context.sampling, generator) as writing:
        return await writing.run()


@asynccontextmanager
async def opened(
    writers: Sequence[Model],
    question: Question,
    options: Options,
    shared: bool,
    switcher: Switcher,
    context: Context,
    sampling: Sampling,
    generator: random.Random,
) -> AsyncIterator[Writing]:
    """Give an answer that is to be written, with these decoding settings and draws; its sessions are closed behind it."""
    limit = sampling.max_new_tokens
    sessions = await context.gather(open_session(context, m, question, reserve=limit) for m in writers)
    answer = JointAnswer(sessions, shared=shared, stops=sampling.stop, listener=context.tell)
    try:
        yield Writing(answer, options, switcher, context, sampling, generator)
    finally:
        switcher.close()
        answer.close()


class Writing:
    """The state of one answer."""

    def __init__(
        self,
        answer: JointAnswer,
        options: Options,
        switcher: Switcher,
        context: Context,
        sampling: Sampling,
        generator: random.Random,
    ) -> None:
        self.answer, self.options, self.switcher, self.context = answer, options, switcher, context
        self.sampling, self.generator = sampling, generator
        self.limit = sampling.max_new_tokens
        self.patches: list[Patch] = []
        self.used = self.waits = 0
        self.cue: int | None = None
        """Tokens of the answer cue, once a session is there to count them; 0 if there is none or it has been put."""
        if not options.answer_cue:
            self.cue = 0

    async def run(self) -> dict[str, Any]:
        """Write patches until the answer has ended."""
        answer = self.answer
        while answer.finish is None:
            if self.used >= self.limit:
                answer.finish = "length"
                break
            answer.tell()
            who, reason = await self._writer()
            await self._patch(who, reason)
        result = answer.result(waits=self.waits)
        result["meta"]["patches"] = self._told(result["text"])
        if self.switcher.tokens is not None:
            for name, tokens in zip(("read", "written"), self.switcher.tokens, strict=True):
                result[name].append(tokens)
        return result

    def told_so_far(self) -> list[tuple[int, str]]:
        """Return the patches so far as writer and text, which is what a switcher reads."""
        texts = texts_of(self.patches, self.answer.data)
        return [(patch.writer, text) for patch, text in zip(self.patches, texts, strict=True)]

    def state(self) -> Mapping[str, Any]:
        """Return how far the answer is; :meth:`restore` goes on from there, with other sessions."""
        answer = self.answer
        return {
            "ids": list(answer.ids),
            "data": answer.data,
            "segments": [attrs.evolve(s) for s in answer.segments],
            "patches": [attrs.evolve(p) for p in self.patches],
            "counts": (self.used, self.waits, self.cue),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state`. The sessions are brought up to it when their turn comes."""
        answer = self.answer
        answer.ids, answer.data = list(state["ids"]), state["data"]
        answer.segments = [attrs.evolve(s) for s in state["segments"]]
        self.patches = [attrs.evolve(p) for p in state["patches"]]
        self.used, self.waits, self.cue = state["counts"]

    def _told(self, text: str) -> list[list[Any]]:
        """Return every patch as writer, reason, and the characters of the reply's text that are its own."""
        before = max(0, self.answer.text.rfind(text))  # what was reasoning stands in front of it
        places = [[min(max(at - before, 0), len(text)) for at in p] for p in _places(self.patches, self.answer.data)]
        return [[p.writer, p.reason, *place] for p, place in zip(self.patches, places, strict=True)]

    # ---------------------------------------------------------------- who

    def _final(self) -> bool:
        """Whether the patch that comes next uses the budget up."""
        return self.limit - self.used <= self.options.patch_size + (self.cue or 0)

    async def _writer(self) -> tuple[int, str]:
        """Return who writes the next patch, and why."""
        writers = len(self.answer.sessions)
        ends = self.options.ends(writers)
        if ends and not self.patches:
            return writers - 1, "first"
        if ends and self._final():
            return writers - 1, "last"
        try:
            return await self.switcher.choose(self.told_so_far()), "switcher"
        except PromptTooLong as error:
            self.context.warn(f"switch_generation: the last model goes on where the switcher cannot read: {error}")
            return writers - 1, "fallback"

    # ---------------------------------------------------------------- what

    async def _patch(self, who: int, reason: str) -> None:
        """Let one model write a patch, after the answer cue if it is the last one."""
        answer, sampling, size = self.answer, self.sampling, self.options.patch_size
        session, start = answer.turn(who), len(answer.data)
        if self.cue is None:
            self.cue = self._tokens_of(session, self.options.answer_cue)
        room = self.limit - self.used
        most = min(size, room)
        if self.cue and self._final():
            if self.cue < room:
                self._put(who, self.options.answer_cue)
                session = answer.turn(who)
            self.cue = 0
            most = room = self.limit - self.used
        elif self.cue:
            most = min(size, room - size - self.cue)  # what is left is the last patch and its cue
        if answer.finish is not None or most <= 0:
            self.patches.append(Patch(who, reason, start, len(answer.data)))
            return
        draft = await session.draft(most, sampling=sampling, generator=self.generator)
        ended, ids = draft.reason == "end", list(draft.ids)
        if not ended and session.weigh(ids) < room:
            ids = answer.whole(who, ids, words=True) or await answer.completed(
                who, ids, room - session.weigh(ids), sampling=sampling, generator=self.generator
            )
        answer.commit(who, ids)
        self.used += max(session.weigh(ids), bool(ids))  # progress, whatever a server counts
        self.patches.append(Patch(who, reason, start, len(answer.data)))
        if answer.finish is None and (ended or not ids):
            self._end(who, ended)

    def _end(self, who: int, ended: bool) -> None:
        """End the answer, or go on behind a cue; a patch without anything ends it, since the next would have nothing either."""
        if ended and self.options.wait and self.waits < self.options.max_waits:
            cue = self.options.wait_cue
            if self.used + self._tokens_of(self.answer.turn(who), cue) < self.limit:
                self.waits += 1
                self._put(who, cue)
                self.patches[-1].end = len(self.answer.data)
                return
        self.answer.finish = "eos"

    def _put(self, who: int, text: str) -> None:
        """Write a cue in the name of a model; it counts."""
        before = sum(p.tokens for p in self.answer.segments)
        self.answer.commit_text(who, text.encode())
        self.used += max(1, sum(p.tokens for p in self.answer.segments) - before)

    @staticmethod
    def _tokens_of(session: DecodingSession, text: str) -> int:
        """Return how many tokens a text takes here; at least one."""
        here, before = session.mark(), session.n_tokens
        session.append_text(text)
        tokens = session.n_tokens - before
        session.rollback(here)
        return max(1, tokens)
