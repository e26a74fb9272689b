"""Options of cascade."""

from __future__ import annotations

from typing import Literal

import attrs

from moco_core import ConfigError, Sampling, option

__all__ = ["CHOW", "Kind", "Options", "per_level"]

Kind = Literal["chow_sum", "chow_average", "chow_quantile", "deferral", "p_true", "self_report", "agreement", "scorer"]
CHOW = ("chow_sum", "chow_average", "chow_quantile", "deferral")
"""What is read from the log-probabilities of the emitted tokens."""


@attrs.frozen(kw_only=True)
class Options:
    """How sure a model must be, how that is measured, and how the thresholds are set."""

    confidence: Kind = option(
        "chow_average",
        help="how sure a model is of its reply",
        paper="chow_quantile, deferral (LM cascades); scorer (FrugalGPT)",
    )
    quantile: float = option(0.0, ge=0, le=1, help="of the tokens' log-probabilities, for chow_quantile")
    select: Literal["accept_fraction", "budget", "target", "fixed"] = option(
        "accept_fraction", help="how the thresholds are set", paper="budget (FrugalGPT)"
    )
    accept_fraction: float | tuple[float, ...] = option(
        0.5, gt=0, lt=1, help="share of the questions reaching a level that stops there; one number, or one per level"
    )
    budget: float | None = option(
        None, gt=0, help="mean cost per question for select=budget, in the unit of the prices"
    )
    target: float | None = option(
        None, gt=0, help="least dev score for select=target, as a share of the best single model's"
    )
    thresholds: float | tuple[float, ...] | None = option(
        None, help="for select=fixed: accept from this confidence on; one number, or one per level but the last"
    )
    max_depth: int | None = option(
        None, ge=2, help="most levels in use, for select=budget and target; none takes all", paper="3 (FrugalGPT)"
    )
    grid: int = option(40, ge=2, help="quantiles tried per level", paper="40, refined locally (FrugalGPT's code)")
    prices: tuple[float, ...] | None = option(
        None, ge=0, help="money per million tokens, one per level; none takes the pool's, else parameters, else tokens"
    )
    temperature: float = option(0.0, ge=0, help="sampling of the replies", paper="0.1 (FrugalGPT's code)")
    max_new_tokens: int | None = option(None, ge=1, help="reply budget; none takes the run's")
    samples: int = option(5, ge=2, help="sampled replies for confidence=agreement")
    agreement_temperature: float = option(0.7, gt=0, help="sampling of those replies")
    verify_tokens: int = option(16, ge=1, help="budget of a verdict in words, where a model cannot score")
    scorer: str | int = option(
        "auto",
        help="who is trained for confidence=scorer: a member's name or index; auto: the smallest, an encoder first",
        paper="DistilBERT",
    )
    scorer_share: float = option(
        0.5, gt=0, lt=1, help="share of dev that scorers are trained on; thresholds are set on the rest"
    )
    scorer_epochs: int = option(8, ge=1, help="passes over it", paper="8")
    scorer_learning_rate: float | None = option(None, gt=0, help="of the scorers; none takes the training toolkit's")
    report: bool = option(
        True, help="answer dev at the last level too under accept_fraction, to report the whole cascade"
    )

    def __attrs_post_init__(self) -> None:
        problems = []
        for select, key in (("budget", "budget"), ("target", "target"), ("fixed", "thresholds")):
            if self.select == select and getattr(self, key) is None:
                problems.append(f"{key}: missing, select={select} needs it")
        if self.max_depth is not None and self.select not in ("budget", "target"):
            problems.append(f"max_depth: goes with select=budget or target, not {self.select}")
        if problems:
            raise ConfigError(problems)

    @property
    def whole(self) -> bool:
        """Whether dev is answered at the last level too."""
        return self.select in ("budget", "target") or self.report or self.confidence == "deferral"

    @property
    def fits(self) -> bool:
        """Whether anything is learnt from dev."""
        return self.select != "fixed" or self.confidence in ("deferral", "scorer")

    def sampling(self, run: Sampling) -> Sampling:
        """Return the decoding of a level's reply."""
        return attrs.evolve(
            run, temperature=self.temperature, max_new_tokens=self.max_new_tokens or run.max_new_tokens
        )


def per_level(value: float | tuple[float, ...] | None, count: int) -> tuple[float, ...]:
    """Return an option that is one number for all levels, or one per level, as one per level."""
    return value if isinstance(value, tuple) else (float(value or 0.0),) * count
