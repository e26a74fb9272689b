"""Texts as vectors: by a sentence encoder of the pool, or by the pool's own models where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import CAPABILITIES, ConfigError, Context, Model, Pool

__all__ = ["Encoder", "encoder_names", "encoder_problems"]

_DIGITS = 5  # of a unit vector's entries: later ones depend on which texts were read in one batch


@attrs.frozen(kw_only=True)
class Encoder:
    """Models whose embeddings, each brought to length 1, stand one after the other in a text's vector."""

    models: tuple[Model, ...]

    async def encode(self, text: str, context: Context) -> tuple[float, ...]:
        """Return the vector of a text. Raises ModelCallError."""
        parts = await context.gather(context.embed(model, [text]) for model in self.models)
        return tuple(round(x, _DIGITS) for (vector,) in parts for x in _unit(vector))


def encoder_names(pool: Sequence[Model], wanted: str | int, where: str = "encoder") -> tuple[str, ...]:
    """Return who encodes: the model of that name or index, or one of two rules.

    ``auto`` is the first member that embeds and writes no text (a sentence encoder), else every member that embeds, as
    ``pool`` is. Empty if nobody can. Raises ConfigError for an unknown model.
    """
    if wanted not in ("auto", "pool"):
        return (Pool(pool).named(wanted, where).name,)
    able = [model for model in pool if model.can("embed")]
    alone = [model for model in able if not model.can("generate")]
    chosen = alone[:1] if wanted == "auto" and alone else [model for model in able if model.can("generate")]
    return tuple(model.name for model in chosen)


def encoder_problems(pool: Sequence[Model], wanted: str | int) -> list[str]:
    """Return what is wrong with the choice of an encoder, one sentence each."""
    try:
        names = encoder_names(pool, wanted)
    except ConfigError as error:
        return list(error.problems)
    remedy = "add a sentence encoder to the pool (transformers opens any), or name a model that can"
    if not names:
        return [f"encoder: no model of the pool can {CAPABILITIES['embed']} (capability 'embed'); {remedy}"]
    return [
        f"encoder: model {model.name!r} cannot {CAPABILITIES['embed']} (capability 'embed'); {remedy}"
        for model in pool
        if model.name in names and not model.can("embed")
    ]


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [x / length if length else 0.0 for x in vector]
