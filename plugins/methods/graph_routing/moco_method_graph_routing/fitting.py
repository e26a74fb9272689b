"""Fitting at most once ever, and keeping: the network, the graph it reads at test time, and what is known of both."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from moco_core import Context, digest, plain
from moco_method_graph_routing.graph import Graph
from moco_method_graph_routing.network import Network
from moco_method_graph_routing.options import Options
from moco_method_graph_routing.training import Router, router, train
from moco_toolkit_routing import folds, holdout

__all__ = ["Learnt", "learn", "load", "save"]

VERSION = 1
"""Raised when the same graph and options give another network."""
_NETWORK = "network.safetensors"
_FIGURES = "fit.json"
_KEPT = ("questions", "tasks", "models", "features", "known")
_DECIDING = frozenset(
    {"aggregation", "draws_per_step", "folds", "hidden_features", "learning_rate", "patience"}
    | {"train_epochs", "train_mask_rate", "val_fraction", "weight_decay"}
)


@attrs.frozen(kw_only=True)
class Learnt:
    """``train`` are the dev questions whose edges the network reads, ``held`` those it never saw, with its scores there.

    ``parts`` are the folds, ``values`` the scores of every dev question by a network fitted without it; empty without folds.
    """

    train: Sequence[int]
    held: Sequence[int]
    held_values: Sequence[Sequence[float]]
    parts: Sequence[Sequence[int]] = ()
    values: Sequence[Sequence[float]] = ()
    facts: Any = None


async def learn(
    graph: Graph, strata: Sequence[Any], options: Options, seed: int, context: Context
) -> tuple[Network, Learnt]:
    """Return the network and what is known of it."""
    arrays = {f.name: getattr(graph, f.name).tolist() for f in attrs.fields(Graph)}
    what = {
        "kind": "graph_routing.network",
        "version": VERSION,
        "graph": digest(arrays, [list(s) for s in strata]),
        "options": {k: v for k, v in plain(options).items() if k in _DECIDING},
        "seed": seed,
    }

    async def build(folder: Path) -> None:
        await asyncio.to_thread(_build, graph, strata, options, seed, folder)

    folder = await context.artifact(what, build)
    network = Network.restored(load_file(str(folder / _NETWORK)), options.aggregation)
    return network, Learnt(**json.loads((folder / _FIGURES).read_text("utf-8")))


def save(network: Network, graph: Graph, extra: Mapping[str, Any], path: Path) -> None:
    """Write the network, the graph it reads, and further arrays."""
    arrays = {**{f"graph.{name}": getattr(graph, name) for name in _KEPT}, **extra}
    tensors = {name: torch.tensor(np.asarray(array, dtype=float)) for name, array in arrays.items()}
    save_file({**{f"network.{k}": v.contiguous() for k, v in network.state().items()}, **tensors}, str(path))


def load(path: Path, options: Options) -> tuple[Network, Graph, dict[str, Any]]:
    """Invert :func:`save`."""
    tensors = load_file(str(path))

    def under(prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    arrays = {name: tensor.numpy() for name, tensor in under("graph.").items()}
    unused = np.zeros(arrays["known"].shape)
    graph = Graph(**arrays, labels=unused, telling=unused[:, 0])
    extra = {k: v.numpy() for k, v in tensors.items() if not k.startswith(("network.", "graph."))}
    return Network.restored(under("network."), options.aggregation), graph, extra


def _build(graph: Graph, strata: Sequence[Any], options: Options, seed: int, folder: Path) -> None:
    everything = list(range(len(graph.questions)))
    network, learnt, kept = _fit(graph, everything, strata, options, seed)
    train_rows, held = learnt
    parts: list[list[int]] = []
    values: list[list[float]] = [[] for _ in everything]
    if options.folds > 1 and len(everything) > 1:
        parts = folds(strata, options.folds, random.Random(seed))
        for number, part in enumerate(parts, 1):
            rest = [q for q in everything if q not in set(part)]
            if not graph.telling[rest].any():
                continue
            other, (seen, _), _ = _fit(graph, rest, strata, options, seed + number)
            for q, row in zip(part, _scores(router(other, graph.only(seen)), graph, part), strict=True):
                values[q] = row
    figures = Learnt(
        train=train_rows,
        held=held,
        held_values=_scores(router(network, graph.only(train_rows)), graph, held),
        parts=parts,
        values=values if parts else (),
        facts=attrs.asdict(kept),
    )
    (folder / _FIGURES).write_text(json.dumps(attrs.asdict(figures)), encoding="utf-8")
    save_file({k: v.contiguous() for k, v in network.state().items()}, str(folder / _NETWORK))


def _fit(
    graph: Graph, rows: Sequence[int], strata: Sequence[Any], options: Options, seed: int
) -> tuple[Network, tuple[list[int], list[int]], Any]:
    """Train on some questions, of which a share is held out."""
    inner, outer = holdout([strata[q] for q in rows], options.val_fraction, random.Random(seed))
    seen, held = [rows[k] for k in inner], [rows[k] for k in outer]
    if not graph.telling[seen].any():  # what can be learnt from was all held out
        seen, held = list(rows), []
    network, kept = train(graph, seen, held, options, seed)
    return network, (seen, held), kept


def _scores(given: Router, graph: Graph, rows: Sequence[int]) -> list[list[float]]:
    return [given.scores(graph.tasks[q], graph.questions[q]) for q in rows]
