"""Cards: models that write passages about a question."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import attrs

from moco_core import Context, Generation, Message, Model, ModelCallError, Pool, Question
from moco_method_knowledge_card.options import Options
from moco_method_knowledge_card.prompts import bare, knowledge
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_quoting import characters_per_token, escape

__all__ = ["Passage", "Written", "cards_of", "write"]


@attrs.frozen
class Passage:
    """A passage and who wrote it. ``tokens`` are the writer's; ``ratio`` its characters per token."""

    text: str
    card: str
    tokens: int
    ratio: float


@attrs.frozen
class Written:
    """What cards wrote: distinct passages in card order, and what came to nothing, by card."""

    passages: list[Passage]
    lost: dict[str, str]


def cards_of(pool: Pool, answerer: Model | None, options: Options) -> list[Model]:
    """Return the models that write: all, without the answerer where it is not to read itself. A single one is its own card."""
    others = [model for model in pool if model is not answerer]
    return others if options.exclude_self and others else list(pool)


async def write(
    cards: Sequence[Model],
    question: Question,
    context: Context,
    options: Options,
    base: Collection[str],
    *,
    use: int = 0,
) -> Written:
    """Have every card write its passages, all at once; greedily if it is one passage, asked for the first time.

    ``base`` names those that continue plain text; ``use`` counts how often these cards were asked before. A failed call
    raises nothing: it is told in ``lost``.
    """
    count = options.per_card
    sampling = options.knowledge(context.sampling, sampled=count > 1 or use > 0)
    asked, before, scope = bare(question), question.messages()[:-1], context.role("card")
    request = [*before, Message("user", knowledge(question))]

    async def one(card: Model, number: int) -> Passage:
        if card.name in base:
            reply = await scope.generate(card, f"{asked}\n", sampling, sample=number, raw=True)
        else:
            reply = await scope.generate(card, request, sampling, sample=number)
        text = _passage(reply, asked)
        return Passage(text, card.name, reply.usage.completion_tokens, characters_per_token(asked, reply))

    places = [(card, use * count + number) for card in cards for number in range(count)]
    found = await context.gather((one(card, number) for card, number in places), tolerate=ModelCallError)
    passages: dict[str, Passage] = {}
    lost: dict[str, str] = {}
    for (card, _), passage in zip(places, found, strict=True):
        if isinstance(passage, ModelCallError):
            lost[card.name] = str(passage)
        elif not passage.text:
            lost[card.name] = "empty passage"
        else:
            passages.setdefault(passage.text, passage)
    return Written(list(passages.values()), lost)


def _passage(reply: Generation, asked: str) -> str:
    """Return a reply without reasoning and without an echo of the question."""
    text = (strip_reasoning(reply.text) or "").strip()
    return escape(text.removeprefix(asked).strip())
