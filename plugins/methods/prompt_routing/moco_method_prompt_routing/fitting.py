"""What is settled before any question comes: who routes, how the candidates are described, who stands in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Context, Evaluation, Example, Model, ModelCallError, Pool
from moco_method_prompt_routing.options import Options
from moco_method_prompt_routing.prompts import SELF_DESCRIPTION

__all__ = ["choose_fallback", "choose_router", "describe"]


def choose_router(pool: Pool, options: Options, evaluation: Evaluation | None) -> Model:
    """Return the model that routes: the named one, else the best on dev of those that can."""
    if options.router != "best_dev":
        return pool.named(options.router, "prompt_routing.router")
    assert evaluation is not None  # options.evaluates holds for best_dev
    able = [i for i, model in enumerate(pool) if options.decode != "constrained" or model.can("score")]
    means = evaluation.means()
    return pool[max(able, key=lambda i: (means[i], -i))]


def choose_fallback(
    pool: Pool, candidates: Sequence[Model], router: Model, options: Options, evaluation: Evaluation | None
) -> int:
    """Return which candidate answers after an unreadable choice: as asked, else the best on dev, else the first."""
    wanted = options.fallback
    if wanted == "router" and any(model is router for model in candidates):
        return _index(candidates, router)
    if wanted not in ("router", "best_dev"):
        return _index(candidates, pool.named(wanted, "prompt_routing.fallback"))
    if evaluation is None:
        return 0
    means = dict(zip(evaluation.names, evaluation.means(), strict=True))
    return max(range(len(candidates)), key=lambda i: (means[candidates[i].name], -i))


async def describe(
    candidates: Sequence[Model],
    pool: Pool,
    dev: Sequence[Example],
    options: Options,
    evaluation: Evaluation | None,
    context: Context,
) -> list[str]:
    """Return one description per candidate, as the options ask for."""
    if options.model_descriptions is not None:
        return list(options.model_descriptions)
    if options.describe == "self":
        sampling = attrs.evolve(context.sampling, temperature=0.0, max_new_tokens=64)
        said = await context.gather(
            (context.generate(model, SELF_DESCRIPTION, sampling) for model in candidates), tolerate=ModelCallError
        )
        texts = ["" if isinstance(reply, ModelCallError) else reply.text.strip() for reply in said]
        return [text or model.description or model.name for text, model in zip(texts, candidates, strict=True)]
    if options.describe == "name":
        return [model.name for model in candidates]
    if options.describe == "auto" and all(model.description.strip() for model in candidates):
        return [model.description for model in candidates]
    if evaluation is None:
        return [model.description.strip() or model.name for model in candidates]
    return [_score_card(model, pool, dev, evaluation) for model in candidates]


def _score_card(model: Model, pool: Pool, dev: Sequence[Example], evaluation: Evaluation) -> str:
    """Describe a model by its name, its own description and its dev scores, overall and per subset."""
    row = evaluation.scores[_index(pool, model)]
    groups: dict[str, list[float]] = {}
    for example, score in zip(dev, row, strict=True):
        if score is not None and example.question.subset:
            groups.setdefault(example.question.subset, []).append(score)
    text = f"{model.name}{f', {model.description.strip()}' if model.description.strip() else ''}"
    known = [score for score in row if score is not None]
    if known:
        text += f"; dev score {math.fsum(known) / len(known):.2f}"
    if len(groups) > 1:
        parts = (f"{name} {math.fsum(scores) / len(scores):.2f}" for name, scores in sorted(groups.items()))
        text += f" ({', '.join(parts)})"
    return text


def _index(models: Sequence[Model], wanted: Model) -> int:
    return next(i for i, model in enumerate(models) if model is wanted)
