"""Scripted pools whose models can be merged: for tests of weight-level methods, without weights and in milliseconds.

The dev score of a merged model is what a function of its recipe says::

    source = MergeablePool(["a", "b"], utility=lambda merged: -abs(merged.share("a") - 0.25))
    outcome = run_merge(GreedySoup(Options()), source, examples(4))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from moco_core import (
    Answer,
    Context,
    Example,
    Method,
    Metric,
    Model,
    NoOptions,
    Question,
    Recipe,
    Reply,
    Score,
    digest,
)
from moco_toolkit_authoring import (
    SCRIPTED_CAPABILITIES,
    Outcome,
    ScriptedCall,
    ScriptedEngine,
    ScriptedPool,
    examples,
    run_method,
)
from moco_toolkit_merging.operations import Consensus, Extrapolate, Linear, Mean
from moco_toolkit_merging.recipes import AdapterRecipe, MergeRecipe

__all__ = ["MergeablePool", "Merged", "Utility", "run_merge"]


@attrs.frozen(kw_only=True)
class Merged:
    """A merged model as a test sees it: coefficient of every source by name, and the recipe.

    For a consensus merge the coefficients are the task weights, divided by their sum, and the base's is 0.
    """

    coefficients: Mapping[str, float]
    recipe: Any = None

    def share(self, name: str) -> float:
        """Return the coefficient of one model; 0 if it is no source."""
        return self.coefficients.get(name, 0.0)

    @classmethod
    def of(cls, recipe: Any, sources: Sequence[Model]) -> Merged:
        names = [s.name for s in sources]
        numbers: Sequence[float]
        if isinstance(recipe, AdapterRecipe):
            numbers = recipe.coefficients
        elif isinstance(recipe, MergeRecipe) and isinstance(recipe.operation, Linear):
            numbers = recipe.operation.coefficients
        elif isinstance(recipe, MergeRecipe) and isinstance(recipe.operation, Mean):
            numbers = [1 / len(names)] * len(names)
        elif isinstance(recipe, MergeRecipe) and isinstance(recipe.operation, Extrapolate):
            alpha, ahead = recipe.operation.alpha, recipe.operation.targets
            behind = len(names) - ahead
            numbers = [(1 + alpha) / ahead] * ahead + [-alpha / behind] * behind
        elif isinstance(recipe, MergeRecipe) and isinstance(recipe.operation, Consensus):
            total = sum(recipe.operation.weights)
            numbers = [*(w / total for w in recipe.operation.weights), 0.0]
        else:
            numbers = []
        return cls(coefficients=dict(zip(names, numbers, strict=False)), recipe=recipe)


class _Engine(ScriptedEngine):
    def __init__(self, utility: Callable[[Merged], float]) -> None:
        super().__init__(scores=self._loss)
        self.utility = utility
        self.derived: list[str] = []
        self.losses: dict[str, float] = {}

    def derive(self, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
        merged = Merged.of(recipe, sources)
        model = attrs.evolve(sources[0], name=name, fingerprint=digest("derived", recipe.fingerprint), copy=0)
        self.derived.append(name)
        value = self.utility(merged)
        self.scripts[name] = lambda call: repr(self.losses.get(call.fingerprint, value))
        self.losses[model.fingerprint] = value
        return model

    def _loss(self, call: ScriptedCall) -> list[tuple[float]]:
        """Say one token of each continuation, whose log-probability is minus the scripted loss."""
        return [(self.losses[call.fingerprint],)] * len(call.given["continuations"])


class MergeablePool(ScriptedPool):
    """Scripted models that can be merged and say their utility as a number; a single model's is that of itself alone.

    ``fields`` are further fields of single models by name, ``common`` of all (``adapter=True, base="b"``).
    """

    def __init__(
        self,
        names: Sequence[str],
        utility: Callable[[Merged], float],
        fields: Mapping[str, Mapping[str, Any]] | None = None,
        **common: Any,
    ) -> None:
        engine = _Engine(utility)
        alone = {n: utility(Merged(coefficients={n: 1.0})) for n in names}
        super().__init__(
            {n: repr(v) for n, v in alone.items()},
            capabilities=SCRIPTED_CAPABILITIES | {"weights"},
            engine=engine,
            fields={n: {**common, **(fields or {}).get(n, {})} for n in names},
        )
        self.made = engine.derived
        for model in self.models():
            engine.losses[model.fingerprint] = alone[model.name]


class Utility(Metric[NoOptions]):
    """Scores a reply by the number it is; what is no number scores 0."""

    binary = False

    def read(self, question: Question, text: str) -> Answer:
        return Answer(status="unparsed") if _number(text) is None else Answer(key=text, text=text, status="parsed")

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        return Score(value=_number(reply.text) or 0.0, answer=self.read(example.question, reply.text))


def run_merge(method: Method[Any], pool: MergeablePool, dev: Sequence[Example], **keywords: Any) -> Outcome:
    """Fit a method on dev by utility, save and restore the system, and ask it one question.

    ``keywords`` are further ones of :func:`moco_toolkit_authoring.run_method`.
    """
    return run_method(
        method,
        pool,
        dev=dev,
        questions=[e.question for e in examples(1, prefix="t")],
        metric=Utility(NoOptions()),
        reload_with=method,
        **keywords,
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
