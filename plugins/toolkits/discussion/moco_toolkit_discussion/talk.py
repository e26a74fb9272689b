"""One question's discussion: what everybody said, round by round, what each model is shown next, and how it ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs

from moco_core import (
    Answer,
    Context,
    Example,
    Generation,
    Message,
    Model,
    ModelCallError,
    PromptTooLong,
    Question,
    Reply,
    Sampling,
)
from moco_core.types import Prompt
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_discussion.prompts import summarise
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, Sheet, ask, characters_per_token, escape
from moco_toolkit_voting import OPEN_KINDS, ballots, metric_utility, vote

__all__ = ["Talk", "require_room", "summary_scores"]


@attrs.define(kw_only=True, eq=False)
class Talk:
    """The state of one discussion. Members are told apart by their places: one model may sit in it twice.

    ``last`` is every member's newest reply, None while it has none; ``said`` is what others may read of it, empty if there
    is nothing; ``texts`` and ``answers`` hold every round's replies and the answers read out of them. ``failure`` is the
    first error of a call, ``ratios`` are characters per token, measured on first replies. With ``full_history`` a member
    remembers its own earlier turns as a chat: ``turns``, what it was asked and what it said. Other models may take the
    members' places between two rounds.
    """

    members: Sequence[Model]
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
    ratios: list[float] = attrs.field(init=False)
    turns: list[list[tuple[Message, Message]]] = attrs.field(init=False)
    _kept: list[dict[str, Any]] = attrs.field(init=False, factory=list)
    _cut: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        size = len(self.members)
        self.last = [None] * size
        self.said = [""] * size
        self.turns = [[] for _ in range(size)]
        self.ratios = [CHARACTERS_PER_TOKEN] * size

    # ---------------------------------------------------------------- rounds

    async def open(self, asked: str | None = None, *, only: int | None = None) -> None:
        """Round 0: every member, or ``only`` one, answers the question alone, or ``asked`` in its place."""
        places = range(len(self.members)) if only is None else [only]
        prompt: Prompt = self.question
        if asked is None:
            asked = self.question.text()
        else:
            prompt = [*self.question.messages()[:-1], Message("user", asked)]
        replies = await self.context.gather(
            (self.context.generate(self.members[i], prompt, self.sampling, sample=self.sample(i, 0)) for i in places),
            tolerate=ModelCallError,
        )
        for index, reply in zip(places, replies, strict=True):
            if isinstance(reply, Generation):
                self.last[index] = reply
                self.ratios[index] = characters_per_token(self.question.system + asked, reply)
        self.take(dict(zip(places, replies, strict=True)), dict.fromkeys(places, asked))

    async def round(self, sheets: Mapping[int, Sheet | None]) -> None:
        """The next round: all members with a sheet write at once; None is a member that has nothing to read.

        Who has no sheet is not asked and keeps what it said. Raises PromptTooLong if no member had room for its quotes.
        """
        number = len(self.answers)
        asked: dict[int, str] = {}

        async def write(index: int, sheet: Sheet | None) -> Generation:
            if sheet is None:
                raise ModelCallError("there is no answer to refine")
            turns = self.turns[index] if self.full_history else []
            reply, asked[index] = await self.ask(index, sheet, self.sampling, turns, sample=self.sample(index, number))
            return reply

        written = await self.context.gather((write(i, s) for i, s in sheets.items()), tolerate=ModelCallError)
        require_room(written)
        self.take(dict(zip(sheets, written, strict=True)), asked)

    async def summarise(self, index: int) -> Generation | None:
        """Have one member read all last answers and write the final one, greedily; None if that fails."""
        shown = [self.said[j] for j in self.order(None, len(self.answers)) if self.said[j]]
        if not shown:
            return None
        greedy = attrs.evolve(self.sampling, temperature=0.0)
        try:
            return (await self.ask(index, summarise(self.question, shown), greedy, sample=0, role="summariser"))[0]
        except ModelCallError as error:
            self.failure = self.failure or error
            return None

    async def ask(
        self,
        index: int,
        sheet: Sheet,
        sampling: Sampling,
        turns: Sequence[tuple[Message, Message]] = (),
        *,
        before: Sequence[Message] | None = None,
        sample: int | None = None,
        role: str = "",
    ) -> tuple[Generation, str]:
        """Ask a member with quotes cut to its context; return its reply and the prompt. See :func:`moco_toolkit_quoting.ask`.

        ``before`` are the messages in front, by default the question's system message and earlier conversation. The cost
        counts under ``role``, if it has one.
        """
        before = self.question.messages()[:-1] if before is None else before
        asked = await ask(
            self.context.role(role) if role else self.context,
            self.members[index],
            sheet,
            sampling,
            before=before,
            turns=turns,
            ratio=self.ratios[index],
            sample=sample,
        )
        self._cut = self._cut or asked.cut
        return asked.reply, asked.prompt

    def take(self, replies: Mapping[int, Generation | ModelCallError], asked: Mapping[int, str]) -> None:
        """Take over a round's replies; who said nothing keeps what it said before."""
        for index, reply in replies.items():
            kept = {"round": len(self.answers), "model": self.members[index].name}
            if isinstance(reply, ModelCallError):
                self.failure = self.failure or reply
                self._kept.append({**kept, "reason": str(reply)})
                continue
            text = (strip_reasoning(reply.text) or "").strip()
            if not text:
                self._kept.append({**kept, "reason": "empty reply"})
                continue
            self.last[index] = reply
            self.said[index] = escape(text)
            if self.full_history:
                self.turns[index].append((Message("user", asked[index]), Message("assistant", self.said[index])))
        self.texts.append([None if reply is None else reply.text for reply in self.last])
        self.answers.append(ballots(self.context, self.question, self.texts[-1]))

    # ---------------------------------------------------------------- orders and samples

    def order(self, reader: int | None, number: int) -> list[int]:
        """Return the members but the reader in an order drawn afresh for every question, reader and round.

        The permutation depends on who the models are, never on their places in the pool. None is the reader of a summary.
        """
        who = [self.who(index) for index in range(len(self.members))]
        order = sorted((j for j in range(len(who)) if j != reader), key=lambda j: who[j])
        parts = ("summary",) if reader is None else who[reader]
        # The first word is part of every prompt ever cached: it stays.
        self.context.rng("multiagent_refine", self.seed, number, *parts).shuffle(order)
        return order

    def sample(self, index: int, number: int) -> int:
        """Return the number of a member's sample in a round: places of one model draw independently."""
        same = [j for j, model in enumerate(self.members) if model is self.members[index]]
        return number * len(same) + same.index(index)

    def who(self, index: int) -> tuple[Any, ...]:
        """Return what tells a member from all others, whatever its place: what draws of the context are made for."""
        model = self.members[index]
        occurrence = sum(member is model for member in self.members[:index])
        return (model.fingerprint, model.copy, *([occurrence] if occurrence else []))

    # ---------------------------------------------------------------- how it ends

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

    def require_answers(self) -> None:
        """Raise ModelCallError if no member ever said anything."""
        if all(reply is None for reply in self.last):
            raise self.failure or ModelCallError("every model's reply was empty")

    def vote(self, final: str, *, skills: Sequence[float] | None = None, preferred: int | None = None) -> Reply:
        """Return the answer that most last replies give; ties go to the member with the best of ``skills``, then the first.

        Where no reply can be read, it is ``preferred``'s last one, or the most skilled member's, flagged ``unparsed``.
        """
        answers = self.answers[-1]
        outcome = vote(
            [answer.key for answer in answers],
            utility=metric_utility(self.context.metric, self.question, answers),
            skills=skills,
            tie="best_model",
        )
        if outcome is not None:
            reply = self.last[outcome.voter]
            assert reply is not None  # a key was read from it
            meta = {"answer": outcome.key, "support": dict(outcome.support), "margin": outcome.margin}
            return Reply.of(reply, final=final, model=self.members[outcome.voter].name, **meta, **self.record())
        there = [i for i, reply in enumerate(self.last) if reply is not None]
        known = skills or [0.0] * len(self.members)
        chosen = max(there, key=lambda i: (i == preferred, known[i], -i))
        reply = self.last[chosen]
        assert reply is not None  # by construction of `there`
        return Reply.of(reply, final="unparsed", model=self.members[chosen].name, unparsed=True, **self.record())

    async def close(self, summarizer: int | None, skills: Sequence[float] | None = None) -> Reply:
        """Return the final answer: one member's summary, or the vote where there is none or it cannot be read."""
        if summarizer is None:
            return self.vote("vote", skills=skills)
        summary = await self.summarise(summarizer)
        answer = ballots(self.context, self.question, [None if summary is None else summary.text])[0]
        if summary is not None and answer.parsed:
            name = self.members[summarizer].name
            return Reply.of(summary, final="summary", model=name, answer=answer.key, **self.record())
        return self.vote("vote_after_unparsed_summary", skills=skills, preferred=summarizer)

    def record(self) -> dict[str, Any]:
        """Return what the run record shows of the discussion, as JSON data."""
        return {
            "rounds": len(self.answers) - 1,
            "answers": [[answer.key for answer in row] for row in self.answers],
            "kept": self._kept,
            "quotes_cut": self._cut,
        }


def require_room(replies: Sequence[Generation | ModelCallError]) -> None:
    """Raise PromptTooLong, with its numbers, if there are replies and every one of them is that error."""
    if replies and all(isinstance(reply, PromptTooLong) for reply in replies):
        raise replies[0]  # type: ignore[misc]


async def summary_scores(
    talk: Callable[[Question, Context], Awaitable[Talk]], members: int, dev: Sequence[Example], context: Context
) -> list[float]:
    """Return the mean dev score of every member's summaries of the same discussions, which ``talk`` holds."""

    async def one(example: Example, scope: Context) -> list[float]:
        held = await talk(example.question, scope)

        async def grade(index: int) -> float:
            summary = await held.summarise(index)
            return 0.0 if summary is None else (await scope.grade(example, Reply.of(summary))).value or 0.0

        return await scope.gather(grade(index) for index in range(members))

    rows = await context.each(dev, one, label="summaries on dev")
    return [sum(row[i] for row in rows) / len(rows) for i in range(members)]
