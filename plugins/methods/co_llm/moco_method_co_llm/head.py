"""The deferral head: its data, its losses and its training. Everything but the head is constant."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from moco_method_co_llm.options import Options

__all__ = ["END", "Positions", "deferral_loss", "train_head", "weak_labels"]

END = -1
"""Stands for any end token: the models may close a reply with different ones, and decoding stops at all of them."""


@attrs.frozen(eq=False)
class Positions:
    """Teacher-forced scores at T target positions.

    ``hidden`` float32 (T, H); ``base`` and ``assistant`` float32 (T,): log-probabilities of the target token;
    ``base_top``, ``assistant_top`` and ``target`` int64 (T,).
    """

    hidden: Tensor
    base: Tensor
    assistant: Tensor
    base_top: Tensor
    assistant_top: Tensor
    target: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Positions]) -> Positions:
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in attrs.fields(cls)))


def deferral_loss(u: Tensor, base: Tensor, assistant: Tensor) -> Tensor:
    """The marginal negative log-likelihood per position: -log((1 - sigma(u)) P_0 + sigma(u) P_1).

    ``u`` are deferral logits g.h, ``base`` and ``assistant`` log-probabilities of the target; all (T,). The gradient in u is
    sigma(u) minus the posterior probability that the assistant wrote the token.
    """
    keep = torch.nn.functional.logsigmoid(-u) + base
    defer = torch.nn.functional.logsigmoid(u) + assistant
    return -torch.logaddexp(keep, defer)


def weak_labels(positions: Positions, init: str) -> Tensor:
    """Return float labels (T,): a: the assistant alone is right; b: the base model is wrong."""
    wrong = positions.base_top != positions.target
    right = positions.assistant_top == positions.target
    return (wrong & right if init == "a" else wrong).float()


def train_head(
    positions: Positions, options: Options, start: Tensor, seed: int = 0, *, likelihood: bool = True
) -> Tensor:
    """Return g, float32 (H,), trained on weak labels and then on the marginal likelihood; everything else is constant.

    Without ``likelihood`` the labels alone count: what is trained with a base model starts there.
    """
    generator = torch.Generator().manual_seed(seed)
    head = start.detach().clone().float().requires_grad_()
    labels = weak_labels(positions, options.init) if options.init != "none" else None
    weights = None if labels is None else 1 + (options.init_pos_weight - 1) * labels

    def on_labels(u: Tensor, i: Tensor) -> Tensor:
        assert labels is not None and weights is not None
        return torch.nn.functional.binary_cross_entropy_with_logits(u, labels[i], weight=weights[i])

    def on_likelihood(u: Tensor, i: Tensor) -> Tensor:
        return deferral_loss(u, positions.base[i], positions.assistant[i]).mean()

    for loss in ([on_labels] if labels is not None else []) + ([on_likelihood] if likelihood else []):
        optimiser = torch.optim.AdamW([head], lr=options.learning_rate, weight_decay=0.0)
        steps = options.epochs * max(1, -(-len(positions.target) // options.batch))
        warm = max(1, int(options.warmup_ratio * steps))

        def share(step: int, warm: int = warm, steps: int = steps) -> float:
            return min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        for _ in range(options.epochs):
            order = torch.randperm(len(positions.target), generator=generator)
            for index in order.split(options.batch):
                optimiser.zero_grad()
                loss(positions.hidden[index] @ head, index).backward()
                optimiser.step()
                schedule.step()
    return head.detach()
