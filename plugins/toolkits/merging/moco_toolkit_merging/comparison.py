"""What two checkpoints differ in, told from their configurations and the shapes of their tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core.converters import strings
from moco_toolkit_merging.rules import Shapes

__all__ = ["Report", "compare"]

# Equal names and shapes can still mean different arithmetic: what each head sees, and how.
_SHAPING = ("model_type", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "layer_types")
_MEANING = ("rope_theta", "rope_scaling", "rope_parameters", "sliding_window", "partial_rotary_factor", "rms_norm_eps")
_VOCABULARY = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight", "embed_out.weight")


@attrs.frozen(kw_only=True)
class Report:
    """What differs. ``mismatch`` is the first thing that forbids merging (empty if nothing does), ``warnings`` the rest."""

    mismatch: str = ""
    warnings: tuple[str, ...] = attrs.field(default=(), converter=strings)

    @property
    def compatible(self) -> bool:
        return not self.mismatch


def compare(sources: Sequence[Shapes], names: Sequence[str], *, padding: bool = False) -> Report:
    """Compare every source with the first. ``padding`` allows different numbers of rows in the vocabulary's tensors."""
    warnings: list[str] = []
    first, one = sources[0], names[0]
    for other, two in zip(sources[1:], names[1:], strict=True):
        pair = f"{one!r} and {two!r}"
        mismatch = _configs(first.config, other.config, pair, warnings) or _tensors(first, other, one, two, padding)
        if mismatch:
            return Report(mismatch=mismatch, warnings=tuple(warnings))
    return Report(warnings=tuple(dict.fromkeys(warnings)))


def _configs(a: Mapping[str, Any], b: Mapping[str, Any], pair: str, warnings: list[str]) -> str:
    if a.get("quantization_config") or b.get("quantization_config"):
        return f"{pair}: a quantised checkpoint cannot be merged; use the unquantised one"
    if a.get("architectures") != b.get("architectures"):
        return f"{pair}: architectures {_short(a.get('architectures'))} and {_short(b.get('architectures'))}"
    inner_a, inner_b = a.get("text_config") or a, b.get("text_config") or b
    for key in _SHAPING:
        if inner_a.get(key) != inner_b.get(key):
            return f"{pair}: {key} is {_short(inner_a.get(key))} in one and {_short(inner_b.get(key))} in the other"
    for key in _MEANING:
        if inner_a.get(key) != inner_b.get(key):
            warnings.append(
                f"{pair}: {key} is {_short(inner_a.get(key))} in one and {_short(inner_b.get(key))} in the other; "
                "the merge is defined, but the two attend differently"
            )
    kinds = [str(c.get("dtype") or c.get("torch_dtype") or "") for c in (a, b)]
    if all(kinds) and kinds[0] != kinds[1]:
        warnings.append(f"{pair}: stored as {kinds[0]} and {kinds[1]}; computed in float32, stored as the first")
    return ""


def _tensors(a: Shapes, b: Shapes, one: str, two: str, padding: bool) -> str:
    names_a, names_b = set(a.names), set(b.names)
    for name in a.names:
        if name not in names_b:
            tied = " (tied there to the input embedding)" if name.endswith("lm_head.weight") else ""
            return f"{two!r} has no tensor {name!r}, {one!r} has it{tied}"
        if a.shape(name) != b.shape(name):
            rows_only = a.shape(name)[1:] == b.shape(name)[1:]
            if padding and rows_only and name.endswith(_VOCABULARY):
                continue
            size = "x".join(map(str, a.shape(name))), "x".join(map(str, b.shape(name)))
            hint = "; different vocabularies" if rows_only and name.endswith(_VOCABULARY) else ""
            return f"tensor {name!r} is {size[0]} in {one!r} and {size[1]} in {two!r}{hint}"
    extra = next((n for n in b.names if n not in names_a), None)
    return f"{one!r} has no tensor {extra!r}, {two!r} has it" if extra else ""


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
