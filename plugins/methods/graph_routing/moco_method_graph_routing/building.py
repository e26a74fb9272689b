"""Building the graph: texts are embedded, dev outcomes become edges; a new model joins by its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from moco_core import Context, Example, Model, ModelCallError
from moco_method_graph_routing.graph import Graph, Scaling, features, labels
from moco_method_graph_routing.options import task_of
from moco_toolkit_quoting import transcript
from moco_toolkit_routing import Outcomes, Pricing

__all__ = ["build", "joined", "standardised"]

Array = Any
_FARTHEST = 3.0
"""Deviations: descriptions and tasks are texts of another kind, which lie anywhere on axes of little spread."""


async def build(
    system: Any, outcomes: Outcomes, dev: Sequence[Example], context: Context
) -> tuple[Graph, dict[str, Array], list[str]]:
    """Return the graph of dev and the models known from it, the arrays that read a new question, and the tasks' texts.

    A dev question that cannot be embedded has no edges. Raises ModelCallError if a task or a description cannot.
    """

    async def one(example: Example, scope: Context) -> Sequence[float] | None:
        try:
            vector: Sequence[float] = await system.encoder.encode(transcript(example.question), scope)
            return vector
        except ModelCallError as error:
            failures.append(str(error))
            return None

    failures: list[str] = []
    found = await context.each(dev, one, label="embedding dev")
    if failures:
        context.warn(f"graph_routing: {len(failures)} dev questions could not be embedded: {failures[0]}")
    there = np.array([vector is not None for vector in found])
    names = [task_of(example.question, system.options) for example in dev]
    tasks = sorted(set(names))
    described = await _described(system, system.candidates[: len(outcomes.names)], context)
    read = np.array(await context.gather(system.encoder.encode(text, context) for text in tasks))
    raw = np.array([vector if vector is not None else np.zeros(read.shape[1]) for vector in found])
    known = raw[there] if there.any() else raw
    mean, scale = known.mean(0), known.std(0)
    arrays = {"mean": mean, "scale": np.where(scale > 1e-8, scale, 1.0)}
    arrays["tasks"] = standardised(read, arrays)
    of_edges = features(outcomes, system.options.utility, Scaling.of(outcomes))
    best, telling = labels(of_edges[..., 0], system.options.tie_eps)
    graph = Graph(
        questions=np.where(there[:, None], standardised(raw, arrays), 0.0),
        tasks=arrays["tasks"][[tasks.index(name) for name in names]],
        models=standardised(described, arrays),
        features=of_edges,
        labels=best,
        known=np.repeat(there[:, None], best.shape[1], axis=1).astype(float),
        telling=telling & there,
    )
    return graph, arrays, tasks


async def joined(
    system: Any,
    new: Sequence[Model],
    outcomes: Outcomes,
    dev: Sequence[Example],
    train: Sequence[int],
    rows: Sequence[int],
    prices: Pricing,
    context: Context,
) -> Graph:
    """Return the system's graph (of the dev questions ``train``) with new models: descriptions, and edges to some ``rows``."""
    graph: Graph = system.graph
    described = await _described(system, system.candidates[-len(new) :], context)
    count = len(graph.questions)
    added = np.zeros((count, len(new), 3))
    known = np.zeros((count, len(new)))
    if rows:
        shown = [dev[q] for q in rows]
        found = Outcomes.of(await context.evaluate(new, shown, label="new models"), shown, prices)
        places = [list(train).index(q) for q in rows]
        added[places] = features(found, system.options.utility, Scaling.of(outcomes))
        known[places] = 1.0
    unlabelled = np.zeros((count, len(system.names)))
    return attrs.evolve(
        graph,
        models=np.concatenate([graph.models, standardised(described, system.arrays)]),
        features=np.concatenate([graph.features, added], axis=1),
        known=np.concatenate([graph.known, known], axis=1),
        labels=unlabelled,
    )


def standardised(vectors: Array, arrays: Mapping[str, Array]) -> Array:
    """Return embeddings by the mean and deviation of the dev questions, at most three deviations away."""
    return np.clip((np.asarray(vectors) - arrays["mean"]) / arrays["scale"], -_FARTHEST, _FARTHEST)


async def _described(system: Any, models: Sequence[Model], context: Context) -> Array:
    """Return the vectors of the models' descriptions."""
    given, writers = system.options.model_descriptions, [m for m in system.pool if m.can("generate")]
    texts = [m.description.strip() or m.name for m in models]
    if given is not None:
        texts = [given[next(i for i, w in enumerate(writers) if w is m)] for m in models]
    return np.array(await context.gather(system.encoder.encode(text, context) for text in texts))
