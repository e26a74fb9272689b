"""What to do with the sources' weights: frozen values, each the arithmetic of one merging rule and nothing else.

An operation says how one tensor of the result is made of the sources' tensors of that name. It is JSON data
(:func:`dump_operation`, :func:`load_operation`), so that a fitted system holds a recipe instead of weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import attrs

from moco_core import ConfigError, build, digest, plain
from moco_core.converters import floats, strings
from moco_toolkit_merging.rules import Inputs, Operation, Rescale, Sparsify, Tensor, Vote

__all__ = [
    "OPERATIONS",
    "Consensus",
    "Extrapolate",
    "Linear",
    "Mean",
    "Mergekit",
    "dump_operation",
    "load_operation",
]


def _count(given: int, sources: int, what: str) -> None:
    if given != sources:
        raise ConfigError(f"{what}: {given} numbers for {sources} models; give one for each")


@attrs.frozen(kw_only=True)
class Linear:
    """sum_i c_i theta_i. One-hot coefficients give that model bit for bit."""

    kind: ClassVar[str] = "linear"
    elementwise: ClassVar[bool] = True
    coefficients: tuple[float, ...] = attrs.field(converter=floats)

    def check(self, sources: int) -> None:
        _count(len(self.coefficients), sources, "coefficients")

    def merge(self, inputs: Inputs, out: Tensor | None = None) -> Tensor:
        import moco_toolkit_merging.tensors as tensors

        used = [i for i, c in enumerate(self.coefficients) if c] or [0]
        if [self.coefficients[i] for i in used] == [1.0]:
            return tensors.place(inputs.get(used[0]), out)
        return tensors.linear([self.coefficients[i] for i in used], [inputs.get(i) for i in used], out)


@attrs.frozen(kw_only=True)
class Mean:
    """(1/N) sum_i theta_i: the soup of Wortsman et al. 2022 (arXiv 2203.05482)."""

    kind: ClassVar[str] = "mean"
    elementwise: ClassVar[bool] = True
    accumulate_dtype: Literal["float32", "float64"] = "float32"

    def check(self, sources: int) -> None:
        _count(max(sources, 1), sources, "mean")

    def merge(self, inputs: Inputs, out: Tensor | None = None) -> Tensor:
        import torch

        import moco_toolkit_merging.tensors as tensors

        count = len(inputs)
        if count == 1:
            return tensors.place(inputs.get(0), out)
        dtype = getattr(torch, self.accumulate_dtype)
        # a greedy soup tries one more ingredient on top of the same sum again and again
        key = ("sum", self.accumulate_dtype, tuple(inputs.identity(i) for i in range(count - 1)), inputs.name)
        running = inputs.workspace.keep(
            key, lambda: tensors.deviations((inputs.get(i) for i in range(count - 1)), dtype)
        )

        def work(block: Tensor, first: Tensor, last: Tensor, rest: Tensor) -> None:
            start = first.to(dtype)
            torch.sub(last.to(dtype), start, out=block)
            block.add_(rest).div_(count).add_(start)

        target = torch.empty(running.shape, dtype=dtype) if out is None else out
        return tensors.blockwise(target, [inputs.get(0), inputs.get(count - 1), running], work, dtype)


@attrs.frozen(kw_only=True)
class Extrapolate:
    """target + alpha (target - source), each a uniform mean: the first ``targets`` sources, and the others.

    Zheng et al. 2024 (arXiv 2404.16792). alpha = 0 is the target bit for bit, alpha = -1 the source. Parameters whose name
    matches a pattern of ``exclude`` stay at the target.
    """

    kind: ClassVar[str] = "extrapolate"
    elementwise: ClassVar[bool] = True
    alpha: float
    targets: int = 1
    exclude: tuple[str, ...] = attrs.field(default=(), converter=strings)

    def check(self, sources: int) -> None:
        if not 1 <= self.targets < sources:
            raise ConfigError(f"extrapolate: {self.targets} targets of {sources} models; it needs targets and sources")

    def merge(self, inputs: Inputs, out: Tensor | None = None) -> Tensor:
        import torch

        import moco_toolkit_merging.tensors as tensors

        count = len(inputs)

        def part(low: int, high: int) -> Tensor:
            if high - low == 1:
                return inputs.get(low)
            key = ("mean", tuple(inputs.identity(i) for i in range(low, high)), inputs.name)
            return inputs.workspace.keep(key, lambda: tensors.mean([inputs.get(i) for i in range(low, high)]))

        target = part(0, self.targets)
        if self.alpha == 0 or any(fnmatchcase(inputs.name, p) for p in self.exclude):
            return tensors.place(target, out)
        source = part(self.targets, count)
        if self.alpha == -1:
            return tensors.place(source, out)

        def work(block: Tensor, ahead: Tensor, behind: Tensor) -> None:
            ahead = ahead.float()
            torch.add(ahead, ahead - behind.float(), alpha=self.alpha, out=block)

        return tensors.blockwise(torch.empty(target.shape) if out is None else out, [target, source], work)


@attrs.frozen(kw_only=True)
class Consensus:
    """base + scaling * merged task vectors: task arithmetic (2212.04089), TIES (2306.01708), DARE (2311.03099).

    The base is the *last* source. ``weights`` and ``density`` have one number per other source. ``vote="none"`` sums
    without electing signs. The random masks depend on (seed, tensor name, model index) alone.
    """

    kind: ClassVar[str] = "consensus"
    elementwise: ClassVar[bool] = False
    weights: tuple[float, ...] = attrs.field(converter=floats)
    density: tuple[float, ...] = attrs.field(converter=floats)
    sparsify: Sparsify = "dare"
    rescale: Rescale = "inverse_density"
    vote: Vote = "sum"
    normalize: bool = True
    scaling: float = 1.0
    seed: int = 0

    def check(self, sources: int) -> None:
        _count(len(self.weights), sources - 1, "weights")
        _count(len(self.density), sources - 1, "density")

    def merge(self, inputs: Inputs, out: Tensor | None = None) -> Tensor:
        import torch

        import moco_toolkit_merging.tensors as tensors

        base = len(inputs) - 1
        if self.scaling == 0:
            return tensors.place(inputs.get(base), out)

        def thinned(i: int) -> Tensor:
            key = (self.seed, inputs.name, i)
            settings = (self.sparsify, self.density[i], self.rescale)
            return inputs.workspace.keep(
                ("delta", inputs.identity(i), inputs.identity(base), *settings, *key),
                lambda: tensors.sparsify(inputs.delta(i, base), *settings, *key),
            )

        def work(block: Tensor, origin: Tensor, *deltas: Tensor) -> None:
            merged = tensors.agree(deltas, self.weights, self.vote, self.normalize)
            torch.add(origin.float(), merged, alpha=self.scaling, out=block)

        origin = inputs.get(base)
        target = torch.empty(origin.shape) if out is None else out
        return tensors.blockwise(target, [origin, *(thinned(i) for i in range(base))], work)


@attrs.frozen(kw_only=True)
class Mergekit:
    """Any merging method of mergekit, applied tensor by tensor in memory (``pip install mergekit``).

    ``parameters`` are mergekit's own; those of single models are lists in the order of the sources without the base.
    ``base`` takes the last source as base. Its random masks are seeded per tensor by (seed, name).
    """

    kind: ClassVar[str] = "mergekit"
    elementwise: ClassVar[bool] = False
    method: str
    parameters: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    base: bool = False
    seed: int = 0

    def check(self, sources: int) -> None:
        for key, value in self.parameters.items():
            if isinstance(value, (list, tuple)):
                _count(len(value), sources - self.base, key)

    def merge(self, inputs: Inputs, out: Tensor | None = None) -> Tensor:
        import torch

        import moco_toolkit_merging.tensors as tensors

        try:
            from mergekit.merge_methods.api import merge_tensors
        except ImportError as error:
            raise ConfigError(f"operation mergekit:{self.method} needs mergekit; pip install mergekit") from error
        count = len(inputs)
        ids = [f"m{i}" for i in range(count)]
        voters = ids[:-1] if self.base else ids
        parameters = {
            k: dict(zip(voters, v, strict=True)) if isinstance(v, (list, tuple)) else v
            for k, v in self.parameters.items()
        }
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(digest("mergekit", self.seed, inputs.name)[:15], 16))
            merged = merge_tensors(
                [inputs.get(i) for i in range(count)],
                self.method,
                parameters=parameters,
                ids=ids,
                base_index=count - 1 if self.base else None,
                name=inputs.name,
                dtype=torch.float32,
            )
        return tensors.place(merged, out)


OPERATIONS: Mapping[str, type] = {c.kind: c for c in (Linear, Mean, Extrapolate, Consensus, Mergekit)}


def dump_operation(operation: Operation) -> dict[str, Any]:
    """Return an operation as JSON data."""
    return {"kind": operation.kind, **plain(operation)}


def load_operation(data: Mapping[str, Any], where: str = "operation") -> Operation:
    """Invert :func:`dump_operation`. Raises ConfigError for an unknown kind or a wrong field."""
    cls = OPERATIONS.get(str(data.get("kind")))
    if cls is None:
        raise ConfigError(f"{where}: unknown kind {data.get('kind')!r}; known: {', '.join(OPERATIONS)}")
    operation: Operation = build(cls, {k: v for k, v in data.items() if k != "kind"}, where)
    return operation
