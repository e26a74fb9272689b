"""Options of prompt_routing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from moco_core import ConfigError, Model, option

__all__ = ["Options"]


def _described(value: Any) -> str | None:
    return None if all(isinstance(text, str) and text.strip() for text in value) else "expected non-empty descriptions"


@attrs.frozen(kw_only=True)
class Options:
    """Who routes, what it is told about the models, and how its choice is read."""

    model_descriptions: tuple[str, ...] | None = option(
        None, check=_described, help="one description per candidate, in pool order; none makes them (see describe)"
    )
    describe: Literal["auto", "scores", "self", "name"] = option(
        "auto",
        help="descriptions if none are given: auto (the pool's own, else dev scores where there are any, else the "
        "name), scores (name and dev scores), self (each model describes itself once), name",
    )
    router: str | int = option("best_dev", help="who routes: best_dev, or a model's name or index")
    router_answers: bool = option(
        True, help="whether the router is a candidate itself; false keeps it for routing only"
    )
    decode: Literal["auto", "constrained", "generate"] = option(
        "auto", help="how the choice is read: label log-probabilities, or a reply; auto scores if the router can"
    )
    max_route_tokens: int = option(16, ge=1, help="budget of a routing reply; more for reasoning routers")
    route_temperature: float = option(0.0, ge=0, help="sampling of a routing reply")
    order: Literal["fixed", "shuffle", "cyclic_average"] = option(
        "fixed", help="order of the list; cyclic_average asks with every rotation and averages"
    )
    calibrate: bool = option(False, help="contextual calibration: subtract the scores that an empty question gets")
    fallback: str | int = option(
        "router", help="who answers after an unreadable choice: router, best_dev, or a model's name or index"
    )
    check_dev: bool = option(False, help="route the dev questions too, and warn if the best single model is better")
    seed: int = option(0, help="added to the run's seed for order=shuffle; replies are sampled with the run's alone")

    def __attrs_post_init__(self) -> None:
        if self.calibrate and self.decode == "generate":
            raise ConfigError("calibrate: subtracts log-probabilities of labels, which decode=generate does not read")

    def scores(self, router: Model) -> bool:
        """Whether labels are scored, not written, by this router."""
        return self.decode == "constrained" or (self.decode == "auto" and router.can("score"))

    def candidates(self, pool: Sequence[Model], router: Model) -> tuple[Model, ...]:
        """Return who may be chosen."""
        return tuple(m for m in pool if self.router_answers or len(pool) == 1 or m is not router)

    @property
    def evaluates(self) -> bool:
        """Whether dev scores of the models are needed."""
        described = self.model_descriptions is None and self.describe == "scores"
        return self.router == "best_dev" or self.fallback == "best_dev" or described or self.check_dev
