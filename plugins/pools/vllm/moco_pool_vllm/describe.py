"""Describing checkpoints: as the transformers engine does, plus what vLLM must know."""

from __future__ import annotations

import os
from pathlib import Path

from moco_core.config import default_cache_path
from moco_core.errors import ConfigError
from moco_pool_vllm.options import Entry, Options
from moco_toolkit_checkpoints.adapters import beyond_factors
from moco_toolkit_checkpoints.describe import Checkpoint, Described
from moco_toolkit_checkpoints.describe import describe as describe_checkpoint
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.specs import Spec, weight_files

__all__ = ["describe"]

_WRAP = "base_model.model."


def describe(entry: Entry, options: Options, where: str) -> tuple[Described, str, int]:
    """Return a checkpoint's description, its task, and its adapter's rank (0 without one). Raises ConfigError."""
    described = describe_checkpoint(
        Checkpoint(
            model=entry.model,
            name=entry.name,
            adapter=entry.adapter,
            revision=entry.revision,
            dtype=entry.dtype or options.dtype,
            template=entry.template,
            overlong=options.overlong,
            tags=options.reasoning_tags,
            trust_remote_code=options.trust_remote_code,
            hashes=Path(options.cache) if options.cache else default_cache_path(os.environ).parent / "hashes",
        ),
        where,
    )
    spec = described.spec
    task = entry.task
    if task == "auto":
        task = spec.task
    if task != spec.task and (spec.task, task) != ("generate", "embed"):
        kind = {"generate": "a language model", "reward": "a sequence classifier", "embed": "an encoder"}[spec.task]
        raise ConfigError(f"{where}.task: {task}: {entry.model} is {kind}")
    rank = 0
    if spec.adapter:
        if task != "generate":
            raise ConfigError(f"{where}.adapter: vLLM serves adapters on models that generate; got task {task}")
        rank = _adapter_rank(Path(spec.adapter), spec, f"{where}.adapter")
    return described, task, rank


def _adapter_rank(folder: Path, spec: Spec, where: str) -> int:
    """Return an adapter's largest rank. Raises ConfigError if it was made for another base, or is none that vLLM takes."""
    config = read_json(folder / "adapter_config.json")
    tensors = read_header(folder / "adapter_model.safetensors")
    if problem := beyond_factors(config, tensors):
        raise ConfigError(
            f"{where}: {folder}: vLLM serves low-rank factors alone, this adapter has {problem}; use the pool transformers"
        )
    base = {n: shape for path in weight_files(Path(spec.folder)) for n, (_, shape) in read_header(path).items()}
    rank = int(config.get("r") or 0)
    for name, (_, shape) in tensors.items():
        if ".lora_A." not in name and ".lora_B." not in name:
            continue
        module = name.removeprefix(_WRAP).partition(".lora_")[0]
        target = base.get(module + ".weight")
        if ".lora_A." in name:
            rank = max(rank, shape[0])
        # a base of the Hub has its headers there: vLLM checks it when it loads
        if base and (target is None or (shape[1] != target[1] if ".lora_A." in name else shape[0] != target[0])):
            raise ConfigError(
                f"{where}: {folder} was trained on another base: its {module} does not fit {spec.folder}; give the base it "
                "was trained on"
            )
    return rank
