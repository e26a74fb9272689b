"""From duels to trained models: preference pairs, a round of training, and the choice among all checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from moco_core import ConfigError, Context, Cost, Example, Model, Sampling
from moco_toolkit_duels.combat import Fought
from moco_toolkit_duels.options import DuelOptions
from moco_toolkit_duels.standings import Scale
from moco_toolkit_routing import holdout
from moco_toolkit_training import Dpo, Job, Lora, Preference, predicted_memory

__all__ = [
    "Candidate",
    "Selection",
    "aligned",
    "costs",
    "dpo",
    "preferences",
    "select",
    "split",
    "starting_ratings",
]

_PROMPT = 128
"""Tokens that a prompt is taken to have where trainings are predicted."""


def split(
    method: str, dev: Sequence[Example], options: DuelOptions, context: Context
) -> tuple[list[Example], list[Example]]:
    """Return the part of dev that models duel on and the part that selects; spread over subsets.

    Raises ConfigError for fewer than two examples.
    """
    if len(dev) < 2:
        raise ConfigError(
            f"{method}: needs two dev examples, one to duel on and one to select by, got {len(dev)}; raise the dev limit"
        )
    learn, held = holdout(
        [e.question.subset for e in dev], options.holdout, context.rng(method, "holdout", options.seed)
    )
    return [dev[q] for q in learn], [dev[q] for q in held]


async def starting_ratings(
    models: Sequence[Model], examples: Sequence[Example], scale: Scale, context: Context
) -> list[float]:
    """Return ratings in proportion to the models' own scores, with the usual start as mean; all equal if all scores are 0."""
    means = (await context.evaluate(models, examples, label="starting ratings")).means()
    average = math.fsum(means) / len(means)
    if not average:
        return [scale.initial] * len(models)
    return [max(scale.floor, scale.initial * mean / average) for mean in means]


def preferences(
    fought: Sequence[Fought], weights: Sequence[float], min_margin: float
) -> list[tuple[Preference, Fought]]:
    """Return the pairs that duels gave, the reply with the higher weighted mean first; ties and equal replies give none."""
    out = []
    for one in fought:
        means = one.means(weights)
        if means is None or one.replies is None:
            continue
        a, b = one.replies
        margin = abs(means[0] - means[1])
        if not margin or margin < min_margin or a == b:
            continue
        chosen, rejected = (a, b) if means[0] > means[1] else (b, a)
        out.append((Preference(prompt=one.duel.question, chosen=chosen, rejected=rejected), one))
    return out


def dpo(rows: Sequence[Preference], options: DuelOptions) -> Dpo:
    """Return the DPO of one iteration, whose reference is the checkpoint that it starts from."""
    return Dpo(
        rows=rows,
        beta=options.beta,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch=options.batch,
        warmup=options.warmup,
        max_length=options.max_length,
        lora=Lora(r=options.lora_r, alpha=options.lora_alpha, dropout=0.0) if options.lora_r else None,
        seed=options.seed,
    )


async def aligned(
    method: str, pool: Sequence[Model], models: Sequence[Model], jobs: Sequence[Job], number: int, context: Context
) -> list[Model]:
    """Return the models after one round of training; one that had nothing to train on stays as it is."""
    trained: list[Model] = await context.gather(
        context.train(model, job, name=f"{root.name}-{method}{number}")
        for root, model, job in zip(pool, models, jobs, strict=True)
    )
    return trained


@attrs.frozen(kw_only=True)
class Candidate:
    """A checkpoint: which model of the pool, after how many rounds of training."""

    index: int
    iteration: int
    model: Model


@attrs.frozen(kw_only=True)
class Selection:
    """The best checkpoint of all, and every model's own best, by their scores on what was held out."""

    best: Candidate
    own: tuple[Candidate, ...]
    score: float


async def select(rounds: Sequence[Sequence[Model]], held: Sequence[Example], context: Context) -> Selection:
    """Let every checkpoint, the initial models included, answer the held-out part. Ties: the earlier round, the lower index.

    ``rounds`` has the models of every round, the initial ones first; a checkpoint that stands twice is asked once.
    """
    candidates: dict[str, Candidate] = {}
    keys = [[model.fingerprint for model in models] for models in rounds]
    for iteration, models in enumerate(rounds):
        for index, model in enumerate(models):
            candidates.setdefault(model.fingerprint, Candidate(index=index, iteration=iteration, model=model))
    evaluation = await context.evaluate([c.model for c in candidates.values()], held, label="selecting on held-out dev")
    scores: Mapping[str, float] = dict(zip(candidates, evaluation.means(), strict=True))
    if all(score is None for row in evaluation.scores for score in row):
        context.warn("the metric gives no scores: the first model of the pool is chosen")
    for key, candidate in candidates.items():
        context.note(selecting=candidate.model.name, iteration=candidate.iteration, held_out_score=scores[key])
    best = max(candidates, key=scores.__getitem__)  # max keeps the first: they stand by round and index
    own = []
    for index in range(len(rounds[0])):
        column = [row[index] for row in keys]
        iteration = max(range(len(column)), key=lambda t: (scores[column[t]], -t))
        own.append(Candidate(index=index, iteration=iteration, model=rounds[iteration][index]))
    return Selection(best=candidates[best], own=tuple(own), score=scores[best])


def costs(
    options: DuelOptions,
    models: int,
    dev: int,
    iterations: int,
    duels: int,
    pool: Sequence[Model] = (),
    run: Sampling | None = None,
) -> Cost:
    """Predict duels, judgements, the selection and the DPO of every model on every pair; tokens as if no duel were a tie."""
    held = min(max(1, round(options.holdout * dev)), max(0, dev - 1))
    fit = iterations * duels * (2 + 2 * max(0, models - 2) * options.rounds) + models * (iterations + 1) * held
    reply = options.max_new_tokens or (run.max_new_tokens if run is not None else 0)
    tokens = 2 * duels * min(options.max_length, _PROMPT + reply) * options.epochs * models * iterations
    memory = max((predicted_memory(dpo((), options), model) for model in pool), default=0)
    return Cost(fit=fit, respond=1, train_tokens=tokens, train_memory=memory)
