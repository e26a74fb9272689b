"""The routers that are trained by gradient descent: their losses, first weights and held-out selection. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moco_method_trained_router.lesson import Lesson
from moco_method_trained_router.options import Options
from moco_toolkit_routing.learning import Kept, descend

__all__ = ["fit_mf", "fit_mlp", "mf_scores", "mlp_logits", "pairs"]

_DTYPE = torch.float64  # small heads: rounding should not decide which epoch is kept


def mlp_logits(x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Return logits (B, N) of standardised vectors (B, d)."""
    hidden = functional.relu(x @ parameters["w1"].T + parameters["b1"])
    return hidden @ parameters["w2"].T + parameters["b2"]


def mf_scores(x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    """Return score(i, q) (B, N) of vectors (B, d)."""
    models = functional.normalize(parameters["models"], dim=1)
    return (x @ parameters["project"].T) @ (models * parameters["weight"]).T


def pairs(lesson: Lesson, rows: Sequence[int], tie: float) -> list[tuple[int, int, int]]:
    """Return (row, winner, loser) for all ordered pairs of models; ties are left out."""
    n = lesson.models
    return [
        (k, i, j)
        for k, q in enumerate(rows)
        for i in range(n)
        for j in range(n)
        if lesson.scores[q][i] > lesson.scores[q][j] + tie
    ]


def fit_mlp(
    lesson: Lesson, learn: Sequence[int], held: Sequence[int], options: Options, seed: int
) -> tuple[dict[str, Any], Kept]:
    """Train the MLP with soft-label cross-entropy, or binary cross-entropy on scores."""
    rows = lesson.usable(learn)
    raw = _inputs(lesson, rows)
    mean, scale = raw.mean(0), raw.std(0, correction=0)
    scale = torch.where(scale > 1e-8, scale, torch.ones_like(scale))
    generator = torch.Generator().manual_seed(seed)
    width, hidden = raw.shape[1], options.hidden
    parameters = {
        "w1": torch.randn(hidden, width, dtype=_DTYPE, generator=generator) * (2 / width) ** 0.5,
        "b1": torch.zeros(hidden, dtype=_DTYPE),
        "w2": torch.zeros(lesson.models, hidden, dtype=_DTYPE),  # it starts by preferring nobody
        "b2": torch.zeros(lesson.models, dtype=_DTYPE),
    }

    def loss(logits: Tensor, wanted: Tensor) -> Tensor:
        if options.objective == "score":
            return functional.binary_cross_entropy_with_logits(logits, wanted)
        return functional.cross_entropy(logits, wanted)

    x, y = (raw - mean) / scale, _targets(lesson, rows)

    def batches() -> Iterator[Tensor]:
        for index in _order(len(rows), options, generator):
            yield loss(mlp_logits(x[index], parameters), y[index])

    judged = lesson.usable(held)
    judge = None
    if judged:
        others, wanted = (_inputs(lesson, judged) - mean) / scale, _targets(lesson, judged)

        def judge() -> tuple[float, float]:
            logits = mlp_logits(others, parameters)
            return _routed(lesson, judged, logits), float(loss(logits, wanted))

    kept = _descend(parameters, batches, judge, options)
    return {name: t.detach().numpy() for name, t in {**parameters, "mean": mean, "scale": scale}.items()}, kept


def fit_mf(
    lesson: Lesson, learn: Sequence[int], held: Sequence[int], options: Options, seed: int
) -> tuple[dict[str, Any], Kept]:
    """Train the factorisation with -log sigmoid(score(winner) - score(loser)), with noise on the questions."""
    rows = lesson.usable(learn)
    x = _inputs(lesson, rows)
    generator = torch.Generator().manual_seed(seed)

    def first(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=_DTYPE, generator=generator)

    width = x.shape[1]
    parameters = {
        "models": first(lesson.models, options.dim),
        "project": first(options.dim, width) / width**0.5,
        "weight": first(options.dim) / options.dim**0.5,
    }
    battles = torch.tensor(pairs(lesson, rows, options.tie_eps), dtype=torch.long).reshape(-1, 3)

    def loss(scores: Tensor, winner: Tensor, loser: Tensor) -> Tensor:
        lead = scores.gather(1, winner[:, None]) - scores.gather(1, loser[:, None])
        return -functional.logsigmoid(lead).mean()

    def batches() -> Iterator[Tensor]:
        for index in _order(len(battles), options, generator):
            row, winner, loser = battles[index].T
            noise = options.noise * first(len(row), width)
            yield loss(mf_scores(x[row] + noise, parameters), winner, loser)

    judged = lesson.usable(held)
    judge = None
    if judged:
        others = _inputs(lesson, judged)
        fought = torch.tensor(pairs(lesson, judged, options.tie_eps), dtype=torch.long).reshape(-1, 3)

        def judge() -> tuple[float, float]:
            scores = mf_scores(others, parameters)
            lost = float(loss(scores[fought[:, 0]], fought[:, 1], fought[:, 2])) if len(fought) else 0.0
            return _routed(lesson, judged, scores), lost

    kept = _descend(parameters, batches, judge, options)
    return {name: t.detach().numpy() for name, t in parameters.items()}, kept


def _descend(
    parameters: Mapping[str, Tensor],
    batches: Callable[[], Iterator[Tensor]],
    judge: Callable[[], tuple[float, float]] | None,
    options: Options,
) -> Kept:
    for tensor in parameters.values():
        tensor.requires_grad_()
    return descend(
        list(parameters.values()),
        batches,
        judge,
        epochs=int(options.in_force("epochs")),
        learning_rate=options.in_force("learning_rate"),
        weight_decay=options.in_force("weight_decay"),
        patience=options.patience,
    )


def _order(count: int, options: Options, generator: torch.Generator) -> Sequence[Tensor]:
    return torch.randperm(count, generator=generator).split(int(options.in_force("batch"))) if count else ()


def _routed(lesson: Lesson, rows: Sequence[int], values: Tensor) -> float:
    """Return the mean score of the best-valued model."""
    chosen: list[int] = values.argmax(1).tolist()
    return math.fsum(lesson.scores[q][i] for q, i in zip(rows, chosen, strict=True)) / len(rows)


def _inputs(lesson: Lesson, rows: Sequence[int]) -> Tensor:
    return torch.tensor([lesson.inputs[q] for q in rows], dtype=_DTYPE)


def _targets(lesson: Lesson, rows: Sequence[int]) -> Tensor:
    return torch.tensor([lesson.targets[q] for q in rows], dtype=_DTYPE)
