"""Options of expo."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, option

__all__ = ["Options"]

Mode = Literal["auto", "pair", "worst_to_best", "topk_bottomk", "base_to_mean"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of expo."""

    mode: Mode = option(
        "auto", help="where the direction comes from; auto: pair if a target is given, else worst_to_best"
    )
    source: str = option(
        "", help="mode=pair: pool model to move away from; empty for the base of an adapter", paper="SFT"
    )
    target: str = option("", help="mode=pair: pool model to move on from", paper="DPO or RLHF model")
    base: str = option("", help="mode=base_to_mean: pool model the others were trained from; not needed for adapters")
    alpha: float | Literal["search"] = option("search", help="strength, or found on dev", paper="0.3 .. 0.5, tuned")
    alpha_grid: tuple[float, ...] = option(
        (0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0), help="strengths tried by alpha=search; 0 is always tried"
    )
    refine: bool = option(True, help="alpha=search: try the middles between the best strength and its neighbours too")
    early_exit: bool = option(False, help="alpha=search: stop raising alpha after two drops in a row")
    k: int = option(1, ge=1, help="mode=topk_bottomk: models at either end")
    check: bool = option(True, help="mode=pair: score both models on dev and warn if the target is the worse one")
    exclude: tuple[str, ...] = option((), help="name patterns of parameters that stay at the target")
    dev_limit: int | None = option(None, ge=1, help="dev questions per evaluation; none: all")
    export: str = option(
        "", holds="path", help="new folder for the final model as an ordinary checkpoint; empty writes nothing"
    )

    def __attrs_post_init__(self) -> None:
        if self.mode == "pair" and not self.target:
            raise ConfigError("target: mode 'pair' needs the model to move on from")
        if self.mode not in ("auto", "pair") and (self.source or self.target):
            raise ConfigError(f"mode: {self.mode!r} takes no source and target; use mode 'pair'")
        if self.alpha == "search" and not self.alpha_grid:
            raise ConfigError("alpha_grid: empty; give at least one strength")

    @property
    def direction(self) -> str:
        """The mode that ``auto`` stands for."""
        return ("pair" if self.target else "worst_to_best") if self.mode == "auto" else self.mode
