"""Writing one answer: decision, consultation, verification."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs

from moco_core import Context, Model, Question
from moco_method_mentor_collab.options import Options
from moco_method_mentor_collab.prompts import Segment
from moco_method_mentor_collab.verifying import Verifier
from moco_toolkit_decoding import DecodingSession, JointAnswer, open_session

__all__ = ["Writing"]

GENERATOR, MENTOR = 0, 1
_CHARACTER = 4  # tokens of one byte each that a character takes at most
_PROBLEM = re.compile(r"\n\s*(?:Question|Problem)\b")


@attrs.define(eq=False)
class Writing:
    """The state of one answer. ``on_choice`` is told of every pair of segments, for training a probe."""

    answer: JointAnswer
    options: Options
    limit: int
    context: Context
    generator: random.Random
    on_choice: Callable[[DecodingSession, Segment, Segment], Awaitable[None]] | None = None
    steps: int = 0
    words: int = 0
    consultations: int = 0
    disagreements: int = 0
    mentored: int = 0
    ended_by: str = ""

    @classmethod
    async def open(
        cls,
        models: Sequence[Model],
        question: Question,
        options: Options,
        shared: bool,
        context: Context,
    ) -> Writing:
        """Open the sessions of ``models`` (generator, mentor); ``shared`` tells that they have one tokenizer."""
        sampling = context.sampling
        opening = (
            open_session(context.role(role), m, question, reserve=sampling.max_new_tokens)
            for role, m in zip(("generator", "mentor"), models, strict=True)
        )
        # a problem that begins is cut off together with what led to it
        listener = None if options.problem_stop else context.tell
        sessions = await context.gather(opening)
        answer = JointAnswer(sessions, shared=shared, stops=sampling.stop, listener=listener)
        return cls(answer, options, sampling.max_new_tokens, context, context.rng("mentor_collab"))

    async def run(self, verifier: Verifier) -> dict[str, Any]:
        """Write until the answer has ended."""
        answer = self.answer
        last, repeats = b"", 0
        try:
            while answer.finish is None:
                room = self._room()
                if room <= 0:
                    answer.truncate(self.limit, GENERATOR)
                    answer.finish = answer.finish or "length"
                    break
                answer.tell()
                before = len(answer.data), answer.tokens(GENERATOR)
                alone = self._words_alone(room)
                chosen = await (self._write(room, alone) if alone else self._consult(room, verifier))
                self.steps += 1
                if answer.finish is None and before == (len(answer.data), answer.tokens(GENERATOR)):
                    # what comes next takes more tokens than are left, or is nothing at all; it would come again
                    self._end("length" if room < _CHARACTER else "eos", "nothing written")
                if chosen is not None:
                    repeats = repeats + 1 if chosen == last else 1
                    last = chosen
                    if 0 < self.options.repeat_stop <= repeats:
                        self._end("stop", "repeated segment")
                self._stop_at_problem()
            return answer.result(
                words=self.words,
                consultations=self.consultations,
                disagreements=self.disagreements,
                mentored=self.mentored,
                ended_by=self.ended_by or answer.finish,
            )
        finally:
            answer.close()

    def _end(self, finish: Any, reason: str) -> None:
        if self.answer.finish is None:
            self.answer.finish, self.ended_by = finish, reason

    def _room(self) -> int:
        """Return how many tokens may still be written, counted by the generator."""
        used = self.answer.tokens(GENERATOR)
        if not all(session.model.can("step") for session in self.answer.sessions):
            used = max(used, self.steps)  # whatever a server counts, what a step added is a token at least
        return self.limit - used

    # ---------------------------------------------------------------- decision

    _drawn: bool = False

    def _words_alone(self, room: int) -> int:
        """Draw at every word start until a consultation comes up; return how many words the generator writes before it.

        One number belongs to each word, whoever writes it and however many are drafted in one call, so that the consulted
        places do not depend on batching.
        """
        if self._drawn:
            self._drawn = False
            return 0
        share = self.options.decision_proportion / 100
        count = 0
        while count < room:  # a word takes a token at least
            if self.generator.random() < share:
                self._drawn = True
                break
            count += 1
        if count == 0:
            self._drawn = False
        return count

    async def _write(self, room: int, words: int) -> None:
        """Let the generator write so many words. Nobody chose them, so nothing is returned."""
        session = self.answer.turn(GENERATOR)
        draft = await session.draft(room, words=words, word_tokens=self.options.max_word_tokens)
        self.words += draft.words
        self.answer.commit(GENERATOR, draft.ids)
        if draft.reason == "end":
            # the end comes at a word start: with a consultation drawn there, the end is one of its options
            if draft.words < words or not self._drawn:
                self._end("eos", "generator")

    # ---------------------------------------------------------------- consultation

    async def _consult(self, room: int, verifier: Verifier) -> bytes | None:
        """Consult the mentor; return the bytes of the chosen segment, or None if the models agree."""
        self.consultations += 1
        self.words += 1
        drafts = await self.context.gather(self._word(i, room) for i in (GENERATOR, MENTOR))
        mine, theirs = drafts
        same = mine.ids == theirs.ids if self.answer.shared else mine.data == theirs.data
        if same and not (mine.ended and not mine.ids):
            self._commit(GENERATOR, mine)
            return None
        if same:
            self._end("eos", "both")
            return None
        a, b = await self.context.gather(self._extend(i, w, room) for i, w in ((GENERATOR, mine), (MENTOR, theirs)))
        if a.shown() == b.shown():  # cut inside a character, say: there is nothing to choose, and nobody is asked
            self._commit(GENERATOR, a)
            if a.ended:
                self._end("eos", "both")
            return None
        self.disagreements += 1
        session = self.answer.turn(GENERATOR)
        if self.on_choice is not None:
            await self.on_choice(session, a, b)
        mentor = await verifier(session, a, b)
        self.mentored += mentor
        writer, chosen = (MENTOR, b) if mentor else (GENERATOR, a)
        self._commit(writer, chosen)
        if chosen.ended:
            self._end("eos", "mentor" if mentor else "generator")
        data: bytes = chosen.data
        return data

    async def _word(self, i: int, room: int) -> Segment:
        """Draft one word; a word that ends with the answer is only known to do so once it is extended."""
        session = self.answer.turn(i)
        most = self.options.max_word_tokens
        # three tokens more finish a character that the longest word ends in
        draft = await session.draft(min(room, most + 3), words=1, word_tokens=most)
        return Segment(draft.ids, self.answer.drafted(i, draft.ids), draft.reason == "end")

    async def _extend(self, i: int, word: Segment, room: int) -> Segment:
        """Continue a word to a segment of ``patch_size`` tokens, or to the model's end token."""
        session = self.answer.turn(i)
        more = min(self.options.patch_size, room) - session.weigh(word.ids)
        if word.ended or more <= 0:
            return word
        here = session.mark()
        session.append_tokens(word.ids)
        try:
            draft = await session.draft(more)
        finally:
            session.rollback(here)
        ids = [*word.ids, *draft.ids]
        ended = draft.reason == "end"
        if not ended:
            left = room - session.weigh(ids)
            ids = self.answer.whole(i, ids, words=True) or await self.answer.completed(i, ids, left)
        return Segment(tuple(ids), self.answer.drafted(i, ids), ended)

    def _commit(self, i: int, segment: Segment) -> None:
        self.answer.turn(i)
        self.answer.commit(i, segment.ids)

    def _stop_at_problem(self) -> None:
        if not self.options.problem_stop or self.answer.finish is not None:
            return
        found = _PROBLEM.search(self.answer.text)
        if found:
            self.answer.data = self.answer.text[: found.start()].encode()
            self._end("stop", "new problem")
