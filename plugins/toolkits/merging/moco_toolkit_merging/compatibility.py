"""May these models of a pool be merged? Told from headers and configurations, before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import CapabilityError, ConfigError, Model
from moco_toolkit_checkpoints.fingerprints import read_json
from moco_toolkit_merging.comparison import Report, compare
from moco_toolkit_merging.engines import engine_of, files_of
from moco_toolkit_merging.folders import FolderWeights
from moco_toolkit_merging.vocabulary import compare_ends

__all__ = ["check_finite", "check_models", "mismatch"]


def mismatch(models: Sequence[Model]) -> str:
    """Return why models cannot be merged, told from what the pool states and from headers; empty if nothing forbids it."""
    first = models[0]
    for other in models[1:]:
        pair = f"models {first.name!r} and {other.name!r}"
        if other.engine is not first.engine:
            return f"{pair} are opened by two engines; put them into one pool to merge them"
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
    return attrs.evolve(report, warnings=(*report.warnings, *_ends(models), *_foreign(models)))


def check_finite(models: Sequence[Model]) -> None:
    """Read every weight once. Raises ConfigError naming the first model and tensor with NaN or infinite values.

    One pass over the weights costs little beside the dev evaluations that a broken source would spoil. Blocking.
    """
    engine = engine_of(models[0])
    if engine is None:
        return
    from moco_toolkit_merging.tensors import finite

    for model in models:
        tensors: Iterable[tuple[str, Any]]
        if model.adapter:
            tensors = engine.adapter_weights(model).tensors.items()
        else:
            weights = engine.weights(model)
            tensors = ((name, weights.get(name)) for name in weights.names)
        for name, tensor in tensors:
            if tensor.is_floating_point() and not finite(tensor):
                raise ConfigError(f"{name}: model {model.name!r} holds NaN or infinite values; it cannot be merged")


def _detail(a: Model, b: Model) -> str:
    """Return the first difference between two models' files, from their headers alone."""
    folders = [folder for m in (a, b) if (folder := files_of(m).checkpoint) is not None]
    if len(folders) < 2:
        return ""
    try:
        found = compare([FolderWeights(f) for f in folders], [a.name, b.name])
    except (ConfigError, CapabilityError):
        return ""
    return f" ({found.mismatch})" if found.mismatch else ""


def _compared(models: Sequence[Model]) -> Report:
    engine = engine_of(models[0])
    if engine is None:
        return Report()
    report = compare([engine.weights(m) for m in models], [m.name for m in models])
    if report.mismatch:
        raise CapabilityError(f"models cannot be merged: {report.mismatch}")
    return report


def _ends(models: Sequence[Model]) -> list[str]:
    """Warn of models that end replies with other tokens than the first, whose configuration the merge has."""
    known = [(m.name, folder) for m in models if (folder := files_of(m).checkpoint) is not None]
    return compare_ends([folder for _, folder in known], [name for name, _ in known]) if known else []


def _foreign(models: Sequence[Model]) -> Iterator[str]:
    """Warn of adapters that name another base than the one the pool puts them on; only names can tell where shapes fit."""
    for model in models:
        files = files_of(model)
        if files.adapter is None:
            continue
        trained_on = str(read_json(files.adapter / "adapter_config.json").get("base_model_name_or_path") or "")
        if trained_on and files.named and Path(trained_on).name.lower() != Path(files.named).name.lower():
            yield f"adapter {model.name!r} says it was trained on {trained_on!r}, the pool puts it on {files.named!r}"
