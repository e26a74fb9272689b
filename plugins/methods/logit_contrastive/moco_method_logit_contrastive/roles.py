"""Who plays which role, and the model that the roles make."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

import moco_toolkit_decoding as decoding
from moco_core import ConfigError, Model, Pool
from moco_method_logit_contrastive.options import Options

__all__ = ["Roles", "candidates_of", "contrast_model", "named_roles"]


@attrs.frozen
class Roles:
    """Indices into the pool."""

    base: int
    experts: tuple[int, ...]
    antis: tuple[int, ...]

    @classmethod
    def ranked(cls, scores: Sequence[float], k: int) -> Roles:
        """Rank by descending score, equal scores by index: the first k are experts, the last k anti-experts.

        Raises ConfigError if the two sets would overlap.
        """
        if 2 * k > len(scores):
            raise ConfigError(
                f"k: {k} experts and {k} anti-experts need {2 * k} models, the pool has {len(scores)}; lower k"
            )
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        return cls(order[0], tuple(order[:k]), tuple(order[len(order) - k :]))

    def within(self, indices: Sequence[int]) -> Roles:
        """Return roles among ``indices`` as roles of the pool that these index."""
        experts, antis = (tuple(indices[i] for i in group) for group in (self.experts, self.antis))
        return Roles(indices[self.base], experts, antis)

    @property
    def members(self) -> list[int]:
        """The models that take part, each once, the base first."""
        return list(dict.fromkeys([self.base, *self.experts, *self.antis]))


def named_roles(pool: Pool, options: Options) -> Roles:
    """Return the roles that the options name; the first expert is the base if none is named. Raises ConfigError."""
    experts = tuple(_index(pool, name, "experts") for name in options.experts)
    antis = tuple(_index(pool, name, "anti_experts") for name in options.anti_experts)
    base = experts[0] if options.base is None else _index(pool, options.base, "base")
    return Roles(base, experts, antis)


def candidates_of(pool: Pool, options: Options) -> list[int]:
    """Return the indices of the models that are ranked. Raises ConfigError if one is not there, or named twice."""
    found = [_index(pool, name, "candidates") for name in options.candidates] or list(range(len(pool)))
    if len(set(found)) < len(found):
        raise ConfigError("candidates: a model is named twice; name each once")
    return found


def contrast_model(pool: Pool, options: Options, roles: Roles, strength: float) -> Model:
    """Return the derived model. A model that plays two roles is a member once."""
    members = roles.members
    if options.mode != "dexperts" and roles.base not in roles.experts + roles.antis:
        members.remove(roles.base)  # contrastive decoding has no base beside its expert
    where = {i: n for n, i in enumerate(members)}
    experts = tuple(where[i] for i in roles.experts)
    base = where.get(roles.base, experts[0])
    contrast = decoding.Contrast(
        mode=options.mode,
        members=len(members),
        base=base,
        experts=experts,
        antis=tuple(where[i] for i in roles.antis),
        alpha=strength if options.mode == "dexperts" else 1.0,
        beta=strength if options.mode == "cd_beta" else 0.5,
        plausibility=options.mask(),
        amateur_temperature=options.amateur_temperature,
    )
    models = [pool[i] for i in members]
    # an untuned base has no end of turn of its own: its tuned experts end the reply too
    recipe = decoding.JointRecipe.of(contrast, models, stops_with=tuple(sorted({base, *experts})))
    return pool.derive(f"contrast-{recipe.fingerprint[:8]}", recipe, models)


def _index(pool: Pool, name: str | int, where: str) -> int:
    return list(pool).index(pool.named(name, where))
