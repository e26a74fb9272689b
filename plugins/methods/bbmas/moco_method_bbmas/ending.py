"""How a discussion ends: the conclusions on the board, a vote about them, and what is done where there are none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import Generation
from moco_method_bbmas import prompts
from moco_method_bbmas.agents import concluded, label
from moco_method_bbmas.parse import parse_vote
from moco_method_bbmas.table import Table, spoken
from moco_toolkit_voting import ballots, token_f1

__all__ = ["Conclusion", "conclusions_of", "final_round", "most_similar", "put_to_vote"]


@attrs.frozen(kw_only=True)
class Conclusion:
    """A final answer: ``author`` is its model's place in the pool, ``key`` the answer read out of it."""

    author: int
    text: str
    key: str | None


def read_conclusions(table: Table, authors: Sequence[int], texts: Sequence[str]) -> list[Conclusion]:
    answers = ballots(table.context, table.question, texts)
    return [
        Conclusion(author=author, text=text, key=answer.key)
        for author, text, answer in zip(authors, texts, answers, strict=True)
    ]


def conclusions_of(table: Table) -> list[Conclusion]:
    """Return the conclusions of the agents that stand by one, in pool order."""
    authors = concluded(table)
    latest = [table.board.latest(label(i)) for i in authors]
    return read_conclusions(table, authors, [entry.text for entry in latest if entry is not None])


async def final_round(table: Table, number: int) -> list[Conclusion]:
    """Have every model give its final answer from the board, once, all at the same time."""
    table.round = number
    question, closing = table.question, table.question.answer_format

    async def conclude(index: int) -> tuple[Generation, str] | None:
        who = label(index)
        return await table.show(
            who,
            index,
            lambda board, attempt: prompts.finalize(question.text(), board, who, closing),
            spoken,
            doing="concludes",
            retries=0,
        )

    found = await table.context.gather(conclude(i) for i in range(len(table.pool)))
    authors = [i for i, said in enumerate(found) if said is not None]
    texts = [said[1] for said in found if said is not None]
    for index, text in zip(authors, texts, strict=True):
        table.board.post(label(index), table.pool[index].name, number, "finalize", text)
    return read_conclusions(table, authors, texts)


async def put_to_vote(
    table: Table, conclusions: Sequence[Conclusion], skills: Sequence[float] | None
) -> tuple[int, dict[str, Any]]:
    """Return the winner's index and the record of the vote.

    Conclusions that agree need no vote. Else every model votes for a number; ties go to the conclusion that more others
    agree with, then to the better author on dev, then to the first.
    """
    skill = skills or [0.0] * len(table.pool)
    alike = [sum(c.key == d.key for d in conclusions) if c.key is not None else 1 for c in conclusions]
    votes: list[int | None] = []
    if len(conclusions) > 1 and alike[0] < len(conclusions):
        votes = await table.context.gather(_vote(table, voter, conclusions) for voter in range(len(table.pool)))
    tally = [votes.count(i) for i in range(len(conclusions))]
    chosen = max(range(len(conclusions)), key=lambda i: (tally[i], alike[i], skill[conclusions[i].author], -i))
    return chosen, {"votes": votes, "tally": tally} if votes else {}


async def _vote(table: Table, voter: int, conclusions: Sequence[Conclusion]) -> int | None:
    """Return one model's vote. Every model is shown the conclusions from another one on, so that no place is favoured."""
    count = len(conclusions)
    start = table.context.rng("bbmas", table.options.seed, "vote").randrange(count) + voter
    order = [(start + place) % count for place in range(count)]
    said = await table.ask(
        label(voter),
        voter,
        [conclusions[i].text for i in order],
        lambda shown, attempt: prompts.vote(table.question.text(), shown),
        lambda text: parse_vote(text, count),
        doing="votes",
        retries=0,
    )
    return None if said is None else order[said[1]]


def most_similar(conclusions: Sequence[Conclusion], skills: Sequence[float]) -> int:
    """Return the conclusion most similar to the others: 1 for the same answer, else the token F1 of the texts.

    Ties go to the better author on dev, then to the first.
    """

    def alike(a: Conclusion, b: Conclusion) -> float:
        return 1.0 if a.key is not None and a.key == b.key else token_f1(a.text, b.text)

    totals = [math.fsum(alike(c, d) for j, d in enumerate(conclusions) if j != i) for i, c in enumerate(conclusions)]
    return max(range(len(conclusions)), key=lambda i: (totals[i], skills[conclusions[i].author], -i))
