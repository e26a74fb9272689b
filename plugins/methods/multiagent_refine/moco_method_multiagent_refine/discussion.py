"""One question's discussion: what everybody said, round by round, and what each model is shown next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from moco_core import (
    Answer,
    Context,
    Generation,
    Message,
    Model,
    ModelCallError,
    Pool,
    PromptTooLong,
    Question,
    Sampling,
)
from moco_method_multiagent_refine.budget import CHARACTERS_PER_TOKEN, characters_per_token, fit_quotes
from moco_method_multiagent_refine.prompts import refine, summarise
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_quoting import escape
from moco_toolkit_voting import OPEN_KINDS, ballots

__all__ = ["Discussion"]


@attrs.define(kw_only=True, eq=False)
class Discussion:
    """The state of one discussion.

    ``last`` is every model's newest reply, None while it has none; ``said`` is what the others may read of it, empty if
    there is nothing; ``texts`` and ``answers`` hold every round's replies and the answers read out of them. ``failure`` is the
    first error of a call.
    """

    pool: Pool
    question: Question
    context: Context
    sampling: Sampling
    full_history: bool = False
    seed: int = 0
    last: list[Generation | None] = attrs.field(init=False)
    said: list[str] = attrs.field(init=False)
    texts: list[list[str | None]] = attrs.field(init=False, factory=list)
    answers: list[list[Answer]] = attrs.field(init=False, factory=list)
    failure: ModelCallError | None = attrs.field(init=False, default=None)
    _turns: list[list[tuple[Message, Message]]] = attrs.field(init=False)
    _ratios: list[float] = attrs.field(init=False)
    _kept: list[dict[str, Any]] = attrs.field(init=False, factory=list)
    _cut: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        size = len(self.pool)
        self.last = [None] * size
        self.said = [""] * size
        self._turns = [[] for _ in range(size)]
        self._ratios = [CHARACTERS_PER_TOKEN] * size

    async def open(self) -> None:
        """Round 0: every model answers the question alone."""
        replies = await self.context.gather(
            (self.context.generate(model, self.question, self.sampling, sample=0) for model in self.pool),
            tolerate=ModelCallError,
        )
        asked = self.question.text()
        for index, reply in enumerate(replies):
            if isinstance(reply, Generation):
                self.last[index] = reply
                self._ratios[index] = characters_per_token(self.question.system + asked, reply)
        self._take(0, [asked] * len(self.pool), replies)

    async def refine(self, number: int) -> None:
        """One round: all models rewrite at once, everyone reading the round before."""
        asked: list[str] = [""] * len(self.pool)

        async def rewrite(index: int) -> Generation:
            others = [self.said[j] for j in self._order(index, number) if self.said[j]]
            own = self.said[index] or None
            if not others and own is None:
                raise ModelCallError("there is no answer to refine")
            shown = [own, *others] if own is not None else others

            def compose(quotes: Sequence[str]) -> str:
                first, rest = (quotes[0], quotes[1:]) if own is not None else (None, quotes)
                asked[index] = refine(self.question.text(), first, rest, self.question.answer_format)
                return asked[index]

            history = self._turns[index] if self.full_history else []
            return await self._ask(index, shown, compose, self.sampling, history, sample=number)

        replies = await self.context.gather((rewrite(i) for i in range(len(self.pool))), tolerate=ModelCallError)
        self._take(number, asked, replies)

    async def summarise(self, model: Model) -> Generation | None:
        """Have one model read all last answers and write the final one, greedily; None if that fails."""
        index = next(i for i, member in enumerate(self.pool) if member is model)
        shown = [self.said[j] for j in self._order(None, len(self.answers)) if self.said[j]]
        if not shown:
            return None

        def compose(quotes: Sequence[str]) -> str:
            return summarise(self.question.text(), quotes, self.question.answer_format)

        try:
            return await self._ask(index, shown, compose, attrs.evolve(self.sampling, temperature=0.0), [], sample=0)
        except ModelCallError as error:
            self.failure = self.failure or error
            return None

    def settled(self, stop: str) -> bool:
        """Whether the discussion may end: all answers read and equal, or none changed since the round before.

        Where whole replies are the answer, equality says nothing, and all rounds are held.
        """
        if stop == "never" or self.question.answer_kind in OPEN_KINDS:
            return False
        keys = [answer.key for answer in self.answers[-1]]
        if stop == "consensus":
            return None not in keys and len(set(keys)) == 1
        before = [answer.key for answer in self.answers[-2]] if len(self.answers) > 1 else None
        return keys == before and any(key is not None for key in keys)

    def record(self) -> dict[str, Any]:
        """Return what the run record shows of the discussion, as JSON data."""
        return {
            "rounds": len(self.answers) - 1,
            "answers": [[answer.key for answer in row] for row in self.answers],
            "kept": self._kept,
            "quotes_cut": self._cut,
        }

    # ---------------------------------------------------------------- inside

    def _order(self, index: int | None, number: int) -> list[int]:
        """Return the models whose answers are shown, permuted afresh for every question, model and round.

        The permutation depends on who the models are, never on their places in the pool.
        """
        who = [(model.fingerprint, model.copy) for model in self.pool]
        order = sorted((j for j in range(len(self.pool)) if j != index), key=lambda j: who[j])
        reader = ["summary"] if index is None else list(who[index])
        self.context.rng("multiagent_refine", self.seed, number, *reader).shuffle(order)
        return order

    def _take(self, number: int, asked: Sequence[str], replies: Sequence[Generation | ModelCallError]) -> None:
        """Take over a round's replies; who said nothing keeps what it said before."""
        for index, reply in enumerate(replies):
            if isinstance(reply, ModelCallError):
                self.failure = self.failure or reply
                self._kept.append({"round": number, "model": self.pool[index].name, "reason": str(reply)})
                continue
            text = (strip_reasoning(reply.text) or "").strip()
            if not text:
                self._kept.append({"round": number, "model": self.pool[index].name, "reason": "empty reply"})
                continue
            self.last[index] = reply
            self.said[index] = escape(text)
            turn = (Message("user", asked[index]), Message("assistant", self.said[index]))
            self._turns[index].append(turn)
        self.texts.append([None if reply is None else reply.text for reply in self.last])
        self.answers.append(ballots(self.context, self.question, self.texts[-1]))

    async def _ask(
        self,
        index: int,
        quotes: Sequence[str],
        compose: Callable[[Sequence[str]], str],
        sampling: Sampling,
        history: Sequence[tuple[Message, Message]],
        *,
        sample: int,
    ) -> Generation:
        """Ask with quotes cut to the model's context; smaller ones if that was too much, older turns forgotten last."""
        model, ratio = self.pool[index], self._ratios[index]
        before = self.question.messages()[:-1]  # the system message and earlier turns of the question's conversation
        shrink, forgotten = 0, 0
        while True:
            past = [message for turn in history[forgotten:] for message in turn]
            fixed = "\n".join([m.content for m in (*before, *past)] + [compose([""] * len(quotes))])
            room = None if model.context_length is None else model.context_length - sampling.max_new_tokens
            if past and room is not None and len(fixed) / ratio > room / 2:
                forgotten += 1
                continue
            cut = fit_quotes(
                quotes,
                context_length=model.context_length,
                max_new_tokens=sampling.max_new_tokens,
                fixed=fixed,
                ratio=ratio,
                shrink=shrink,
            )
            try:
                prompt = Message("user", compose(cut))
                reply = await self.context.generate(model, [*before, *past, prompt], sampling, sample=sample)
            except PromptTooLong:
                if any(cut):
                    shrink += 1
                elif past:
                    forgotten, shrink = len(history), 0
                else:
                    raise
                continue
            self._cut = self._cut or list(cut) != list(quotes)
            return reply
