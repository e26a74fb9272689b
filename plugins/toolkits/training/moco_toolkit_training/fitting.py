"""What a training takes: memory before it starts, and how many rows at once fit into what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import attrs

from moco_core.errors import EngineOutOfMemory
from moco_core.training import TrainingSite
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.specs import weight_files

__all__ = ["Fit", "fit", "memory"]

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


def memory(job: Trainable, site: TrainingSite, rows: int, checkpointing: bool) -> int:
    """Predict the bytes a training needs: weights, a reference, gradients and two moments, activations of ``rows`` rows of
    full length.
    """
    folder = Path(site.entry["model"])
    config = read_json(folder / "config.json")
    text = config.get("text_config") or config
    shapes = [shape for path in weight_files(folder) for _, shape in read_header(path).values()]
    parameters = sum(_size(shape) for shape in shapes)
    width = 4 if site.device == "cpu" or job.lora is None or site.entry["dtype"] == "float32" else 2
    if job.lora is None:
        trained = parameters
    else:  # factors on every matrix of the layers
        trained = sum(job.lora.r * sum(shape) for shape in shapes if len(shape) == 2)
    reference = parameters * 4 if job.lora is None and job.service in ("dpo", "grpo") else 0
    hidden = int(text.get("hidden_size") or text.get("n_embd") or 0)
    layers = int(text.get("num_hidden_layers") or text.get("n_layer") or 1)
    sequences = rows * (2 if job.service in ("dpo", "reward") else 1)
    positions = sequences * min(job.max_length, site.info.get("context") or job.max_length)
    kept = 2 if checkpointing else _PER_LAYER
    activations = positions * hidden * layers * kept * width // 2
    if checkpointing:
        activations += positions * hidden * _PER_LAYER * width // 2  # of one layer at a time
    return parameters * width + trained * 12 + reference + activations


def fit(job: Trainable, site: TrainingSite) -> Fit:
    """Choose what fits into ``room`` bytes of the device, the same on every machine with as much.

    Raises EngineOutOfMemory if not even the weights and what training adds to them fit, before anything is started.
    """
    room = site.info.get("room")
    choices: list[tuple[int, bool]] = [(most, again) for again in (False, True) for most in (_MOST, 4, 2, 1)]
    for most, again in choices:
        needed = memory(job, site, most, again)
        if room is None or needed <= room:
            return Fit(most=most, checkpointing=again, memory=needed)
    assert room is not None
    needed = memory(job, site, 0, True)
    if needed <= room:
        return Fit(most=1, checkpointing=True, memory=memory(job, site, 1, True))  # its rows may be shorter than they may be
    raise EngineOutOfMemory(
        f"{site.info.get('name', 'model')}: {job.service} needs about {needed / 2**30:.1f} GiB on {site.device} and "
        f"{room / 2**30:.1f} are free; lower max_length, train an adapter (lora), or use a smaller model"
    )


def _size(shape: Any) -> int:
    out = 1
    for n in shape:
        out *= n
    return out
