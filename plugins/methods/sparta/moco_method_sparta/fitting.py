"""The rounds of sparta: duels, ratings, pairs, and the training of every model on all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs

from moco_core import Context, Example, Model
from moco_method_sparta.options import Options
from moco_toolkit_duels import (
    Duel,
    Fought,
    Standings,
    aligned,
    counted,
    dpo,
    fight,
    matches,
    preferences,
    starting_ratings,
)

__all__ = ["Outcome", "Rounds", "damped", "hold"]

Outcome = Literal["trained", "no_pairs", "nothing_trained", "no_rounds"]
"""What fitting came to: models were trained; no duel gave a pair; training left every pair out; no round was asked for."""

_FROZEN = 7  # from the eighth round on nobody else is damped


@attrs.frozen(kw_only=True)
class Rounds:
    """The models of every round, the initial ones first, the ratings at the end, and what it came to."""

    models: tuple[tuple[Model, ...], ...]
    standings: Standings
    outcome: Outcome


def damped(before: Sequence[int], ratings: Sequence[float], iteration: int, kind: str) -> list[int]:
    """Return the models whose own scores count less in a round (numbered from 0), from the most damped on."""
    if kind == "normal" or not iteration:
        return []
    if iteration >= _FROZEN:
        return list(before)
    lowest = sorted(range(len(ratings)), key=lambda i: (ratings[i], i))
    if kind == "dynamic":
        return lowest[:iteration]
    return [*before, *[i for i in lowest if i not in before][:1]]


def rated(
    standings: Standings, fought: Sequence[Fought], weights: Sequence[float], less: Sequence[int], options: Options
) -> Standings:
    """Return the standings after duels, one by one in their order; duels that nobody judged move nobody."""
    factors = [1.0] * len(weights)
    for place, model in enumerate(less):
        factors[model] = min(1.0, 0.1 * place)
    for one in fought:
        means = one.means(weights)
        if means is not None:
            a, b = one.duel.a, one.duel.b
            standings = standings.after(a, b, factors[a] * means[0], factors[b] * means[1], options.scale)
    return standings


async def hold(pool: Sequence[Model], examples: Sequence[Example], options: Options, context: Context) -> Rounds:
    """Hold all rounds. What was answered, judged and trained before is used again, so that a killed fit goes on."""
    start = [options.scale.initial] * len(pool)
    if options.start == "scores":
        start = await starting_ratings(pool, examples, options.scale, context)
    standings = Standings.start(start, options.scale)
    rounds: list[tuple[Model, ...]] = [tuple(pool)]
    less: list[int] = []
    pairs_made = False
    for iteration in range(options.num_iterations):
        rng = context.rng("sparta", options.seed, iteration)
        asked = rng.sample(list(examples), min(options.num_instructions, len(examples)))
        weights = standings.ratings
        who = matches(len(asked), weights, options.random_match_prob, options.num_opponents, rng)
        duels = [
            Duel(number=iteration * options.num_instructions + n, question=example.question, a=a, b=b)
            for n, (example, (a, b)) in enumerate(zip(asked, who, strict=True))
        ]
        fought = await fight(duels, rounds[-1], options, context, f"duels of round {iteration + 1}")
        less = damped(less, weights, iteration, options.score_type)
        standings = rated(standings, fought, weights, less, options)
        pairs = preferences(fought, weights if options.weights_at == "start" else standings.ratings, options.min_margin)
        tell(fought, standings, len(pairs), iteration + 1, pool, context)
        pairs_made = pairs_made or bool(pairs)
        rows = [preference for preference, _ in pairs]
        if rows:
            jobs = [dpo(rows, options)] * len(pool)
            rounds.append(tuple(await aligned("sparta", pool, rounds[-1], jobs, iteration + 1, context)))
        else:
            rounds.append(rounds[-1])
    trained = any(model is not first for models in rounds for model, first in zip(models, pool, strict=True))
    outcome: Outcome = "trained" if trained else "nothing_trained" if pairs_made else "no_pairs"
    return Rounds(models=tuple(rounds), standings=standings, outcome=outcome if options.num_iterations else "no_rounds")


def tell(
    fought: Sequence[Fought], standings: Standings, pairs: int, number: int, pool: Sequence[Model], context: Context
) -> None:
    """Note a round's duels, how they ended, and the ratings; warn if it gave nothing to train on."""
    names = [model.name for model in pool]
    for one in fought:
        scores = {names[j]: list(pair) for j, pair in one.scores.items()}
        ids = (names[one.duel.a], names[one.duel.b])
        context.note(round=number, duel=one.duel.number, question=one.duel.question.id, models=ids, scores=scores)
    count = counted(fought, pairs)
    context.note(
        round=number,
        **count,
        ratings=dict(zip(names, standings.ratings, strict=True)),
        deviations=dict(zip(names, standings.deviations, strict=True)),
        updates=standings.updates,
    )
    if not pairs:
        context.warn(
            f"sparta: round {number} gave no pairs, so nothing was trained in it: of {count['duels']} duels nobody gave "
            f"readable scores in {count['unjudged']}, {count['even']} ended even and calls failed in {count['failed']}"
        )
