"""The tensors of checkpoint folders: headers first, then read through memory maps, one shard at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moco_core import CapabilityError, ConfigError, digest
from moco_toolkit_checkpoints.fingerprints import read_header, read_json
from moco_toolkit_checkpoints.specs import weight_files

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["STORED", "FolderWeights"]

STORED: Mapping[str, str] = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""What safetensors calls the types that can be merged or copied, and what torch calls them."""


class FolderWeights:
    """The tensors of one checkpoint folder (see :class:`moco_toolkit_checkpoints.local.Weights`), in file order.

    Only headers are read at first. One shard is mapped at a time: reading a tensor of another closes the one before.
    Raises ConfigError for a folder that is no checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.config: Mapping[str, Any] = read_json(self.folder / "config.json")
        files = weight_files(self.folder)
        if not files:
            raise ConfigError(f"{self.folder}: no safetensors weights, or some are missing; others cannot be merged")
        self._where: dict[str, Path] = {}
        self._facts: dict[str, tuple[str, tuple[int, ...]]] = {}
        for path in files:
            header = read_header(path)
            self._facts |= header
            self._where |= dict.fromkeys(header, path)
        tied = bool((self.config.get("text_config") or self.config).get("tie_word_embeddings"))
        self.names: Sequence[str] = [n for n in self._facts if not (tied and n == "lm_head.weight")]
        self._aliases: dict[str, str] = {}
        self._open: tuple[Path, Any] | None = None

    def shape(self, name: str) -> tuple[int, ...]:
        return self._facts[name][1]

    def stored(self, name: str) -> str:
        """Return a tensor's type. Raises CapabilityError for formats that cannot be merged (quantised ones)."""
        code = self._facts[name][0]
        if code not in STORED:
            raise CapabilityError(
                f"{self.folder}: tensor {name!r} is stored as {code}; quantised weights cannot be merged"
            )
        return STORED[code]

    def get(self, name: str) -> Tensor:
        tensor: Tensor = self._handle(name).get_tensor(self._aliases.get(name, name))
        return tensor

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor; nothing else of it is read."""
        tensor: Tensor = self._handle(name).get_slice(self._aliases.get(name, name))[start:stop]
        return tensor

    def close(self) -> None:
        """Unmap what is open."""
        self._open = None

    def alias(self, name: str, other: str) -> None:
        """Let ``name`` read as ``other``: the head of a model that ties it to its embeddings."""
        self._where[name], self._facts[name], self._aliases[name] = self._where[other], self._facts[other], other
        self.names = [*self.names, name]

    def fingerprint(self) -> str:
        """Return a digest of names, shapes and files (sizes and times), for the recipe of a merge of plain folders."""
        files = sorted({(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in self._where.values()})
        return digest("folder", str(self.folder.resolve()), [list(f) for f in files])

    def _handle(self, name: str) -> Any:
        from safetensors import safe_open

        path = self._where[name]
        if self._open is None or self._open[0] != path:
            self._open = None  # unmap the old shard before the new one comes
            self._open = (path, safe_open(str(path), framework="pt"))
        return self._open[1]
