"""LoRA adapters as values: exact sums, factor-wise sums, and the update of one parameter.

An adapter with factors A (r x in) and B (out x r) and scaling c (lora_alpha / r, or lora_alpha / sqrt(r) for rsLoRA)
updates its module by c B A. Formulas: LoRA 2106.09685, rsLoRA 2312.03732, LoraHub 2307.13269.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from moco_core import CapabilityError
from moco_toolkit_checkpoints.adapters import beyond_factors, placed_by_tensors, scale
from moco_toolkit_checkpoints.local import AdapterWeights
from moco_toolkit_merging.rules import Composition

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Factors", "check_alike", "check_composable", "combine", "delta", "factors"]

_PREFIX = "base_model.model."
_KEY = re.compile(r"^(?P<module>.+)\.lora_(?P<kind>embedding_)?(?P<factor>[AB])(?:\.[^.]+)??(?:\.weight)?$")


@attrs.frozen(kw_only=True, eq=False)
class Factors:
    """The two factors of one module and its scaling. ``embedding`` modules keep A as (r, rows), B as (width, r).

    ``transposed`` modules (GPT-2's Conv1D) store their weight as (in, out).
    """

    a: Tensor
    b: Tensor
    scaling: float
    embedding: bool = False
    transposed: bool = False

    @property
    def rank(self) -> int:
        return int(self.a.shape[0])


def factors(adapter: AdapterWeights, who: str = "the adapter") -> dict[str, Factors]:
    """Return an adapter's factors by module name. Raises CapabilityError for what is not a plain LoRA adapter."""
    config = adapter.config
    kind = str(config.get("peft_type", "LORA")).rpartition(".")[2].upper()
    if kind != "LORA":
        raise CapabilityError(f"{who}: a {kind} adapter is not LoRA; give LoRA adapters")
    if more := beyond_factors(config, adapter.tensors):
        raise CapabilityError(f"{who}: it is more than a sum of factors: {more}; merge it into full weights first")
    found: dict[str, dict[str, tuple[Tensor, bool]]] = {}
    for key, tensor in adapter.tensors.items():
        match = _KEY.match(key.removeprefix(_PREFIX))
        if match is None or tensor.dim() != 2:
            raise CapabilityError(
                f"{who}: {key!r} is not a factor of a linear or embedding module; merge the adapter into full weights first"
            )
        found.setdefault(match["module"], {})[match["factor"]] = (tensor, match["kind"] is not None)
    out: dict[str, Factors] = {}
    for module, pair in found.items():
        if set(pair) != {"A", "B"}:
            raise CapabilityError(f"{who}: module {module!r} has only one of its two factors; the file is incomplete")
        a, b = pair["A"][0], pair["B"][0]
        if a.shape[0] != b.shape[1]:
            raise CapabilityError(f"{who}: module {module!r} has factors of ranks {a.shape[0]} and {b.shape[1]}")
        out[module] = Factors(
            a=a,
            b=b,
            scaling=scale(config, module, int(a.shape[0])),
            embedding=pair["A"][1],
            transposed=bool(config.get("fan_in_fan_out")),
        )
    return out


def check_composable(
    adapters: Sequence[AdapterWeights], names: Sequence[str], composition: Composition
) -> list[dict[str, Factors]]:
    """Return the factors of every adapter; raise CapabilityError if :func:`check_alike` does, or for NaN."""
    from moco_toolkit_merging.tensors import finite

    sets = check_alike(adapters, names, composition)
    for name, found in zip(names, sets, strict=True):
        odd = next((m for m, f in found.items() if not (finite(f.a) and finite(f.b))), None)
        if odd is not None:
            raise CapabilityError(f"adapter {name!r}: {odd!r} holds NaN or infinite values; it cannot be combined")
    return sets


def check_alike(
    adapters: Sequence[AdapterWeights], names: Sequence[str], composition: Composition
) -> list[dict[str, Factors]]:
    """Return the factors of every adapter; raise CapabilityError, naming the first mismatch, if they do not combine so.

    Factor-wise sums need equal modules, ranks and scalings; exact sums need plain LoRA factors of equal outer shapes. Only
    shapes are looked at.
    """
    sets = [factors(a, f"adapter {n!r}") for a, n in zip(adapters, names, strict=True)]
    reference = next((i for i, s in enumerate(sets) if s), 0)
    for name, other in zip(names, sets, strict=True):
        mine, first = sets[reference], names[reference]
        if not other:
            continue  # the base itself, as an adapter without tensors
        for module in sorted(mine.keys() | other.keys()):
            if module not in other or module not in mine:
                if composition == "exact":
                    continue
                lacks, has = (name, first) if module in mine else (first, name)
                raise CapabilityError(
                    f"adapters {first!r} and {name!r}: {module!r} is a target of {has!r} only ({lacks!r} lacks it); "
                    "composition 'factors' needs equal targets, 'exact' does not"
                )
            x, y = mine[module], other[module]
            shapes = ((x.a.shape[1], x.b.shape[0]), (y.a.shape[1], y.b.shape[0]))
            if shapes[0] != shapes[1]:
                raise CapabilityError(
                    f"adapters {first!r} and {name!r}: {module!r} is {shapes[0][0]}x{shapes[0][1]} in one and "
                    f"{shapes[1][0]}x{shapes[1][1]} in the other; they belong to different bases"
                )
            if composition == "factors" and (x.rank != y.rank or not math.isclose(x.scaling, y.scaling)):
                what = (
                    f"ranks {x.rank} and {y.rank}"
                    if x.rank != y.rank
                    else f"scalings {x.scaling:g} and {y.scaling:g} (lora_alpha / r)"
                )
                raise CapabilityError(
                    f"adapters {first!r} and {name!r}: {what} at {module!r}; composition 'factors' needs equal ones, "
                    "'exact' does not"
                )
    return sets


def combine(
    adapters: Sequence[AdapterWeights],
    coefficients: Callable[[str], Sequence[float]],
    composition: Composition = "exact",
    sets: Sequence[Mapping[str, Factors]] | None = None,
) -> AdapterWeights:
    """Return the adapter that combines others; ``coefficients(module)`` gives one number per adapter.

    ``sets`` are the adapters' factors, where :func:`check_composable` has returned them before.

    ``exact``: A = [w_1 c_1 A_1; ...], B = [B_1, ...] with scaling 1 and rank sum r_i, padded with zeros to one rank, as
    peft's ``add_weighted_adapter(combination_type="cat")``. ``factors``: A = sum w_i A_i, B = sum w_i B_i with the common
    scaling. Sources without tensors (the base) add nothing.
    """
    sets = [factors(a) for a in adapters] if sets is None else sets
    modules = list(dict.fromkeys(m for s in sets for m in s))
    if not modules:
        raise CapabilityError("none of the adapters has any tensors; there is nothing to combine")
    first = next(a for a, s in zip(adapters, sets, strict=True) if s)
    width = max(sum(s[m].rank for s in sets if m in s) for m in modules)
    tensors: dict[str, Tensor] = {}
    for module in modules:
        weights = coefficients(module)
        parts = [(s[module], w) for s, w in zip(sets, weights, strict=True) if module in s]
        if composition == "exact":
            a, b = _concatenate(parts, width)
        else:
            a = sum((f.a.float() * w for f, w in parts[1:]), parts[0][0].a.float() * parts[0][1])
            b = sum((f.b.float() * w for f, w in parts[1:]), parts[0][0].b.float() * parts[0][1])
        infix, suffix = ("embedding_", "") if parts[0][0].embedding else ("", ".weight")
        tensors[f"{_PREFIX}{module}.lora_{infix}A{suffix}"] = a.contiguous()
        tensors[f"{_PREFIX}{module}.lora_{infix}B{suffix}"] = b.contiguous()
    config = placed_by_tensors(first.config, {name: t.shape for name, t in tensors.items()})
    if composition == "exact":
        config |= {"lora_alpha": width, "use_rslora": False, "alpha_pattern": {}}
    return AdapterWeights(config=config, tensors=tensors)


def _concatenate(parts: Sequence[tuple[Factors, float]], width: int) -> tuple[Tensor, Tensor]:
    import torch

    a = torch.cat([f.a.float() * (w * f.scaling) for f, w in parts], dim=0)
    b = torch.cat([f.b.float() for f, _ in parts], dim=1)
    pad = width - a.shape[0]
    if pad:
        a = torch.cat([a, a.new_zeros(pad, a.shape[1])], dim=0)
        b = torch.cat([b, b.new_zeros(b.shape[0], pad)], dim=1)
    return a, b


def delta(part: Factors) -> Tensor:
    """Return the update c B A of one module's weight, float32, in the shape of that weight."""
    product = (part.b.float() @ part.a.float()) * part.scaling
    return product.T if part.embedding or part.transposed else product
