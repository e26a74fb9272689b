"""The rounds: the leader draws instructions, models duel on them, ratings move, models are trained, the leader learns."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from moco_core import Context, Example, Model
from moco_method_sparta_stackelberg.leading import Leader, drawn_opponent, reward, tau
from moco_method_sparta_stackelberg.options import Options
from moco_method_sparta_stackelberg.practising import Practice
from moco_toolkit_duels import Duel, Standings, counted, dpo, fight, preferences
from moco_toolkit_training import Job

__all__ = ["Rounds", "hold"]

Means = tuple[float, float] | None


@attrs.frozen(kw_only=True)
class Rounds:
    """The models of every round, the initial ones first, the ratings and leaders at the end, and what it came to."""

    models: tuple[tuple[Model, ...], ...]
    standings: Standings
    leaders: tuple[Leader, ...]
    outcome: str


async def hold(pool: Sequence[Model], examples: Sequence[Example], options: Options, context: Context) -> Rounds:
    """Hold all rounds. What was answered, judged and trained before is used again, so that a killed fit goes on."""
    standings = Standings.start([options.scale.initial] * len(pool), options.scale)
    several = options.leader_scope == "per_model" and options.leader_type == "probabilistic"
    leaders = [Leader(logs=[0.0] * len(examples))] * (len(pool) if several else 1)
    rounds: list[tuple[Model, ...]] = [tuple(pool)]
    learnt = False
    for iteration in range(options.num_iterations):
        progress, weights = tau(iteration, options.num_iterations), standings.ratings
        rng = context.rng("sparta_stackelberg", options.seed, iteration)
        shares = [leader.shares(options.gamma if options.leader_type == "probabilistic" else 1.0) for leader in leaders]
        duels, places = [], []
        for n in range(options.num_duels_per_iteration):
            number = iteration * options.num_duels_per_iteration + n
            active = number % len(pool)
            (place,) = rng.choices(range(len(examples)), shares[active if several else 0])
            other = drawn_opponent(weights, active, progress, options, rng)
            duels.append(Duel(number=number, question=examples[place].question, a=active, b=other))
            places.append(place)
        means, jobs = await _followers(duels, rounds[-1], weights, options, context, iteration + 1)
        for duel, scores in zip(duels, means, strict=True):
            if scores is not None:
                standings = standings.after(duel.a, duel.b, *scores, options.scale)
        rewards: list[list[tuple[int, float]]] = [[] for _ in leaders]
        for duel, place, scores in zip(duels, places, means, strict=True):
            if scores is not None:
                value = reward(scores, progress, options)
                # a leader of one model's own learns from every duel that the model is in
                for k in (duel.a, duel.b) if several else (0,):
                    rewards[k].append((place, value / 2 if several else value))
        leaders = [leader.after(r, p, options) for leader, r, p in zip(leaders, rewards, shares, strict=True)]
        context.note(
            round=iteration + 1,
            progress=progress,
            instructions=[examples[place].id for place in places],
            scores=[None if m is None else list(m) for m in means],
            ratings=dict(zip([m.name for m in pool], standings.ratings, strict=True)),
            most_likely=[max(leader.shares(options.gamma)) for leader in leaders],
            updates=standings.updates,
        )
        learnt = learnt or any(job is not None for job in jobs)
        rounds.append(await _train(pool, rounds[-1], jobs, iteration + 1, context))
    trained = any(model is not first for models in rounds for model, first in zip(models, pool, strict=True))
    outcome = "trained" if trained else "nothing_trained" if learnt else "no_pairs"
    return Rounds(
        models=tuple(rounds),
        standings=standings,
        leaders=tuple(leaders),
        outcome=outcome if options.num_iterations else "no_rounds",
    )


async def _followers(
    duels: Sequence[Duel],
    members: Sequence[Model],
    weights: Sequence[float],
    options: Options,
    context: Context,
    number: int,
) -> tuple[list[Means], list[Job | None]]:
    """Return the mean scores of every duel, and what every model is to be trained by."""
    if options.training_algorithm == "grpo":
        practice = Practice(duels, members, weights, options, context)
        means = await practice.means()
        if not any(m is not None for m in means):
            _warn(context, number, f"nobody gave readable scores in {len(duels)} duels")
            return means, [None] * len(members)
        return means, [practice.job(i) for i in range(len(members))]
    fought = await fight(duels, members, options, context, f"duels of round {number}")
    pairs = preferences(fought, weights, options.min_margin)
    count = counted(fought, len(pairs))
    context.note(round=number, **count)
    if not pairs:
        _warn(
            context,
            number,
            f"of {count['duels']} duels nobody gave readable scores in {count['unjudged']}, {count['even']} ended even and "
            f"calls failed in {count['failed']}",
        )
        return [one.means(weights) for one in fought], [None] * len(members)
    return [one.means(weights) for one in fought], [dpo([p for p, _ in pairs], options)] * len(members)


async def _train(
    pool: Sequence[Model], models: Sequence[Model], jobs: Sequence[Job | None], number: int, context: Context
) -> tuple[Model, ...]:
    async def one(root: Model, model: Model, job: Job | None) -> Model:
        if job is None:
            return model
        return await context.train(model, job, name=f"{root.name}-stackelberg{number}")

    return tuple(await context.gather(one(*each) for each in zip(pool, models, jobs, strict=True)))


def _warn(context: Context, number: int, why: str) -> None:
    context.warn(f"sparta_stackelberg: round {number} gave nothing to train on: {why}")
