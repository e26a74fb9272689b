"""Peer review: who reviews which answer, and what they say of it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import Generation, Message, ModelCallError
from moco_method_multiagent_feedback.options import Options
from moco_method_multiagent_feedback.prompts import knowledge, review, reviewer
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_discussion import Talk, in_role, require_room

__all__ = ["Reviews", "draw", "gather_reviews", "text_of"]


@attrs.frozen
class Reviews:
    """What reviewers said of one answer, in the order of showing. ``by`` are all who were asked, ``lost`` those without use."""

    texts: tuple[str, ...]
    by: tuple[str, ...]
    lost: tuple[str, ...]


def text_of(reply: Generation) -> str:
    """Return what others may read of a reply: its text without reasoning."""
    return (strip_reasoning(reply.text) or "").strip()


def draw(talk: Talk, author: int, number: int, options: Options) -> list[int]:
    """Return who reviews an author in a round: distinct others drawn uniformly, in the order in which they are shown.

    The draw depends on who the models are, never on their places. With ``include_self`` the author is among them.
    """
    others = sorted((j for j in range(len(talk.members)) if j != author), key=talk.who)
    rng = talk.context.rng("multiagent_feedback", "reviewers", options.seed, number, *talk.who(author))
    drawn = rng.sample(others, min(options.feedback_count, len(others)))
    if options.include_self:
        drawn.insert(rng.randrange(len(drawn) + 1), author)
    return drawn


async def gather_reviews(talk: Talk, authors: Sequence[int], number: int, options: Options) -> dict[int, Reviews]:
    """Have the last answers of authors reviewed, all at once: the requests to one reviewer make one batch.

    Raises PromptTooLong if no reviewer had room for the answer it was to read.
    """
    sampling = options.feedback(talk.context.sampling)
    ranks = sorted(range(len(talk.members)), key=talk.who)

    async def peer(author: int, by: int) -> Generation:
        sample = number * len(ranks) + ranks.index(author)  # equal answers of two authors get a review each
        return (await talk.ask(by, review(talk.question, talk.said[author]), sampling, sample=sample, role="reviewer"))[0]

    async def itself(perspective: str) -> Generation:
        before = in_role(talk.question.messages()[:-1], reviewer(perspective))
        request = Message("user", knowledge(talk.question, perspective))
        known = await talk.context.role("reviewer").generate(talk.members[0], [*before, request], sampling, sample=number)
        sheet = review(talk.question, talk.said[0], text_of(known))
        return (await talk.ask(0, sheet, sampling, before=before, sample=number, role="reviewer"))[0]

    if len(talk.members) == 1:
        names = options.perspectives[: options.reviews(1)]
        asked = [(author, name) for author in authors for name in names]
        calls = [itself(name) for _, name in asked]
    else:
        pairs = [(author, by) for author in authors for by in draw(talk, author, number, options)]
        asked = [(author, talk.members[by].name) for author, by in pairs]
        calls = [peer(author, by) for author, by in pairs]
    written = await talk.context.gather(calls, tolerate=ModelCallError)
    require_room(written)
    said = ["" if isinstance(reply, ModelCallError) else text_of(reply) for reply in written]
    return {
        author: Reviews(
            texts=tuple(text for (a, _), text in zip(asked, said, strict=True) if a == author and text),
            by=tuple(name for a, name in asked if a == author),
            lost=tuple(name for (a, name), text in zip(asked, said, strict=True) if a == author and not text),
        )
        for author in authors
    }
