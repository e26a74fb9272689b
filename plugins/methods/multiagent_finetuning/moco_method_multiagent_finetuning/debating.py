"""A debate: generators answer, critics read what the others said and answer again, a vote ends it.

Du et al., "Improving Factuality and Reasoning in Language Models through Multiagent Debate", arXiv 2305.14325.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Context, Model, ModelCallError, Question, Reply
from moco_method_multiagent_finetuning.options import Options
from moco_method_multiagent_finetuning.prompts import summary, update, update_from_summary
from moco_toolkit_discussion import Talk, refine
from moco_toolkit_quoting import Sheet, ask
from moco_toolkit_voting import OPEN_KINDS, Utility, metric_utility, token_f1, vote

__all__ = ["Agents", "agreement", "conclude", "debate"]


@attrs.frozen(kw_only=True)
class Agents:
    """Who debates: of every agent the model that answers first, the one that answers again, and the one that summarises."""

    generators: tuple[Model, ...]
    critics: tuple[Model, ...]
    summarizers: tuple[Model, ...]


async def debate(agents: Agents, question: Question, options: Options, context: Context) -> Talk:
    """Hold all rounds; every agent remembers its own turns as a chat. Raises ModelCallError if nobody ever answered."""
    talk = Talk(
        members=agents.generators,
        question=question,
        context=context,
        sampling=options.sampling(context.sampling),
        full_history=True,
        seed=options.seed,
    )
    await talk.open()
    talk.members = agents.critics
    for number in range(1, options.rounds):
        sheets = await context.gather(_sheet(talk, agents, n, number, options) for n in range(len(agents.critics)))
        await talk.round(dict(enumerate(sheets)))
    talk.require_answers()
    return talk


async def _sheet(talk: Talk, agents: Agents, agent: int, number: int, options: Options) -> Sheet | None:
    """Return what a critic reads: a summary of the others' last replies, or these, or its own where there are no others."""
    others = [talk.said[j] for j in talk.order(agent, number) if talk.said[j]]
    own = talk.said[agent] or None
    if not others:
        return None if own is None else refine(talk.question, own, [])
    if options.summarize and (told := await _summary(talk, agents, agent, others)):
        return update_from_summary(talk.question, told)
    return update(talk.question, others)


async def _summary(talk: Talk, agents: Agents, agent: int, others: Sequence[str]) -> str:
    """Return a summary of replies, greedily written; empty if the call fails."""
    greedy = attrs.evolve(talk.sampling, temperature=0.0)
    try:
        asked = await ask(
            talk.context.role("summarizer"),
            agents.summarizers[agent],
            summary(talk.question, others),
            greedy,
            before=talk.question.messages()[:-1],
            ratio=talk.ratios[agent],
            sample=0,
        )
    except ModelCallError:
        return ""
    return asked.reply.text.strip()


def agreement(talk: Talk) -> Utility:
    """Return how much one answer supports another, by their keys: the metric's own similarity, else equality."""
    answers = [answer for row in talk.answers for answer in row]
    return metric_utility(talk.context.metric, talk.question, answers) or (lambda a, b: float(a == b))


def conclude(talk: Talk) -> Reply:
    """Return the reply of the first agent with the answer that most agents give in the last round.

    Ties go to the answer with the most support in earlier rounds, then to the first agent. Free-form replies, which no two
    agents share, are chosen by their mean word overlap with the others. Where nothing can be read it is agent 0's last
    reply, flagged ``unparsed``.
    """
    if (
        talk.question.answer_kind in OPEN_KINDS
        and metric_utility(talk.context.metric, talk.question, talk.answers[-1]) is None
    ):
        found = vote([answer.key for answer in talk.answers[-1]], utility=token_f1)
        reply = None if found is None else talk.last[found.voter]
        if found is not None and reply is not None:
            return Reply.of(
                reply, final="similarity", agent=found.voter, model=talk.members[found.voter].name, **talk.record()
            )
    supports = agreement(talk)
    earlier = [answer.key for row in talk.answers[:-1] for answer in row if answer.key is not None]
    skills = [
        0.0 if answer.key is None else math.fsum(supports(answer.key, key) for key in earlier)
        for answer in talk.answers[-1]
    ]
    return talk.vote("vote", skills=skills, preferred=0)
