"""The fused model: one derived model out of the pool and a weight per member."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import moco_toolkit_decoding as decoding
from moco_core import Model, Pool
from moco_method_logit_fusion.options import Options

__all__ = ["fused_model"]


def fused_model(pool: Pool, options: Options, weights: Sequence[float], unite: bool) -> Model:
    """Return the model that fuses the pool, over strings if ``unite``; members of weight 0 are not loaded."""
    used = [i for i, w in enumerate(weights) if w > 0]
    temperatures = options.temperatures(len(weights))
    mix = decoding.Mix(
        kind=options.combine,
        weights=tuple(weights[i] for i in used),
        temperatures=tuple(temperatures[i] for i in used) if temperatures else (),
        plausibility=options.plausibility,
    )
    models = [pool[i] for i in used]
    recipe: Any
    if unite:
        recipe = decoding.UnionRecipe.of(mix, models, k=options.union_top_k)
    else:
        recipe = decoding.JointRecipe.of(mix, models)
    return pool.derive(f"fused-{recipe.fingerprint[:8]}", recipe, models)
