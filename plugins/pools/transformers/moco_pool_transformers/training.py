"""Lending a model's device to a training: what is known of its files, in a process that loads them itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from moco_core.models import Model
from moco_core.training import TrainingSite
from moco_pool_transformers.cpu import CpuPlan
from moco_pool_transformers.options import Options
from moco_pool_transformers.placement import SHARE
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["site_of"]


def site_of(
    model: Model, site: TrainingSite, entry: Mapping[str, Any], cpu: CpuPlan, options: Options
) -> TrainingSite:
    """Return the site with the model's files (``entry`` is its entry in a pool's options) and device."""
    spec: Spec = model.info["spec"]
    return attrs.evolve(
        site,
        entry=entry,
        device=spec.device,
        threads=cpu.threads if spec.device == "cpu" else None,
        info={
            "name": model.name,
            "named": spec.entry["model"],
            "task": spec.task,
            "loader": spec.loader,
            "weights": spec.weights_print,
            "tokenizer": spec.tokenizer_folder,
            "style": spec.style,
            "template_text": spec.template_text,
            "template_options": dict(spec.template_options),
            "tags": [list(pair) for pair in spec.tags],
            "ends": list(spec.ends),
            "context": model.context_length,
            "trust_remote_code": options.trust_remote_code,
            "room": _room(spec.device, cpu.groups),
        },
    )


def _room(device: str, groups: int) -> int | None:
    """Return the bytes that a training may take of a device: a share of all it has, since what is idle leaves it. Of a CPU's
    ``groups``, each may train at the same time.
    """
    if device.startswith("cuda"):
        import torch

        return int(SHARE * torch.cuda.get_device_properties(torch.device(device)).total_memory)
    try:
        return int(SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) // groups
    except (ValueError, OSError, AttributeError):
        return None
