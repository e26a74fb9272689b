"""What the engine must know to open a model: plain values, made without loading anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_toolkit_checkpoints.fingerprints import read_json

__all__ = ["Spec", "Task", "weight_files"]

Task = Literal["generate", "reward", "embed"]
"""What a checkpoint is for: a causal language model, a sequence classifier, or an encoder without a head."""


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint: those of its index if there is one; empty if some are missing."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        files = [folder / n for n in names]
        return files if all(f.exists() for f in files) else []
    single = folder / "model.safetensors"
    return [single] if single.exists() else []


@attrs.frozen(kw_only=True)
class Spec:
    """How to open one model of the pool.

    ``folder`` is the base's local folder, or "" if it still has to be fetched from the Hub (``repo``, ``revision``).
    ``task`` says what the checkpoint is for, ``loader`` names transformers' class for it. ``base_print`` is the base's content
    fingerprint, ``config_print`` that of its configuration; ``base_key`` is equal for models that share a module in memory,
    which an adapter that changes its base does with nobody. ``ends`` are the ids that end a reply by the checkpoint's own
    configuration. ``weights_print`` is the fingerprint of the base's weights alone. ``computed`` marks weights or adapters that
    a recipe makes: they are written into a shared module or adapter slot when the model is opened.
    ``replica`` marks a further copy on another device than the model's own. Sizes are bytes.
    """

    folder: str
    base_key: tuple[str, ...]
    base_print: str
    config_print: str
    base_bytes: int
    dtype: str
    device: str
    style: str
    overlong: str
    tags: tuple[tuple[str, str], ...]
    ends: tuple[int, ...]
    tokenizer_folder: str
    task: Task = "generate"
    loader: str = "AutoModelForCausalLM"
    adapter: str = ""
    adapter_key: str = ""
    repo: str = ""
    revision: str | None = None
    template_text: str | None = None
    template_options: Mapping[str, Any] = attrs.field(factory=dict)
    weights_print: str = ""
    computed: bool = False
    replica: bool = False
    entry: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def adapter_name(self) -> str:
        """The adapter's name on its base. Prefixed, since a plain name may collide with a module attribute."""
        return "moco_" + hashlib.sha256((self.adapter_key or self.adapter).encode()).hexdigest()[:16]

    def on(self, device: str) -> Spec:
        """Return this for a replica on another device."""
        return attrs.evolve(self, device=device, base_key=(*self.base_key[:-1], device), replica=True)

    def local_folder(self) -> str:
        """Return the folder with the weights, fetching them if they are not here yet."""
        if not self.repo:
            return self.folder
        from moco_toolkit_checkpoints.hub import fetch

        return fetch(self.repo, self.revision, weights=True)
