"""May these be merged? Told from headers and configurations, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from moco_core.converters import strings
from moco_core.errors import CapabilityError, ConfigError
from moco_core.models import Model

if TYPE_CHECKING:
    from moco_core.local import Host, Weights

__all__ = ["Report", "check_finite", "check_models", "compare", "mismatch"]

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


def compare(sources: Sequence[Weights], names: Sequence[str], *, padding: bool = False) -> Report:
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


def _tensors(a: Weights, b: Weights, one: str, two: str, padding: bool) -> str:
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


def mismatch(models: Sequence[Model]) -> str:
    """Return why models cannot be merged, told from what the pool states and from headers; empty if nothing forbids it."""
    first = models[0]
    for other in models[1:]:
        pair = f"models {first.name!r} and {other.name!r}"
        if first.architecture != other.architecture:
            detail = _detail(first, other)
            return f"{pair} do not share an architecture{detail}; choose checkpoints of one architecture and size"
        if first.tokenizer != other.tokenizer:
            return f"{pair} do not share a tokenizer; choose models of one family"
    return ""


def check_models(models: Sequence[Model]) -> Report:
    """Compare pool models before they are merged: tokenizers, architecture, names and shapes; no weight is read.

    Raises CapabilityError naming the first mismatch. Models of an engine without weights in reach are compared by what
    the pool states about them. Run it in a worker thread: it opens files.
    """
    if problem := mismatch(models):
        raise CapabilityError(problem)
    report = _compared(models)
    return attrs.evolve(report, warnings=(*report.warnings, *_foreign(models)))


def check_finite(models: Sequence[Model]) -> None:
    """Read every weight once. Raises ConfigError naming the first model and tensor with NaN or infinite values.

    One pass over the weights costs little beside the dev evaluations that a broken source would spoil. Blocking.
    """
    host = _host(models[0])
    if host is None:
        return
    from moco_toolkit_merging.tensors import finite

    for model in models:
        tensors: Iterable[tuple[str, Any]]
        if model.adapter:
            tensors = host.adapter_weights(model).tensors.items()
        else:
            weights = host.weights(model)
            tensors = ((name, weights.get(name)) for name in weights.names)
        for name, tensor in tensors:
            if tensor.is_floating_point() and not finite(tensor):
                raise ConfigError(f"{name}: model {model.name!r} holds NaN or infinite values; it cannot be merged")


def _detail(a: Model, b: Model) -> str:
    """Return the first difference between two models' files, from their headers alone."""
    folders = [getattr(m.info.get("spec"), "folder", "") for m in (a, b)]
    if not all(folders):
        return ""
    from moco_toolkit_merging.files import FolderWeights

    try:
        headers: list[Any] = [FolderWeights(Path(f)) for f in folders]
        found = compare(headers, [a.name, b.name])
    except (ConfigError, CapabilityError):
        return ""
    return f" ({found.mismatch})" if found.mismatch else ""


def _compared(models: Sequence[Model]) -> Report:
    host = _host(models[0])
    if host is None:
        return Report()
    report = compare([host.weights(m) for m in models], [m.name for m in models])
    if report.mismatch:
        raise CapabilityError(f"models cannot be merged: {report.mismatch}")
    return report


def _host(model: Model) -> Host | None:
    """Return the engine if weights are in its reach."""
    try:
        from moco_core.local import Host
    except ImportError:
        return None
    return model.engine if isinstance(model.engine, Host) else None


def _foreign(models: Sequence[Model]) -> Iterator[str]:
    """Warn of adapters that name another base than the one the pool puts them on; only names can tell where shapes fit."""
    for model in models:
        spec: Any = model.info.get("spec")
        path = Path(getattr(spec, "adapter", "") or ".") / "adapter_config.json"
        if not model.adapter or not path.is_file():
            continue
        trained_on = str(json.loads(path.read_text("utf-8")).get("base_model_name_or_path") or "")
        given = str(spec.entry.get("model", ""))
        if trained_on and given and Path(trained_on).name.lower() != Path(given).name.lower():
            yield f"adapter {model.name!r} says it was trained on {trained_on!r}, the pool puts it on {given!r}"


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "..."
