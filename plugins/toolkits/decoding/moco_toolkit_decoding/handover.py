"""One answer written by several models in turn: the text they share, who wrote what, and when it ends.

The truth is the continuation's bytes (with one tokenizer: its token ids). Each writer has a session that is brought up to the
truth when its turn comes. With one tokenizer ids are exchanged as they were emitted; with different tokenizers a commit holds
whole characters only and no trailing space, because the next model's tokens carry it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from moco_core.context import Context
from moco_core.models import Model
from moco_core.types import FinishReason, Question, Reply, Sampling, Span, Usage
from moco_toolkit_decoding.joint import cut_spans
from moco_toolkit_decoding.session import DecodingSession, Mark
from moco_toolkit_decoding.text import common, cut_at, last_boundary, starts_word, valid_prefix

__all__ = ["JointAnswer", "Segment", "answer_once", "reply_of"]


@attrs.define
class Segment:
    """A part of the answer: the writer's index, its bytes and its number of tokens."""

    writer: int
    data: bytes
    tokens: int


class JointAnswer:
    """The answer in progress.

    ``sessions[i]`` belongs to writer i; ``shared`` tells that all have one tokenizer. ``stops`` are stop strings. ``finish`` is
    None until the answer has ended. ``listener`` is who :meth:`tell` tells: a context's own ``tell``, or None.
    """

    def __init__(
        self,
        sessions: Sequence[DecodingSession],
        *,
        shared: bool,
        stops: Sequence[str] = (),
        listener: Callable[[str], None] | None = None,
    ) -> None:
        self.sessions = list(sessions)
        self.listener = listener
        self.shared = shared
        self.stops = tuple(stops)
        self.ids: list[int] = []
        self.data = b""
        self.segments: list[Segment] = []
        self.finish: FinishReason | None = None

    # ---------------------------------------------------------------- reading

    @property
    def text(self) -> str:
        """The answer so far."""
        return self.data.decode("utf-8", "replace")

    def turn(self, i: int) -> DecodingSession:
        """Return writer i's session, brought up to the truth."""
        session = self.sessions[i]
        if self.shared:
            n = len(session.ids)
            if session.ids != self.ids[:n]:
                kept = common(session.ids, self.ids)
                session.rollback(n - kept)
                n = kept
            session.append_tokens(self.ids[n:])
        elif session.data != self.data:
            if not self.data.startswith(session.data):
                session.rollback(Mark(()))
            session.append_text(self.data[len(session.data) :])
        return session

    def tokens(self, i: int = 0) -> int:
        """Return the length of the answer in writer i's tokens, or in its writers' own if no tokenizer is at hand."""
        if self.shared:
            return len(self.ids)
        if not self.sessions[i].tokenizes:
            return sum(s.tokens for s in self.segments)
        return self.turn(i).n_tokens

    def drafted(self, i: int, ids: Sequence[int]) -> bytes:
        """Return the bytes that these tokens add to the answer."""
        session = self.sessions[i]
        return session.spell(ids, first=not session.ids)

    def words(self, i: int, ids: Sequence[int]) -> list[list[int]]:
        """Cut a draft into words of whole tokens: a token that starts a new word opens the next one."""
        out: list[list[int]] = []
        before = b""
        for token in ids:
            piece = self.sessions[i].piece(token)
            if out and not starts_word(before, piece):
                out[-1].append(token)
                before += piece
            else:
                out.append([token])
                before = piece
        return out

    def whole(self, i: int, ids: Sequence[int], *, words: bool) -> list[int]:
        """Return the part of a draft that may be handed over, in whole tokens.

        With one tokenizer that is all of it. Otherwise an incomplete character and a trailing space stay back and, with
        ``words``, the last word if it is not the only one. Nothing is returned of a draft without a complete character;
        :meth:`completed` goes on with that.
        """
        if self.shared or not ids:
            return list(ids)
        data = self.drafted(i, ids)
        complete = len(valid_prefix(data))
        keep = last_boundary(data) if words else len(data[:complete].rstrip(b" "))
        return self._prefix(i, ids, keep or complete) or self._prefix(i, ids, complete)

    async def completed(self, i: int, ids: Sequence[int], room: int, **settings: Any) -> list[int]:
        """Return a draft of writer i and up to three more of its tokens, until the character that the draft ends in is whole.

        ``room`` bounds the further tokens, ``settings`` are those of a session's ``draft``. The session stays where it is.
        """
        session, out = self.sessions[i], list(ids)
        if not out:
            return out
        here = session.mark()
        session.append_tokens(ids)
        try:
            for _ in range(min(3, room)):
                data = session.spell(out, first=False)
                if data and valid_prefix(data) == data:
                    break
                more = await session.draft(1, commit=True, **settings)
                out += more.ids
                if more.reason != "length":
                    break
        finally:
            session.rollback(here)
        return out

    def _prefix(self, i: int, ids: Sequence[int], size: int) -> list[int]:
        """Return the longest beginning of a draft that is at most ``size`` bytes of whole characters."""
        out = list(ids)
        while out:
            data = self.drafted(i, out)
            if len(data) <= size and valid_prefix(data) == data:
                break
            out.pop()
        return out

    # ---------------------------------------------------------------- writing

    def commit(self, i: int, ids: Sequence[int]) -> None:
        """Add tokens of writer i to the answer, which it must stand at; cut at a stop string."""
        if not ids:
            return
        session = self.sessions[i]
        data = self.drafted(i, ids)
        session.append_tokens(ids)
        if self.shared:
            self.ids += ids
        self._written(i, data, session.weigh(ids))

    def commit_text(self, i: int, data: bytes) -> None:
        """Add text that is no draft of tokens (a cue, say), in the name of writer i."""
        if not data:
            return
        session = self.turn(i)
        before = session.n_tokens
        session.append_text(data)
        if self.shared:
            self.ids = list(session.ids)
        self._written(i, data, max(0, session.n_tokens - before))

    def _written(self, i: int, data: bytes, tokens: int) -> None:
        self.data += data
        if self.segments and self.segments[-1].writer == i:
            self.segments[-1].data += data
            self.segments[-1].tokens += tokens
        else:
            self.segments.append(Segment(i, data, tokens))
        if self.stops:
            longest = max(len(s.encode()) for s in self.stops)
            start = len(valid_prefix(self.data[: max(0, len(self.data) - len(data) - longest)]))
            found = cut_at(self.data[start:].decode("utf-8", "replace"), self.stops)
            if found is not None:
                self.data = self.data[:start] + found[0].encode()
                self.finish = "stop"

    def truncate(self, limit: int, i: int = 0) -> bool:
        """Cut the answer to ``limit`` tokens of writer i; return whether the limit is reached."""
        if self.tokens(i) < limit:
            return False
        if self.shared:
            self.ids = self.ids[:limit]
            data = self.sessions[i].spell(self.ids, first=True)
        elif not self.sessions[i].tokenizes:
            data = self.data  # nothing is drafted beyond the limit, and text alone cannot be cut by tokens
        else:
            session = self.turn(i)
            if session.n_tokens > limit:
                session.rollback(session.n_tokens - limit)
            data = valid_prefix(session.data)
        self.data = self.data[: len(data)]
        self.finish = self.finish or "length"
        return True

    # ---------------------------------------------------------------- telling

    def tell(self, more: bytes = b"") -> None:
        """Tell how the answer begins, with ``more`` behind it: where nothing of that will be cut off."""
        if self.listener is not None and self.segments:
            text = (self.data + more).decode("utf-8", "replace")
            self.listener(self.sessions[self.segments[0].writer].answer_so_far(text, self.stops))

    def result(self, **meta: Any) -> dict[str, Any]:
        """Return the finished answer as JSON data, with writers as indices; see :func:`reply_of`.

        Reasoning is split off as it is from a reply of whoever began the answer.
        """
        began = self.sessions[self.segments[0].writer if self.segments else 0]
        reasoning, text = began.answer_in(self.text)
        if reasoning:
            meta["reasoning"] = reasoning
        spans = cut_spans([(str(s.writer), s.data, s.tokens) for s in self.segments], text)
        return {
            "text": text,
            "finish": self.finish or "length",
            "spans": [[int(s.model), s.text, s.tokens] for s in spans],
            "read": [s.counter.read for s in self.sessions],
            "written": [s.counter.written for s in self.sessions],
            "meta": meta,
        }

    def close(self) -> None:
        """Close all sessions."""
        for session in self.sessions:
            session.close()


