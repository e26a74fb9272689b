"""Content hashes of checkpoints and tokenizers, computed without loading them.

Weights are hashed by the SHA-256 of the whole file, since two checkpoints of one shape differ in nothing else. The hash is
read from where it is known already (the Hub names its files by it) and otherwise computed once and remembered by path,
size and times, so that describing a pool a second time reads no weights.
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

__all__ = [
    "HashStore",
    "architecture_fingerprint",
    "read_header",
    "read_json",
    "tokenizer_fingerprint",
    "tokenizer_settings",
]

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
        # the time of the change too: tar and rsync give a new file the modification time of the old one
        state = [str(real), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
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
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (ValueError, struct.error) as error:
        raise ConfigError(f"{path}: not a safetensors file: {error}") from None
    return {k: (v["dtype"], tuple(v["shape"])) for k, v in header.items() if k != "__metadata__"}


def architecture_fingerprint(config: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Equal for checkpoints whose parameters correspond one to one: class, names, shapes, heads. Dtypes do not matter."""
    text = config.get("text_config") or config
    facts = {k: v for k, v in {**config, **text}.items() if _SHAPE_KEYS.search(k)}
    shapes = sorted((name, list(shape)) for name, (_, shape) in tensors.items())
    return digest("architecture", config.get("architectures"), facts, shapes)


def tokenizer_fingerprint(folder: Path, hashes: HashStore) -> str:
    """Equal exactly for tokenizers that turn text into the same ids and ids into the same text: id -> token map, merges or
    scores, normaliser, pre-tokeniser, decoder, added and special tokens. What surrounds a text (BOS rules, chat template,
    padding) does not count.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        files = sorted(
            p for p in folder.iterdir() if p.suffix in (".model", ".txt", ".tiktoken") or p.name in ("vocab.json",)
        )
        if not files:
            raise ConfigError(f"{folder}: no tokenizer files found")
        return digest("tokenizer files", [(p.name, hashes.sha256(p)) for p in files], _declared(folder, {}))
    data = read_json(path)
    model = data.get("model") or {}
    vocab = model.get("vocab") or {}
    pairs: Sequence[Any] = (
        sorted(([i, t] for t, i in vocab.items()), key=lambda p: p[0]) if isinstance(vocab, dict) else vocab
    )
    merges = [m.split(" ", 1) if isinstance(m, str) else list(m) for m in model.get("merges") or []]
    ignored = ("vocab", "merges", "dropout", "cache_capacity")
    rest = {k: v for k, v in sorted(model.items()) if k not in ignored and v not in (None, False)}
    added = {t["content"]: t for t in data.get("added_tokens") or []}
    listed = sorted([t["id"], *_token(t)] for t in added.values())
    text = [data.get(k) for k in ("normalizer", "pre_tokenizer", "decoder")]
    return digest("tokenizer", pairs, merges, rest, text, listed, _declared(folder, added))


def _token(token: Any, special: bool = False) -> list[Any]:
    """Return what decides how an added token is found in a text, from any of the ways in which files write it."""
    data: Mapping[str, Any] = token if isinstance(token, Mapping) else {"content": str(token), "special": special}
    flags = ("special", "single_word", "lstrip", "rstrip", "normalized")
    return [data.get("content", ""), *(bool(data.get(f)) for f in flags)]


def _declared(folder: Path, added: Mapping[str, Any]) -> list[Any]:
    """Return the tokens that the files beside tokenizer.json add to it, or make special."""
    found: list[Any] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        data = read_json(folder / name) if (folder / name).exists() else {}
        for key in ("additional_special_tokens", "extra_special_tokens"):
            value = data.get(key) or []
            found += [_token(t, special=True) for t in (value.values() if isinstance(value, dict) else value)]
        found += [_token(v, special=True) for k, v in data.items() if k.endswith("_token") and v]
        found += [[*_token(t), i] for i, t in (data.get("added_tokens_decoder") or {}).items()]
    path = folder / "added_tokens.json"
    found += [[*_token(t), i] for t, i in (read_json(path) if path.exists() else {}).items()]
    known = {content for content, token in added.items() if token.get("special")}
    plain = set(added)
    return sorted(
        (t for t in found if t[0] not in known and (t[1] or t[0] not in plain)), key=lambda t: [str(x) for x in t]
    )


_BESIDE_TEXT = frozenset(
    (
        "chat_template",
        "name_or_path",
        "model_max_length",
        "padding_side",
        "truncation_side",
        "transformers_version",
        "processor_class",
        "tokenizer_file",
        "special_tokens_map_file",
        "is_local",
        "local_files_only",
        "clean_up_tokenization_spaces",
    )
)
"""Settings of a tokenizer that change neither the ids of a prompt nor the text of a reply, or that are counted elsewhere."""


def tokenizer_settings(folder: Path) -> list[Any]:
    """Return what else of a tokenizer's files decides a prompt or a reply: its class, roles, and rules for BOS and EOS."""
    out: list[Any] = []
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        data = read_json(folder / name) if (folder / name).exists() else {}
        out.append({k: v for k, v in data.items() if k not in _BESIDE_TEXT})
    path = folder / "tokenizer.json"
    return [*out, read_json(path).get("post_processor") if path.exists() else None]
