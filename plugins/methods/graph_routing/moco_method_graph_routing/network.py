"""The graph network. Only models have incoming edges, so that their embeddings are constants once training is over.

Feng, Shen and You, "GraphRouter", arXiv 2410.03834, with the layer of the authors' code: a general graph convolution
(x'_m = x_m + reduce(W x_q + b + W_e f_qm + b_e)), batch normalisation over all nodes, twice. Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Network"]

_EPS = 1e-5
_MOMENTUM = 0.1


class Network:
    """Parameters and running statistics; width D = 2 * ``half`` of a node, embeddings of width ``width``.

    All tensors are float64: it is small, and rounding should not decide an epoch or a route.
    """

    def __init__(self, width: int, half: int, aggregation: str, generator: torch.Generator) -> None:
        self.aggregation = aggregation
        size = 2 * half

        def linear(out: int, inside: int) -> Tensor:
            bound = inside**-0.5
            drawn = torch.rand(out, inside, dtype=torch.float64, generator=generator)
            start: Tensor = (drawn * 2 - 1) * bound
            return start.requires_grad_()

        def constant(value: float, count: int = size) -> Tensor:
            start: Tensor = torch.full((count,), value, dtype=torch.float64)
            return start.requires_grad_()

        self.parameters: dict[str, Tensor] = {
            "task": linear(half, width),
            "question": linear(half, width),
            "model": linear(size, width),
            "edge": linear(size, 3),
        }
        for layer in ("1", "2"):
            self.parameters |= {
                f"message{layer}": linear(size, size),
                f"message_bias{layer}": constant(0.0),
                f"edge{layer}": linear(size, size),
                f"edge_bias{layer}": constant(0.0),
                f"gain{layer}": constant(1.0),
                f"shift{layer}": constant(0.0),
            }
        self.statistics = {
            name + layer: torch.full((size,), value, dtype=torch.float64)
            for layer in ("1", "2")
            for name, value in (("mean", 0.0), ("variance", 1.0))
        }

    def questions(self, tasks: Tensor, questions: Tensor) -> Tensor:
        """Return x_q = [W_t t ; W_q q] (Q, D)."""
        return torch.cat([tasks @ self.parameters["task"].T, questions @ self.parameters["question"].T], -1)

    def models(
        self, x_q: Tensor, descriptions: Tensor, features: Tensor, visible: Tensor, *, training: bool = False
    ) -> Tensor:
        """Return the models' embeddings h_m after two layers, (draws, N, D).

        ``x_q`` (Q, D), ``descriptions`` (N, width), ``features`` (Q, N, 3), ``visible`` (draws, Q, N) of 0 and 1. In training,
        statistics are those of each draw's own nodes, and the running ones are updated; else the running ones are used, and
        nothing depends on any other question than those that are given.
        """
        draws = len(visible)
        f = functional.relu(features @ self.parameters["edge"].T)
        q = x_q.expand(draws, *x_q.shape)
        m = (descriptions @ self.parameters["model"].T).expand(draws, -1, -1)
        for layer in ("1", "2"):
            m = m + self._messages(q, f, visible, layer)
            q, m = self._normalised(q, m, layer, training)
            if layer == "1":
                q, m = functional.relu(q), functional.relu(m)
        return m

    def _messages(self, q: Tensor, f: Tensor, visible: Tensor, layer: str) -> Tensor:
        """Reduce W x_q + b + W_e f_qm + b_e over the visible questions of each model, (draws, N, D)."""
        p = self.parameters
        count = visible.sum(1)[..., None]
        summed = torch.einsum("sqn,sqd->snd", visible, q) @ p[f"message{layer}"].T
        summed = summed + torch.einsum("sqn,qnd->snd", visible, f) @ p[f"edge{layer}"].T
        summed = summed + count * (p[f"message_bias{layer}"] + p[f"edge_bias{layer}"])
        return summed / count.clamp(min=1) if self.aggregation == "mean" else summed

    def _normalised(self, q: Tensor, m: Tensor, layer: str, training: bool) -> tuple[Tensor, Tensor]:
        p, s = self.parameters, self.statistics
        if training:
            nodes = torch.cat([q, m], 1)
            mean, variance = nodes.mean(1, keepdim=True), nodes.var(1, correction=0, keepdim=True)
            for name, value in (("mean", mean), ("variance", variance)):
                s[name + layer].mul_(1 - _MOMENTUM).add_(_MOMENTUM * value.detach().mean((0, 1)))
        else:
            mean, variance = s[f"mean{layer}"], s[f"variance{layer}"]
        scale = p[f"gain{layer}"] / (variance + _EPS).sqrt()
        return (q - mean) * scale + p[f"shift{layer}"], (m - mean) * scale + p[f"shift{layer}"]

    @staticmethod
    def logits(x_q: Tensor, h_m: Tensor) -> Tensor:
        """Return mean_k(x_q[k] * h_m[k]) (draws, Q, N), of which the score is the sigmoid."""
        return torch.einsum("qd,snd->sqn", x_q, h_m) / x_q.shape[-1]

    def state(self) -> dict[str, Tensor]:
        """Return everything that decides a score."""
        return {**{k: v.detach() for k, v in self.parameters.items()}, **self.statistics}

    @classmethod
    def restored(cls, state: Mapping[str, Tensor], aggregation: str) -> Network:
        """Invert :meth:`state`."""
        half, width = state["question"].shape
        network = cls(width, half, aggregation, torch.Generator())
        for known in (network.parameters, network.statistics):
            for name in known:
                known[name] = state[name].detach()
        return network
