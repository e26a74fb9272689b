"""Training the network on drawn edges, and keeping what does best on questions whose edges it never saw. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from moco_method_graph_routing.graph import Graph
from moco_method_graph_routing.network import Network
from moco_method_graph_routing.options import Options
from moco_toolkit_routing.learning import Kept, descend

__all__ = ["Router", "edge_loss", "router", "train"]


@attrs.frozen(eq=False)
class Router:
    """What answering needs: two projections of a question, and the models' embeddings, which are constants. NumPy arrays."""

    task: Any
    question: Any
    models: Any

    def scores(self, task: Sequence[float], question: Sequence[float]) -> list[float]:
        """Return sigmoid(mean_k(x_q[k] * h_m[k])) per model."""
        x = np.concatenate([self.task @ np.asarray(task), self.question @ np.asarray(question)])
        logits = (self.models @ x) / len(x)
        return list((1 / (1 + np.exp(-logits))).tolist())


def edge_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Return the binary cross-entropy over target edges, (draws, Q, N) each but ``labels`` (Q, N); 0 without any."""
    losses = functional.binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="none")
    return (losses * targets).sum() / targets.sum().clamp(min=1)


def train(graph: Graph, learn: Sequence[int], held: Sequence[int], options: Options, seed: int) -> tuple[Network, Kept]:
    """Train on the edges of some questions. Others are judged with all of these edges visible and none of their own."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(graph.questions.shape[1], options.hidden_features, options.aggregation, generator)
    mine, theirs = _tensors(graph.only(learn)), _tensors(graph.only(held))
    eligible = mine["known"] * mine["telling"][:, None]
    utility = theirs["features"][..., 0]

    def losses() -> Iterator[Tensor]:
        drawn = torch.rand(options.draws_per_step, *eligible.shape, dtype=torch.float64, generator=generator)
        shown = (drawn < options.train_mask_rate).to(torch.float64)
        visible, targets = shown * mine["known"], (1 - shown) * eligible
        x_q = network.questions(mine["tasks"], mine["questions"])
        h_m = network.models(x_q, mine["models"], mine["features"], visible, training=True)
        yield edge_loss(network.logits(x_q, h_m), mine["labels"], targets)

    def judge() -> tuple[float, float]:
        x_q = network.questions(mine["tasks"], mine["questions"])
        h_m = network.models(x_q, mine["models"], mine["features"], mine["known"][None])
        asked = network.questions(theirs["tasks"], theirs["questions"])
        logits = network.logits(asked, h_m)[0]
        chosen = logits.argmax(1, keepdim=True)
        lost = edge_loss(logits[None], theirs["labels"], (theirs["known"] * theirs["telling"][:, None])[None])
        return float(utility.gather(1, chosen).mean()), float(lost)

    parameters = list(network.parameters.values())
    kept = descend(
        [*parameters, *network.statistics.values()],
        losses,
        judge if len(held) else None,
        epochs=options.train_epochs,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        patience=options.patience,
    )
    return network, kept


def router(network: Network, graph: Graph) -> Router:
    """Return what answering needs, with every known edge of ``graph`` visible."""
    given = _tensors(graph)
    with torch.no_grad():
        x_q = network.questions(given["tasks"], given["questions"])
        h_m = network.models(x_q, given["models"], given["features"], given["known"][None])[0]
    p = network.parameters
    return Router(p["task"].detach().numpy(), p["question"].detach().numpy(), h_m.numpy())


def _tensors(graph: Graph) -> dict[str, Tensor]:
    names = [f.name for f in attrs.fields(Graph)]
    return {name: torch.tensor(np.asarray(getattr(graph, name), dtype=float)) for name in names}