def reply_of(data: Mapping[str, Any], models: Sequence[Model], also: Sequence[Model] = ()) -> Reply:
    """Turn stored data into a reply: spans, the share of each model in the answer's tokens, and the tokens each one cost.

    ``also`` are models that took part without writing, as in :func:`answer_once`.
    """
    names = [m.name for m in models]
    spans = tuple(Span(names[i], text, tokens) for i, text, tokens in data["spans"])
    total = sum(s.tokens for s in spans)
    share = {n: sum(s.tokens for s in spans if s.model == n) for n in names}
    tokens = {m.name: {"read": 0, "written": 0} for m in (*models, *also)}
    for model, read, written in zip((*models, *also), data["read"], data["written"], strict=True):
        tokens[model.name]["read"] += read
        tokens[model.name]["written"] += written
    meta = {
        **data["meta"],
        "share": {n: round(count / total, 6) if total else 0.0 for n, count in share.items()},
        "tokens": tokens,
    }
    return Reply(text=data["text"], finish_reason=data["finish"], spans=spans, meta=meta)


async def answer_once(
    context: Context,
    kind: str,
    models: Sequence[Model],
    question: Question,
    settings: Mapping[str, Any],
    compute: Callable[[], Awaitable[dict[str, Any]]],
    *,
    seeded: bool,
    sampling: Sampling | None = None,
    also: Sequence[Model] = (),
) -> Reply:
    """Return the answer of a hand-over, computed once and then taken from the cache.

    ``settings`` are all options that decide the answer, as JSON data; ``seeded`` tells that the run's seed decides it too.
    ``also`` are models that took part without writing: their tokens follow the writers' in the result.
    """
    used = sampling or context.sampling
    what = {
        "kind": kind,
        "version": 6,
        "models": [m.fingerprint for m in models],
        "question": [question.id if seeded else "", [[m.role, m.content] for m in question.messages()]],
        "sampling": used.params(),
        "settings": dict(settings),
        "seed": context.seed if seeded else None,
    }
    if not all(m.can("step") for m in models):  # every call is stored, counted and recorded by itself
        return reply_of(await compute(), models, also)
    fresh = False

    async def work() -> dict[str, Any]:
        nonlocal fresh
        fresh = True
        return await compute()

    data = await context.once(what, work)
    if not fresh:  # sessions count themselves; an answer that was written before is counted as it was then
        for model, read, written in zip([*models, *also], data["read"], data["written"], strict=True):
            if read or written:
                context.count(model, Usage(read, written), cached=True)
    return reply_of(data, models, also)
