"""What a training takes: memory before it starts, and how many rows at once fit into what there is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import attrs

from moco_core.errors import EngineOutOfMemory
from moco_core.models import Model
from moco_core.training import TrainingSite
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.local import LocalEngine, local_engine
from moco_toolkit_checkpoints.specs import weight_files

__all__ = ["Fit", "fit", "predicted_memory"]

_MOST = 8
"""Rows at once that are tried first."""

_PER_LAYER = 34
"""Bytes of activations per position, layer and unit of width, in 16 bits (Korthikanti et al. 2022, arXiv 2205.05198)."""


class Trainable(Protocol):
    """What of a job decides the memory that it takes."""

    @property
    def service(self) -> str: ...

    @property
    def lora(self) -> Any: ...

    @property
    def max_length(self) -> int: ...

    @property
    def batch(self) -> int: ...


@attrs.frozen(kw_only=True)
class Fit:
    """How many rows are computed at once at first, whether activations are computed again on the way back, and the memory
    that this is predicted to take, in bytes.
    """

    most: int
    checkpointing: bool
    memory: int


@attrs.frozen(kw_only=True)
class _Shape:
    """What of a model decides the memory of its training. ``factors`` are the parameters of an adapter of rank 1."""

    parameters: int
    factors: int
    hidden: int
    layers: int
    width: int
    context: int | None


def _shape(folder: Path, dtype: str, device: str, context: int | None, parameters: int | None = None) -> _Shape:
    """Return the shape of a checkpoint, whose weights may not be here yet."""
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    layers = int(text.get("num_hidden_layers") or text.get("n_layer") or 1)
    shapes = [shape for path in weight_files(folder) for _, shape in read_header(path).values()]
    return _Shape(
        parameters=sum(math.prod(shape) for shape in shapes) or parameters or 0,
        factors=sum(sum(s) for s in shapes if len(s) == 2) or 20 * hidden * layers,
        hidden=hidden,
        layers=layers,
        width=4 if device == "cpu" or dtype == "float32" else 2,
        context=context,
    )


def memory(job: Trainable, shape: _Shape, rows: int, checkpointing: bool) -> int:
    """Predict the bytes a training needs: weights, a reference, gradients and two moments, activations of ``rows`` rows of
    full length.
    """
    width = 4 if job.lora is None else shape.width
    trained = shape.parameters if job.lora is None else job.lora.r * shape.factors
    reference = shape.parameters * 4 if job.lora is None and job.service in ("dpo", "grpo") else 0
    sequences = rows * (2 if job.service in ("dpo", "reward") else 1)
    units = sequences * min(job.max_length, shape.context or job.max_length) * shape.hidden
    kept = units * shape.layers * (2 if checkpointing else _PER_LAYER) * width // 2
    again = units * _PER_LAYER * width // 2 if checkpointing else 0  # of one layer at a time
    return shape.parameters * width + trained * 12 + reference + kept + again


def predicted_memory(job: Trainable, model: Model) -> int:
    """Predict the bytes that training ``model`` takes on its device, for :attr:`moco_core.methods.Cost.train_memory`.

    0 for a model whose files are not known.
    """
    folder = local_engine(model).files(model).checkpoint if isinstance(model.engine, LocalEngine) else None
    if folder is None or not (folder / "config.json").exists():
        return 0
    dtype = str(getattr(model.info.get("spec"), "dtype", "float32"))
    shape = _shape(folder, dtype, model.device_group.partition("/")[0], model.context_length, model.parameters)
    return memory(job, shape, min(_MOST, job.batch), False)


def fit(job: Trainable, site: TrainingSite) -> Fit:
    """Choose what fits into ``room`` bytes of the device, the same on every machine with as much.

    Raises EngineOutOfMemory if not even the weights and what training adds to them fit, before anything is started.
    """
    room = site.info.get("room")
    shape = _shape(Path(site.entry["model"]), site.entry["dtype"], site.device, site.info.get("context"))
    choices: list[tuple[int, bool]] = [(most, again) for again in (False, True) for most in (_MOST, 4, 2, 1)]
    for most, again in choices:
        needed = memory(job, shape, most, again)
        if room is None or needed <= room:
            return Fit(most=most, checkpointing=again, memory=needed)
    assert room is not None
    needed = memory(job, shape, 0, True)
    if needed <= room:
        return Fit(
            most=1, checkpointing=True, memory=memory(job, shape, 1, True)
        )  # its rows may be shorter than they may be
    raise EngineOutOfMemory(
        f"{site.info.get('name', 'model')}: {job.service} needs about {needed / 2**30:.1f} GiB on {site.device} and "
        f"{room / 2**30:.1f} are free; lower max_length, train an adapter (lora), or use a smaller model"
    )
