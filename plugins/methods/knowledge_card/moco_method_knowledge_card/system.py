"""The fitted system: who answers, and with which passages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import attrs

from moco_core import Context, ContinuationScore, Message, Model, Question, Reply, System
from moco_method_knowledge_card.cards import cards_of, write
from moco_method_knowledge_card.options import Options
from moco_method_knowledge_card.prompts import answer
from moco_method_knowledge_card.seeking import Seeking
from moco_method_knowledge_card.selecting import Kept, check, select
from moco_toolkit_quoting import ask, send
from moco_toolkit_voting import ballots

__all__ = ["KnowledgeCardSystem", "Read"]


@attrs.define
class Read:
    """What the answerer reads beside the question, in the order of showing, and what the record tells of it."""

    kept: list[Kept]
    told: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        return [kept.passage.text for kept in self.kept]


@attrs.frozen(eq=False, slots=False)
class KnowledgeCardSystem(System):
    """One model that answers (``answerer``) and others that write what it reads."""

    answerer: str

    def __attrs_post_init__(self) -> None:
        self.pool.named(self.answerer, "knowledge_card.answerer")

    @cached_property
    def reader(self) -> Model:
        return self.pool.named(self.answerer)

    @cached_property
    def base(self) -> frozenset[str]:
        """The names of the cards that are base models."""
        return frozenset(self.pool.named(name, "knowledge_card.base_cards").name for name in self.options.base_cards)

    async def facts(self, passages: Sequence[str], question: Question, context: Context) -> Sequence[float] | None:
        """Return how probably each passage is true, in [0, 1]; None if nobody can tell.

        A hook: by default the option ``checker``. A subclass may look passages up.
        """
        if self.options.checker is None:
            return None
        return await check(passages, self.pool.named(self.options.checker, "knowledge_card.checker"), context)

    async def respond(self, question: Question, context: Context) -> Reply:
        return await self.answer(self.reader, await self.read(question, context), question, context)

    async def read(self, question: Question, context: Context, *, everybody: bool = False) -> Read:
        """Return the passages for a question, written by all cards, or ``everybody``, or sought by the answerer."""
        options: Options = self.options
        cards = list(self.pool) if everybody else cards_of(self.pool, self.reader, options)
        if options.seeks and not everybody:
            given = options.descriptions or [model.description or model.name for model in self.pool]
            by_name = dict(zip(self.pool.names, given, strict=True))
            seeking = Seeking(
                pool=self.pool,
                answerer=self.reader,
                cards=cards,
                descriptions=[by_name[card.name] for card in cards],
                base=self.base,
                question=question,
                context=context,
                options=options,
                facts=self.facts,
            )
            await seeking.run()
            return Read(seeking.kept, _told(seeking.kept, seeking.lost, steps=seeking.steps))
        if not options.n3:
            return Read([], _told([], {}))
        written = await write(cards, question, context, options, self.base)
        kept = await select(written.passages, options.n3, self.pool, question, context, options, self.facts)
        if options.selection != "top":
            context.rng("knowledge_card", "order", options.seed).shuffle(kept)
        return Read(kept, _told(kept, written.lost, written=len(written.passages)))

    async def answer(
        self, model: Model, read: Read, question: Question, context: Context, *, retry: bool = True
    ) -> Reply:
        """Have a model answer with passages; with the question alone if there are none, or if that cannot be read."""
        meta = {"model": model.name, **read.told}
        if self.options.answering == "max_prob" and question.choices:
            return await self._likeliest(model, read, question, context, meta)
        if read.kept:
            asked = await ask(
                context, model, answer(question, read.texts), context.sampling, before=question.messages()[:-1]
            )
            if ballots(context, question, [asked.reply.text])[0].parsed or not retry:
                return Reply.of(asked.reply, quotes_cut=asked.cut, **meta)
            meta["retried"] = True
        alone = await context.generate(model, question, tell=context.tell)
        if not ballots(context, question, [alone.text])[0].parsed:
            meta["unparsed"] = True
        return Reply.of(alone, **meta)

    async def _likeliest(
        self, model: Model, read: Read, question: Question, context: Context, meta: dict[str, Any]
    ) -> Reply:
        """Return the choice a with the largest max_k P_k(a) over single passages k and none. Ties go to the first choice.

        Liu et al., "Generated Knowledge Prompting for Commonsense Reasoning", arXiv 2110.08387.
        """
        letters, before = question.letters, question.messages()[:-1]

        async def chances(passages: Sequence[str]) -> list[float]:
            async def call(messages: Sequence[Message]) -> Sequence[ContinuationScore]:
                return await context.score(model, messages, letters)

            asked = await send(call, model, answer(question, passages), 1, before=before)
            return _softmax([score.logprob for score in asked.reply])

        rows = await context.gather(chances(passages) for passages in ([], *([text] for text in read.texts)))
        best = [max(row[a] for row in rows) for a in range(len(letters))]
        choice = max(range(len(letters)), key=lambda a: (round(best[a], 12), -a))
        by = next(k for k, row in enumerate(rows) if row[choice] == best[choice])
        meta |= {"chances": best, "passage": None if by == 0 else by - 1}
        return Reply(text=letters[choice], meta=meta)


def _told(kept: Sequence[Kept], lost: dict[str, str], **more: Any) -> dict[str, Any]:
    rows = []
    for k in kept:
        measured = {"relevance": k.relevance, "truth": k.truth}
        rows.append(
            {"card": k.passage.card, "text": k.passage.text, **{n: v for n, v in measured.items() if v is not None}}
        )
    return {"passages": rows, **more, **({"lost": lost} if lost else {})}


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    if math.isinf(top):
        return [1 / len(values)] * len(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / math.fsum(weights) for weight in weights]
