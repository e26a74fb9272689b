"""Fitting a small head by gradient descent, and keeping the epoch that does best on what was held out. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import attrs
import torch
from torch import Tensor

__all__ = ["Kept", "descend"]


@attrs.frozen
class Kept:
    """The epoch that was kept (counted from 1), how many there were, and the held-out score and loss there (None: none)."""

    epoch: int
    epochs: int
    score: float | None = None
    loss: float | None = None


def descend(
    parameters: Sequence[Tensor],
    losses: Callable[[], Iterable[Tensor]],
    judge: Callable[[], tuple[float, float]] | None,
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    patience: int,
) -> Kept:
    """Train ``parameters`` in place with AdamW and leave them as they were after the best epoch.

    ``losses`` gives the losses of an epoch, one per update. ``judge`` gives (score, loss) on held-out questions without
    changing anything; the highest score is best, of equal ones the lower loss, and ``patience`` epochs without a better one
    end the training. Without it the last epoch is kept.
    """
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    best: tuple[float, float] | None = None
    copies = [p.detach().clone() for p in parameters]
    kept, done = 0, 0
    for done in range(1, epochs + 1):
        for loss in losses():
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if judge is None:
            continue
        with torch.no_grad():
            score, lost = judge()
        if best is None or (score, -lost) > best:
            best, kept = (score, -lost), done
            copies = [p.detach().clone() for p in parameters]
        elif done - kept >= patience:
            break
    if judge is None or best is None:
        return Kept(done, done)
    with torch.no_grad():
        for parameter, copy in zip(parameters, copies, strict=True):
            parameter.copy_(copy)
    return Kept(kept, done, best[0], -best[1])
