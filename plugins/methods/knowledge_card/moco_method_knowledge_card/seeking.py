"""Top-down: the answerer asks for what it lacks, and a card that fits writes it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import attrs

from moco_core import Context, Model, Pool, Question
from moco_method_knowledge_card.cards import write
from moco_method_knowledge_card.options import Options
from moco_method_knowledge_card.prompts import bare, choose_card, more, what_is_missing
from moco_method_knowledge_card.selecting import Facts, Kept, ranked, relevance_of, select
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_quoting import Sheet, ask

__all__ = ["Seeking", "named_card", "wants_more"]

_YES_OR_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def wants_more(text: str) -> bool:
    """Whether a reply says yes: the first of the words yes and no decides, and without either it is no."""
    found = _YES_OR_NO.search(text)
    return found is not None and found[1].lower() == "yes"


def named_card(text: str, names: Sequence[str]) -> int | None:
    """Return the place of the only name that occurs in a text, as whole words; None if there is none or several."""
    found = [i for i, name in enumerate(names) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)]
    # a name that is part of another one that was named does not count by itself
    longest = [i for i in found if not any(i != j and names[i].lower() in names[j].lower() for j in found)]
    return longest[0] if len(longest) == 1 else None


@attrs.define(kw_only=True)
class Seeking:
    """One question's search for knowledge. ``steps`` is what the record shows: which card was asked, for what, and why."""

    pool: Pool
    answerer: Model
    cards: Sequence[Model]
    descriptions: Sequence[str]
    base: frozenset[str]
    question: Question
    context: Context
    options: Options
    facts: Facts
    kept: list[Kept] = attrs.field(factory=list)
    steps: list[dict[str, str]] = attrs.field(factory=list)
    lost: dict[str, str] = attrs.field(factory=dict)

    async def run(self) -> None:
        """Ask until nothing is missing, ``max_seek`` cards have written, or a card has nothing new twice."""
        uses: Counter[str] = Counter()
        for number in range(self.options.max_seek):
            if not wants_more(await self._say(more(self.question, self._shown()))):
                return
            card, step = await self._choose()
            written = await write([card], self.question, self.context, self.options, self.base, use=uses[card.name])
            uses[card.name] += 1
            self.lost |= written.lost
            known = {kept.passage.text for kept in self.kept}
            new = [passage for passage in written.passages if passage.text not in known]
            chosen = await select(
                new, 1, self.pool, self.question, self.context, self.options, self.facts, number=number
            )
            fresh = [kept for kept in chosen if kept.passage.text not in known]
            self.kept[:0] = fresh
            self.steps.append({**step, "card": card.name, "new": "yes" if fresh else "no"})
            if not fresh and uses[card.name] >= 2:
                return

    async def _choose(self) -> tuple[Model, dict[str, str]]:
        """Return the card to ask: the one that is named, or the one whose description is most like what is missing."""
        if self.options.mode == "top_down_explicit":
            names = [card.name for card in self.cards]
            said = await self._say(
                choose_card(self.question, self._shown(), list(zip(names, self.descriptions, strict=True)))
            )
            place = named_card(said, names)
            if place is not None:
                return self.cards[place], {"by": "name"}
        else:
            said = await self._say(what_is_missing(self.question, self._shown()))
        request = said or bare(self.question)
        scores = await relevance_of(request, self.descriptions, self.pool, self.context, self.options)
        return self.cards[ranked(scores)[0]], {"by": "description", "request": request}

    def _shown(self) -> list[str]:
        return [kept.passage.text for kept in self.kept]

    async def _say(self, sheet: Sheet) -> str:
        sampling = self.options.knowledge(self.context.sampling, sampled=False)
        before = self.question.messages()[:-1]
        asked = await ask(self.context, self.answerer, sheet, sampling, before=before, sample=0)
        return (strip_reasoning(asked.reply.text) or "").strip()
