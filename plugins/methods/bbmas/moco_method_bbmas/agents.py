"""`control: self`: agents take turns, each choosing what it does, until enough of them have concluded."""

from __future__ import annotations

from collections.abc import Sequence

from moco_method_bbmas import prompts
from moco_method_bbmas.parse import mentions, parse_action
from moco_method_bbmas.table import Table, spoken

__all__ = ["choose_actors", "concluded", "hold_rounds", "label"]


def label(index: int) -> str:
    """Return what the board calls the model of that place in the pool."""
    return f"agent {index + 1}"


def choose_actors(table: Table, number: int, acted: Sequence[int]) -> list[int]:
    """Return who acts in round ``number``; ``acted`` is each agent's last round, 0 for none.

    Agents idle for more than the threshold come first, then others by lot; who acted in the round before rests, unless
    everybody did.
    """
    options = table.options
    rested = [i for i, last in enumerate(acted) if last == 0 or last < number - 1] or list(range(len(acted)))
    forced = [i for i in rested if number - 1 - acted[i] > options.agent_idle_threshold]
    table.context.rng("bbmas", options.seed, number).shuffle(rested)
    forced.sort(key=lambda i: acted[i])
    others = [i for i in rested if i not in forced]
    return sorted([*forced, *others][: options.max_agents_per_round])


async def hold_rounds(table: Table) -> int:
    """Hold rounds until enough agents conclude, or there are no more; return how many were held."""
    options, acted = table.options, [0] * len(table.pool)
    for number in range(1, options.max_rounds + 1):
        table.round = number
        actors = choose_actors(table, number, acted)
        found = await table.context.gather(_act(table, index) for index in actors)
        known = {entry.id for entry in table.board.shown}
        for index, done in zip(actors, found, strict=True):
            acted[index] = number
            if done is not None:
                action, text = done
                table.board.post(label(index), table.pool[index].name, number, action, text, mentions(text, known))
        if len(concluded(table)) >= options.min_agents_to_stop:
            return number
    return options.max_rounds


def concluded(table: Table) -> list[int]:
    """Return the agents whose latest entry is a conclusion."""
    latest = [table.board.latest(label(index)) for index in range(len(table.pool))]
    return [i for i, entry in enumerate(latest) if entry is not None and entry.kind == "finalize"]


async def _act(table: Table, index: int) -> tuple[str, str] | None:
    """Have one agent choose an action and carry it out; only the second reply is for the board."""
    question, who = table.question.text(), label(index)
    chosen = await table.show(
        who,
        index,
        lambda board, attempt: prompts.select(question, board, who, short=attempt > 0),
        lambda text: (action, text) if (action := parse_action(text)) else None,
        doing="chooses",
    )
    action, why = ("step", "") if chosen is None else chosen[1]
    done = await table.show(
        who,
        index,
        lambda board, attempt: prompts.execute(
            question, board, who, action, "" if attempt else why, table.question.answer_format
        ),
        spoken,
        doing=action,
    )
    return None if done is None else (action, done[1])
