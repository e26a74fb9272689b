"""The options of contrastive decoding."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, option

__all__ = ["Options", "Strength", "strength_name"]

Strength = float | Literal["search"]


@attrs.frozen(kw_only=True)
class Options:
    """Which formula, who plays which role, and how strongly."""

    mode: Literal["dexperts", "cd", "cd_beta"] = option(
        "dexperts",
        help="dexperts: base + alpha (experts - anti-experts); cd: log p_expert - log p_anti; cd_beta: (1+beta) expert - "
        "beta anti-expert",
    )
    roles: Literal["dev", "explicit"] = option(
        "dev", help="dev: rank the models by dev score; explicit: take base, experts and anti_experts", paper="explicit"
    )
    k: int = option(
        1, ge=1, help="experts, and as many anti-experts, for roles=dev; at most half the candidates", paper="1"
    )
    candidates: tuple[str | int, ...] = option(
        (), help="models that roles=dev ranks, by name or index, with one tokenizer; the whole pool if none are named"
    )
    base: str | int | None = option(
        None, help="base model, by name or index (roles=explicit; the first expert if none)"
    )
    experts: tuple[str | int, ...] = option((), help="expert models, by name or index (roles=explicit)")
    anti_experts: tuple[str | int, ...] = option((), help="anti-expert models, by name or index (roles=explicit)")
    alpha: Strength = option(
        1.0, ge=0, help="strength of mode=dexperts, or search", paper="1.0 (proxy tuning), 2.0 (detoxification)"
    )
    beta: Strength = option(0.5, ge=0, help="strength of mode=cd_beta, or search", paper="0.5")
    grid: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 1.0, 1.5, 2.0), ge=0, help="strengths tried by search; 0, the base alone, is always among them"
    )
    plausibility: float | None = option(
        None,
        ge=0,
        le=1,
        help="keep tokens with at least this share of the reference model's top probability; 0 is off; none: 0.1, but 0 for "
        "mode=dexperts with explicit roles",
        paper="0.1 (CD); none (DExperts, proxy tuning)",
    )
    amateur_temperature: float = option(
        1.0, gt=0, help="temperature of the anti-expert in mode=cd", paper="0.5 (GPT-2), 1.0 (OPT)"
    )

    def __attrs_post_init__(self) -> None:
        named = self.base is not None or self.experts or self.anti_experts
        if self.roles == "dev" and named:
            raise ConfigError("roles: base, experts and anti_experts need roles=explicit")
        if self.roles == "explicit" and self.candidates:
            raise ConfigError("candidates: they are ranked by roles=dev alone; drop them")
        if self.candidates and len(self.candidates) < 2 * self.k:
            raise ConfigError(
                f"k: {self.k} experts and {self.k} anti-experts need {2 * self.k} candidates, {len(self.candidates)} are "
                "named; lower k or name more"
            )
        if self.roles == "explicit" and not (self.experts and self.anti_experts):
            raise ConfigError("roles: explicit needs experts and anti_experts")
        if self.alpha == "search" and self.mode != "dexperts":
            raise ConfigError(
                f"alpha: search belongs to mode=dexperts; mode={self.mode} has " + strength_name(self.mode)
            )
        if self.beta == "search" and self.mode != "cd_beta":
            raise ConfigError(f"beta: search belongs to mode=cd_beta; mode={self.mode} has " + strength_name(self.mode))

    def mask(self) -> float:
        """Return the plausibility threshold in force."""
        if self.plausibility is not None:
            return self.plausibility
        return 0.0 if self.mode == "dexperts" and self.roles == "explicit" else 0.1


def strength_name(mode: str) -> str:
    """Return the option that says how strongly a mode contrasts."""
    return {"dexperts": "alpha", "cd_beta": "beta"}.get(mode, "no strength")
