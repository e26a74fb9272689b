"""One question's table: the board, who sits around it, and how anybody is asked so that the prompt fits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs

from moco_core import Context, Generation, ModelCallError, Pool, Question, Sampling
from moco_method_bbmas.board import Board
from moco_method_bbmas.options import Options
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, Sheet, ask, characters_per_token, tail

__all__ = ["Table", "spoken"]

T = TypeVar("T")


class Composer(Protocol):
    """Writes a prompt around quotes; later attempts may ask for less."""

    def __call__(self, shown: Sequence[str], attempt: int) -> str: ...


def spoken(text: str) -> str | None:
    """Return what a reply says outside its reasoning block; None if that is nothing."""
    return (strip_reasoning(text) or "").strip() or None


@attrs.define(kw_only=True, eq=False)
class Table:
    """The state of one discussion. ``round`` is the one that is held, ``failure`` an error of a call.

    A *seat* is who asks a model: an agent or a role. What is remembered belongs to a seat, whose calls follow each other, so
    that nothing depends on which of several seats is answered first.
    """

    pool: Pool
    question: Question
    context: Context
    options: Options
    board: Board = attrs.field(factory=Board)
    round: int = 0
    failure: ModelCallError | None = None
    sampling: Sampling = attrs.field(init=False)
    _ratios: dict[str, float] = attrs.field(factory=dict)
    _log: list[dict[str, Any]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.sampling = self.options.sampling(self.context.sampling)

    def log(self) -> list[dict[str, Any]]:
        """Return what came to nothing, and why, by round and seat."""
        return sorted(self._log, key=lambda line: (line["round"], line["who"]))

    async def show(
        self,
        seat: str,
        index: int,
        compose: Callable[[str, int], str],
        accept: Callable[[str], T | None],
        *,
        doing: str,
        retries: int | None = None,
    ) -> tuple[Generation, T] | None:
        """Ask a model that reads the board; see :meth:`ask`. ``compose(board, attempt)`` writes the prompt."""
        board = self.board  # what is cut away of its text is made up for by leaving out whole entries

        def prompt(shown: Sequence[str], attempt: int) -> str:
            return compose(board.write(len(shown[0]) if shown else None), attempt)

        quotes = [board.write()] if board.shown else []
        return await self.ask(seat, index, quotes, prompt, accept, doing=doing, retries=retries)

    async def ask(
        self,
        seat: str,
        index: int,
        quotes: Sequence[str],
        compose: Composer,
        accept: Callable[[str], T | None],
        *,
        doing: str,
        retries: int | None = None,
    ) -> tuple[Generation, T] | None:
        """Ask a model until its reply can be used; None, and a line of the log, if no attempt is.

        ``compose(quotes, attempt)`` writes the prompt, ``accept`` reads the reply. Every further attempt quotes at most half of
        what the one before it did.
        """
        model, tried, reason = self.pool[index], set[str](), ""
        ratio, context = self._ratios.get(seat, CHARACTERS_PER_TOKEN), self.context.role(seat.partition(",")[0])
        room = sum(map(len, quotes))
        if self.options.max_board_tokens is not None:
            room = min(room, math.floor(self.options.max_board_tokens * ratio))
        for attempt in range(1 + (self.options.max_retries if retries is None else retries)):
            share = (room >> attempt) // max(1, len(quotes))
            sheet = Sheet([tail(text, share) for text in quotes], partial(compose, attempt=attempt))
            if self.sampling.greedy and sheet.whole in tried:
                break  # the reply would be the same
            tried.add(sheet.whole)
            try:
                asked = await ask(context, model, sheet, self.sampling, before=self.question.messages()[:-1], ratio=ratio)
            except ModelCallError as error:
                self.failure, reason = self.failure or error, str(error)
                continue
            self._ratios.setdefault(seat, characters_per_token(asked.prompt, asked.reply))
            text = spoken(asked.reply.text)
            result = None if text is None else accept(text)
            if result is not None:
                return asked.reply, result
            reason = "empty reply" if text is None else "unreadable reply"
        self._log.append({"round": self.round, "who": seat, "what": doing, "model": model.name, "reason": reason})
        return None
