"""FrugalGPT's scorer: a trained classifier reads a question with its reply, and says how likely the reply is right.

Chen, Zaharia and Zou, "FrugalGPT", arXiv 2305.05176: one scorer per level, on that level's own replies.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import attrs

from moco_core import CAPABILITIES, ConfigError, Context, Example, Model, ModelCallError, Pool, Sampling
from moco_method_cascade.asking import Step
from moco_method_cascade.believing import believed, conversation
from moco_method_cascade.options import Options
from moco_toolkit_routing import holdout
from moco_toolkit_training import Classify, Labelled, predicted_memory

__all__ = ["learn_scorers", "predicted", "scorer_base", "scorer_problems"]

QUESTION = 60
"""Tokens of a question, as a guess for what a plan says."""


async def learn_scorers(
    members: Pool,
    pool: Pool,
    dev: Sequence[Example],
    steps: Sequence[Sequence[Step]],
    scores: Sequence[Sequence[float]],
    options: Options,
    context: Context,
) -> tuple[tuple[Model | None, ...], list[int], list[list[Step]]]:
    """Train one scorer per level of ``pool`` but the last, of one of the ``members``, on a share of dev.

    Return them (None: nothing to train on), the dev questions that they did not see, and every level's steps on these, with
    the scorers' confidences: what thresholds are set on. With one dev question it is used for both.
    """
    base = scorer_base(members, options)
    assert base is not None  # the pool was checked
    seed = context.rng("cascade", "scorer").getrandbits(31)
    strata = [tuple(column) for column in zip(*scores, strict=True)]
    train, held = holdout(strata, 1 - options.scorer_share, random.Random(seed))
    if not held:
        held = train
        context.warn("cascade: one dev question: the scorers' thresholds are set on what they were trained on")
    scorers: list[Model | None] = []
    for level in range(len(pool) - 1):
        rows = [
            Labelled(messages=conversation(dev[q].question, reply.text), label=(1 - right, right))
            for q in train
            if (reply := steps[level][q].reply) is not None and reply.text.strip()
            for right in (min(1.0, max(0.0, scores[level][q])),)
        ]
        job = _job(rows, options)
        found = await context.train(base, job, name=f"{pool[level].name}-scorer")
        scorers.append(None if found is base else found)

    async def judged(q: int, level: int, scope: Context) -> Step:
        step = steps[level][q]
        if level == len(pool) - 1 or step.reply is None or step.confidence == -math.inf:
            return step
        try:
            value = await believed(scorers[level], dev[q].question, step.reply.text, scope)
        except ModelCallError:
            value = math.nan
        return attrs.evolve(step, confidence=value)

    async def one(example: Example, scope: Context) -> list[Step]:
        q = places[example.id]
        return list(await scope.gather(judged(q, level, scope) for level in range(len(steps))))

    places = {example.id: q for q, example in enumerate(dev)}
    table = await context.each([dev[q] for q in held], one, label="scoring dev replies")
    return tuple(scorers), held, [list(row) for row in zip(*table, strict=True)]


def _job(rows: Sequence[Labelled], options: Options) -> Classify:
    return Classify(
        rows=rows,
        classes=2,
        epochs=options.scorer_epochs,
        learning_rate=options.scorer_learning_rate,
        weight_decay=0.01,
    )


def predicted(pool: Sequence[Model], options: Options, dev: int, sampling: Sampling) -> dict[str, float]:
    """Predict what training the scorers takes (``Cost.train_tokens`` and ``train_memory``)."""
    base = scorer_base(pool, options)
    if base is None or not dev:
        return {}
    tokens = QUESTION + sampling.max_new_tokens / 2
    rows = options.scorer_share * dev * (sum(model.can("generate") for model in pool) - 1)
    return {
        "train_tokens": options.scorer_epochs * rows * tokens,
        "train_memory": predicted_memory(_job([Labelled(messages="", label=0)], options), base),
    }


def scorer_base(pool: Sequence[Model], options: Options) -> Model | None:
    """Return who is trained: the named member, else the smallest that can be, an encoder first."""
    if options.scorer != "auto":
        return Pool(pool).named(options.scorer, "scorer")
    able = [model for model in pool if model.can("train")]
    return min(able, key=lambda m: (m.can("generate"), m.parameters or math.inf), default=None)


def scorer_problems(pool: Sequence[Model], options: Options) -> list[str]:
    """Return what keeps a scorer from being trained, one sentence each."""
    try:
        base = scorer_base(pool, options)
    except ConfigError as error:
        return list(error.problems)
    if base is not None and base.can("train"):
        return []
    who = f"model {base.name!r} cannot" if base is not None else "no model of the pool can"
    return [
        f"scorer: {who} {CAPABILITIES['train']} (capability 'train'); the transformers engine can (pip install "
        "moco-pool-transformers), or choose confidence=deferral or p_true"
    ]
