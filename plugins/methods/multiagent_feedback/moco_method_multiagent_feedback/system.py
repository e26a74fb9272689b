"""The fitted system: rounds of review and revision, and how they end."""

from __future__ import annotations

from typing import Any

import attrs

from moco_core import Context, Question, Reply, System
from moco_core.converters import floats
from moco_method_multiagent_feedback.abstaining import compete, judge
from moco_method_multiagent_feedback.options import Options
from moco_method_multiagent_feedback.prompts import revise
from moco_method_multiagent_feedback.reviewing import Reviews, gather_reviews
from moco_toolkit_discussion import Talk

__all__ = ["MultiagentFeedbackSystem"]


@attrs.frozen(eq=False, slots=False)
class MultiagentFeedbackSystem(System):
    """The pool as a board of reviewers.

    ``summarizer`` writes the summary or is area chair (None: a vote), ``proposer`` is whose answer is decided on, ``threshold``
    from which probability of being wrong it is withheld, ``skills`` are the dev means, if measured.
    """

    summarizer: str | None = None
    proposer: str | None = None
    threshold: float | None = None
    skills: tuple[float, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(floats))

    def __attrs_post_init__(self) -> None:
        for where, name in (("summarizer", self.summarizer), ("proposer", self.proposer)):
            if name is not None:
                self.pool.named(name, f"multiagent_feedback.{where}")

    async def respond(self, question: Question, context: Context) -> Reply:
        options: Options = self.options
        if options.abstains:
            return await self.decide(question, context)
        talk, told = await self.discuss(question, context)
        last_word = None if self.summarizer is None else self.pool.names.index(self.summarizer)
        reply = await talk.close(last_word, self.skills)
        return attrs.evolve(reply, meta={**reply.meta, "reviews": told})

    async def discuss(self, question: Question, context: Context) -> tuple[Talk, list[dict[str, Any]]]:
        """Hold the rounds; return what was said, and per round who reviewed whom.

        Raises ModelCallError if no model ever answered.
        """
        options: Options = self.options
        talk = self._talk(question, context)
        await talk.open()
        talk.require_answers()
        told = []
        for number in range(1, options.rounds + 1):
            authors = [i for i in range(len(self.pool)) if talk.said[i]]
            reviews = await gather_reviews(talk, authors, number, options)
            usable = {i: revise(question, talk.said[i], r.texts) for i, r in reviews.items() if r.texts}
            await talk.round(usable)
            told.append({self.pool[i].name: _record(r) for i, r in reviews.items()})
        return talk, told

    async def decide(self, question: Question, context: Context) -> Reply:
        """Return the proposer's answer, withheld if it is probably wrong. Raises ModelCallError if it cannot be had."""
        options: Options = self.options
        assert self.proposer is not None  # fitted so
        author = self.pool.names.index(self.proposer)
        proposer = self.pool[author]
        talk = self._talk(question, context)
        await talk.open(only=author)
        talk.require_answers()
        reply, answer = talk.last[author], talk.answers[0][author]
        assert reply is not None  # required above
        meta: dict[str, Any] = {"final": options.final, "model": proposer.name, "answer": answer.key}
        if options.final == "compete":
            challenge = await compete(talk, author, options)
            meta |= attrs.asdict(
                challenge, filter=lambda field, value: field.name != "reply" and value not in ("", None)
            )
            abstained = challenge.changed
        else:
            assert self.summarizer is not None and self.threshold is not None  # fitted so
            reviews = (await gather_reviews(talk, [author], 0, options))[author]
            found = await judge(talk, self.pool.names.index(self.summarizer), author, reviews.texts, options)
            abstained = found.chance >= self.threshold
            meta |= {"wrong": found.chance, "orders": list(found.orders), "threshold": self.threshold}
            meta |= {"chair": self.summarizer, "reviews": _record(reviews)}
        return attrs.evolve(Reply.of(reply, **meta, quotes_cut=talk.record()["quotes_cut"]), abstained=abstained)

    def _talk(self, question: Question, context: Context) -> Talk:
        options: Options = self.options
        sampling = options.sampling(context.sampling)
        return Talk(members=self.pool, question=question, context=context, sampling=sampling, seed=options.seed)


def _record(reviews: Reviews) -> dict[str, list[str]]:
    return {"by": list(reviews.by), **({"lost": list(reviews.lost)} if reviews.lost else {})}
