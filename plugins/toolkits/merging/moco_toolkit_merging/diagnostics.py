"""Is merging these models hopeless? Numbers about their task vectors, computed tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from moco_core import Context, Example, Model, Pool
from moco_toolkit_checkpoints.local import Weights
from moco_toolkit_merging.merges import Merge
from moco_toolkit_merging.operations import Linear
from moco_toolkit_merging.search import Search

__all__ = ["Diagnosis", "barrier", "diagnose"]


@attrs.frozen(kw_only=True)
class Diagnosis:
    """Facts about N task vectors against one base.

    ``norms`` are L2 norms, ``relative`` those divided by the base's norm (a fine-tuned model is usually below 0.1; a model
    of another origin is near 1 or above). ``cosines[i][j]`` is the cosine of updates i and j. ``conflicts`` is the share of
    entries, of those that at least two models changed, whose signs disagree.
    """

    norms: tuple[float, ...]
    relative: tuple[float, ...]
    cosines: tuple[tuple[float, ...], ...]
    conflicts: float


def diagnose(models: Sequence[Weights], base: Weights) -> Diagnosis:
    """Compare models with their base, one tensor at a time. Blocking: run it in a worker thread."""
    import torch

    count = len(models)
    products = [[0.0] * count for _ in range(count)]
    square, shared, split = 0.0, 0, 0
    for name in base.names:
        origin = base.get(name)
        if not origin.is_floating_point():
            continue
        origin = origin.float()
        square += float(origin.double().square().sum())
        updates = [m.get(name).float() - origin for m in models]
        for i in range(count):
            for j in range(i, count):
                products[i][j] += float(torch.dot(updates[i].double().flatten(), updates[j].double().flatten()))
        up = sum(((u > 0).int() for u in updates), torch.zeros_like(origin, dtype=torch.int32))
        down = sum(((u < 0).int() for u in updates), torch.zeros_like(origin, dtype=torch.int32))
        shared += int((up + down >= 2).sum())
        split += int(((up > 0) & (down > 0)).sum())
    norms = [math.sqrt(products[i][i]) for i in range(count)]

    def cosine(i: int, j: int) -> float:
        scale = norms[i] * norms[j]
        return products[min(i, j)][max(i, j)] / scale if scale else 0.0

    return Diagnosis(
        norms=tuple(norms),
        relative=tuple(n / math.sqrt(square) if square else 0.0 for n in norms),
        cosines=tuple(tuple(cosine(i, j) for j in range(count)) for i in range(count)),
        conflicts=split / shared if shared else 0.0,
    )


async def barrier(
    pool: Pool, a: Model, b: Model, dev: Sequence[Example], context: Context, points: int = 3
) -> list[tuple[float, float]]:
    """Return (t, dev score) of (1 - t) a + t b for t from 0 to 1, with ``points`` inner points.

    A dip in the middle says that the two do not lie in one basin, so that averaging them cannot help.
    """
    search = Search(pool, dev, context, total=points + 2)
    try:
        out = []
        for k in range(points + 2):
            t = k / (points + 1)
            merge = Merge.weights(Linear(coefficients=(1 - t, t)), [a, b])
            out.append((t, await search.score(merge, f"interpolation {t:g}")))
        return out
    finally:
        search.close()
