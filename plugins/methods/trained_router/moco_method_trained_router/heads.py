"""Routers on a frozen embedding. Each is a handful of arrays; one question is read at a time, so none depends on another.

Probabilities are those of "model i is the one to ask" and sum to 1; with ``objective=score`` they are expected scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
import numpy as np

from moco_method_trained_router.lesson import Lesson
from moco_method_trained_router.options import Options

__all__ = ["HEADS", "Head", "MatrixFactorisation", "Mlp", "Ranking"]

Array = Any
Arrays = Mapping[str, Array]


class Head(Protocol):
    """A fitted router: arrays, and what they make of a question's vector."""

    @property
    def arrays(self) -> Arrays: ...

    def probabilities(self, vector: Sequence[float]) -> list[float]:
        """Return one probability per model."""


def softmax(values: Array) -> list[float]:
    shifted = np.exp(values - np.max(values))
    return list((shifted / shifted.sum()).tolist())


@attrs.frozen(eq=False)
class Mlp:
    """softmax(W2 relu(W1 z + b1) + b2) of the standardised vector z; a sigmoid in place of the softmax for scores."""

    arrays: Arrays
    scores: bool = False

    def probabilities(self, vector: Sequence[float]) -> list[float]:
        a = self.arrays
        z = (np.asarray(vector) - a["mean"]) / a["scale"]
        logits = a["w2"] @ np.maximum(a["w1"] @ z + a["b1"], 0) + a["b2"]
        return list((1 / (1 + np.exp(-logits))).tolist()) if self.scores else softmax(logits)

    @classmethod
    def fit(
        cls, lesson: Lesson, learn: Sequence[int], held: Sequence[int], options: Options, seed: int
    ) -> tuple[Mlp, Any]:
        from moco_method_trained_router.descent import fit_mlp

        arrays, kept = fit_mlp(lesson, learn, held, options, seed)
        return cls(arrays, options.objective == "score"), kept


@attrs.frozen(eq=False)
class MatrixFactorisation:
    """score(i, q) = w . (v_i / |v_i| * W e_q), and P(i beats j) = sigmoid(score(i, q) - score(j, q)). RouteLLM, 2406.18665."""

    arrays: Arrays

    def scores(self, vector: Sequence[float]) -> Array:
        a = self.arrays
        models = a["models"] / np.linalg.norm(a["models"], axis=1, keepdims=True)
        return (models * (a["project"] @ np.asarray(vector))) @ a["weight"]

    def probabilities(self, vector: Sequence[float]) -> list[float]:
        return softmax(self.scores(vector))

    @classmethod
    def fit(
        cls, lesson: Lesson, learn: Sequence[int], held: Sequence[int], options: Options, seed: int
    ) -> tuple[MatrixFactorisation, Any]:
        from moco_method_trained_router.descent import fit_mf

        arrays, kept = fit_mf(lesson, learn, held, options, seed)
        return cls(arrays), kept


@attrs.frozen(eq=False)
class Ranking:
    """Similarity-weighted ranking: ratings fitted anew for each question, on dev battles weighted by similarity.

    ``vectors`` (n, d) are the questions of dev, ``scores`` (n, N) how the models did on them. Nothing is trained. RouteLLM,
    2406.18665.
    """

    arrays: Arrays
    tie: float = 0.0

    def ratings(self, vector: Sequence[float]) -> Array:
        """Return the models' ratings for a question: 400 points are a factor of ten in the odds; they sum to 0."""
        from moco_method_trained_router.ranking import battles, ratings, weights

        return ratings(battles(self.arrays["scores"], weights(self.arrays["vectors"], np.asarray(vector)), self.tie))

    def probabilities(self, vector: Sequence[float]) -> list[float]:
        return softmax(self.ratings(vector) * np.log(10) / 400)

    @classmethod
    def fit(
        cls, lesson: Lesson, learn: Sequence[int], held: Sequence[int], options: Options, seed: int
    ) -> tuple[Ranking, Any]:
        rows = lesson.usable(learn)
        vectors = np.array([lesson.inputs[q] for q in rows])
        scores = np.array([lesson.scores[q] for q in rows])
        return cls({"vectors": vectors, "scores": scores}, options.tie_eps), None


HEADS: Mapping[str, Any] = {"embedding_mlp": Mlp, "mf": MatrixFactorisation, "sw_ranking": Ranking}


def restored(arrays: Arrays, options: Options) -> Head:
    """Return the router that these arrays make."""
    if options.router == "embedding_mlp":
        return Mlp(arrays, options.objective == "score")
    return Ranking(arrays, options.tie_eps) if options.router == "sw_ranking" else MatrixFactorisation(arrays)
