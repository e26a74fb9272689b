"""Content hashes of checkpoints and tokenizers, computed without loading them.

Weights are hashed by the SHA-256 of the whole file, since two checkpoints of one shape differ in nothing else. The hash is
read from where it is known already (the Hub names its files by it) and otherwise computed once and remembered by path,
size and modification time, so that describing a pool a second time reads no weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moco_core.errors import ConfigError
from moco_core.types import digest

__all__ = ["HashStore", "architecture_fingerprint", "read_header", "read_json", "tokenizer_fingerprint"]

_SHA256 = re.compile(r"[0-9a-f]{64}")

# What decides whether parameters of two checkpoints mean the same thing, beyond their names and shapes.
_SHAPE_KEYS = re.compile(
    r"(^|_)(n_head|n_heads|num_.*heads.*|num_.*experts.*|head_dim|n_layer|num_hidden_layers|tie_word_embeddings|layer_types|"
    r"hidden_act|activation_function|num_labels)$"
)


class HashStore:
    """SHA-256 of files, remembered in one small JSON file per hashed file below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sha256(self, path: Path) -> str:
        """Return the file's SHA-256 in hexadecimal."""
        real = path.resolve()
        if _SHA256.fullmatch(real.name):  # a file of the Hub's cache is a link to a blob named by its SHA-256
            return real.name
        stat = real.stat()
        state = [str(real), stat.st_size, stat.st_mtime_ns]
        place = self.folder / (digest(str(real))[:32] + ".json")
        try:
            known = json.loads(place.read_text("utf-8"))
            if known["state"] == state:
                return str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not hashed yet, or the note is damaged: hash again
        with real.open("rb") as file:
            value = hashlib.file_digest(file, "sha256").hexdigest()
        self._remember(place, {"state": state, "sha256": value})
        return value

    def _remember(self, place: Path, note: Mapping[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(note, file)
            os.replace(name, place)
        except OSError:
            pass  # a cache folder that cannot be written costs time, nothing else


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; ConfigError names the file if it is missing or damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: file not found") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return value


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (dtype, shape) of a safetensors file, reading its header alone."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > 100_000_000:
                raise ValueError("header too large")
            header = json.loads(file.read(size))
    except (OSError, ValueError, struct.error) as error:
        raise ConfigError(f"{path}: not a safetensors file: {error}") from None
    return {k: (v["dtype"], tuple(v["shape"])) for k, v in header.items() if k != "__metadata__"}


def architecture_fingerprint(config: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Equal for checkpoints whose parameters correspond one to one: class, names, shapes, heads. Dtypes do not matter."""
    text = config.get("text_config") or config
    facts = {k: v for k, v in {**config, **text}.items() if _SHAPE_KEYS.search(k)}
    shapes = sorted((name, list(shape)) for name, (_, shape) in tensors.items())
    return digest("architecture", config.get("architectures"), facts, shapes)


def tokenizer_fingerprint(folder: Path, hashes: HashStore) -> str:
    """Equal exactly for tokenizers that turn text into the same ids: id -> token map, merges or scores, normaliser,
    pre-tokeniser, added and special tokens. What surrounds a text (BOS rules, chat template, padding) does not count.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        files = sorted(
            p for p in folder.iterdir() if p.suffix in (".model", ".txt", ".tiktoken") or p.name in ("vocab.json",)
        )
        if not files:
            raise ConfigError(f"{folder}: no tokenizer files found")
        return digest("tokenizer files", [(p.name, hashes.sha256(p)) for p in files])
    data = read_json(path)
    model = data.get("model") or {}
    vocab = model.get("vocab") or {}
    pairs: Sequence[Any] = (
        sorted(([i, t] for t, i in vocab.items()), key=lambda p: p[0]) if isinstance(vocab, dict) else vocab
    )
    merges = [m.split(" ", 1) if isinstance(m, str) else list(m) for m in model.get("merges") or []]
    ignored = ("vocab", "merges", "dropout", "cache_capacity")
    rest = {k: v for k, v in sorted(model.items()) if k not in ignored and v not in (None, False)}
    added = sorted(
        [
            t["id"],
            t["content"],
            bool(t.get("special")),
            bool(t.get("single_word")),
            bool(t.get("lstrip")),
            bool(t.get("rstrip")),
            bool(t.get("normalized")),
        ]
        for t in data.get("added_tokens") or []
    )
    return digest("tokenizer", pairs, merges, rest, data.get("normalizer"), data.get("pre_tokenizer"), added)
