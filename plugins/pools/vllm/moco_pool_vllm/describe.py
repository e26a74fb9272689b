"""Describing checkpoints: as the transformers engine does, plus what vLLM must know."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from moco_core.errors import ConfigError
from moco_pool_transformers.describe import Described
from moco_pool_transformers.describe import describe as describe_checkpoint
from moco_pool_transformers.pool import Entry as CheckpointEntry
from moco_pool_transformers.pool import Options as CheckpointOptions
from moco_toolkit_checkpoints.adapters import beyond_factors
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.specs import Spec, weight_files

if TYPE_CHECKING:
    from moco_pool_vllm.pool import Entry, Options

__all__ = ["VLLMSpec", "describe"]

_WRAP = "base_model.model."


@attrs.frozen(kw_only=True)
class VLLMSpec:
    """How vLLM opens a model, and how its prompts are rendered. ``adapter_rank`` is 0 without an adapter."""

    checkpoint: Spec
    adapter_rank: int = 0

    @property
    def base_key(self) -> tuple[str, ...]:
        return self.checkpoint.base_key

    @property
    def base_bytes(self) -> int:
        return self.checkpoint.base_bytes

    @property
    def dtype(self) -> str:
        return self.checkpoint.dtype

    @property
    def adapter(self) -> str:
        return self.checkpoint.adapter


def describe(entry: Entry, options: Options, where: str) -> tuple[Described, str]:
    """Return a checkpoint's description and its task. Raises ConfigError."""
    described = describe_checkpoint(
        CheckpointEntry(
            model=entry.model,
            name=entry.name,
            description=entry.description,
            adapter=entry.adapter,
            revision=entry.revision,
            dtype=entry.dtype,
            template=entry.template,
        ),
        CheckpointOptions(
            models=(),
            dtype=options.dtype,
            overlong=options.overlong,
            reasoning_tags=options.reasoning_tags,
            trust_remote_code=options.trust_remote_code,
            cache=options.cache,
        ),
        where,
    )
    spec = described.spec
    task = entry.task
    if task == "auto":
        task = "reward" if spec.classifier else "generate"
    if spec.classifier != (task == "reward"):
        kind = "a sequence classifier" if spec.classifier else "no sequence classifier"
        raise ConfigError(f"{where}.task: {task}: {entry.model} is {kind}")
    rank = 0
    if spec.adapter:
        if task != "generate":
            raise ConfigError(f"{where}.adapter: vLLM serves adapters on models that generate; got task {task}")
        rank = _adapter_rank(Path(spec.adapter), spec, f"{where}.adapter")
    wrapped: Any = VLLMSpec(checkpoint=spec, adapter_rank=rank)
    return attrs.evolve(described, spec=wrapped), task


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
