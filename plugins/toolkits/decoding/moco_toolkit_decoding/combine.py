"""Combining the next-token scores of several models into one distribution.

All functions take float32 logits, one tensor (B, V) per member, and return normalised log-probabilities (B, V). Constants
added to a member's logits never change the result. ``undefined`` is a (V,) mask of ids that some tokenizer does not define;
they get -inf. Masks are applied last, so no difference of infinities can occur.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import attrs
import torch
from torch import Tensor

from moco_core.converters import floats, ints
from moco_core.options import plain

__all__ = ["Combiner", "Contrast", "Mix"]

NEVER = -torch.inf


class Combiner(Protocol):
    """A way to combine: a value, known by its JSON description."""

    @property
    def members(self) -> int:
        """How many members it combines."""

    def description(self) -> dict[str, Any]:
        """Return everything that decides the result, as JSON data."""

    def __call__(self, logits: Sequence[Tensor], undefined: Tensor | None = None) -> Tensor:
        """Return the combined log-distribution (B, V)."""

    def credit(self, logits: Sequence[Tensor], combined: Tensor, tokens: Tensor) -> Tensor:
        """Return, per row, the index of the member the chosen token is owed to (B,)."""


@attrs.frozen(kw_only=True)
class Mix:
    """Fusion by a weighted mean of the members' distributions.

    ``kind``: ``prob`` is the arithmetic mean (mixture), ``logprob`` and ``logit`` the geometric mean (product of experts;
    the two are one function, since what a member's logits and log-probabilities differ by cancels), ``max`` the normalised
    largest weighted probability. ``weights`` are used as given; a member of weight 0 has no say. ``temperatures`` divide
    each member's logits first. ``plausibility`` keeps the tokens whose largest member probability is at least that share of
    the largest of all.
    """

    kind: Literal["prob", "logprob", "logit", "max"] = "logprob"
    weights: tuple[float, ...] = attrs.field(converter=floats)
    temperatures: tuple[float, ...] = attrs.field(default=(), converter=floats)
    plausibility: float = 0.0

    @property
    def members(self) -> int:
        return len(self.weights)

    def description(self) -> dict[str, Any]:
        return {"mix": plain(self)}

    def __call__(self, logits: Sequence[Tensor], undefined: Tensor | None = None) -> Tensor:
        used = [i for i, w in enumerate(self.weights) if w > 0]
        scaled = [self._scaled(i, logits[i]) for i in used]
        weights = [self.weights[i] for i in used]
        geometric = self.kind in ("logprob", "logit")
        if undefined is not None and (not geometric or self.plausibility > 0):
            # mass on ids outside the common vocabulary would otherwise weaken a member that has some
            scaled = [z.masked_fill(undefined, NEVER) for z in scaled]
        if geometric and self.plausibility == 0:
            total = scaled[0] * weights[0]
            for z, w in zip(scaled[1:], weights[1:], strict=True):
                total = total.add(z, alpha=w)
            if undefined is not None:
                total = total.masked_fill(undefined, NEVER)
            return total.log_softmax(-1)
        logp = torch.stack([z.log_softmax(-1) for z in scaled])
        scale = torch.tensor(weights, dtype=logp.dtype, device=logp.device)[:, None, None]
        if self.kind == "prob":
            total = (logp + scale.log()).logsumexp(0)
        elif self.kind == "max":
            total = (logp + scale.log()).max(0).values
        else:
            total = (logp * scale).sum(0)
        if self.plausibility > 0:
            best = logp.max(0).values
            bound = best.max(-1, keepdim=True).values + math.log(self.plausibility)
            total = total.masked_fill(best < bound, NEVER)
        return total.log_softmax(-1)

    def credit(self, logits: Sequence[Tensor], combined: Tensor, tokens: Tensor) -> Tensor:
        """The member with the largest weighted probability of the chosen token; equal ones give the first."""
        if len(logits) == 1:
            return torch.zeros_like(tokens)
        scaled = [self._scaled(i, z) for i, z in enumerate(logits)]
        scores = torch.stack([z.gather(-1, tokens[:, None]).squeeze(-1) - z.logsumexp(-1) for z in scaled])
        if len(set(self.weights)) > 1:
            scores = scores + torch.tensor(self.weights, device=scores.device).log()[:, None]
        return scores.max(0).indices

    def _scaled(self, i: int, z: Tensor) -> Tensor:
        tau = self.temperatures[i] if self.temperatures else 1.0
        return z if tau == 1 else z / tau


@attrs.frozen(kw_only=True)
class Contrast:
    """What good models say and bad models do not, added to a base model.

    ``base``, ``experts`` and ``antis`` are member indices.

    - ``dexperts`` (DExperts, arXiv 2105.03023; proxy tuning, arXiv 2401.08565):
      ``z_base + alpha (mean log p_expert - mean log p_anti)``, plausible under the base model;
    - ``cd`` (contrastive decoding, arXiv 2210.15097): ``log p_expert - log softmax(z_anti / amateur_temperature)``,
      plausible under the expert;
    - ``cd_beta`` (arXiv 2309.09117): ``(1 + beta) z_expert - beta z_anti``, plausible under the expert.

    A token v is plausible if ``log p_ref(v) >= max log p_ref + log(plausibility)``; 0 switches the mask off. The mask is
    applied before any temperature, so it does not depend on the decoding settings.
    """

    mode: Literal["dexperts", "cd", "cd_beta"] = "dexperts"
    members: int
    base: int
    experts: tuple[int, ...] = attrs.field(converter=ints)
    antis: tuple[int, ...] = attrs.field(converter=ints)
    alpha: float = 1.0
    beta: float = 0.5
    plausibility: float = 0.1
    amateur_temperature: float = 1.0

    def description(self) -> dict[str, Any]:
        return {"contrast": plain(self)}

    def reference(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the log-scores (B, V), up to a constant per row, of the model that judges plausibility."""
        return logits[self.base] if self.mode == "dexperts" else _mean([logits[i] for i in self.experts])

    def __call__(self, logits: Sequence[Tensor], undefined: Tensor | None = None) -> Tensor:
        good = _mean([logits[i] for i in self.experts])
        bad = _mean([logits[i] for i in self.antis])
        if self.mode == "dexperts":
            total = logits[self.base] + self.alpha * (good - bad)
        elif self.mode == "cd":
            total = good - bad / self.amateur_temperature
        else:
            total = (1 + self.beta) * good - self.beta * bad
        hidden = undefined
        if self.plausibility > 0:
            reference = self.reference(logits)
            if undefined is not None:
                reference = reference.masked_fill(undefined, NEVER)
            bound = reference.max(-1, keepdim=True).values + math.log(self.plausibility)
            implausible = reference < bound
            hidden = implausible if undefined is None else implausible | undefined
        if hidden is not None:
            total = total.masked_fill(hidden, NEVER)
        return total.log_softmax(-1)

    def credit(self, logits: Sequence[Tensor], combined: Tensor, tokens: Tensor) -> Tensor:
        """The base (or expert) where it would have chosen the token itself, else the first expert that is not the base.

        The second case is a token that the contrast changed.
        """
        own = self.base if self.mode == "dexperts" else self.experts[0]
        other = next((i for i in self.experts if i != own), self.antis[0])
        reference = self.reference(logits)
        changed = reference.gather(-1, tokens[:, None]).squeeze(-1) < reference.max(-1).values
        return torch.where(changed, other, own)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Mean of logits: differs from the mean of log-probabilities by a constant per row, which cancels."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(0)
