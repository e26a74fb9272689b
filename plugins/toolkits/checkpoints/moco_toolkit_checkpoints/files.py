"""The small files that lie beside a checkpoint's weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

__all__ = ["TOKENIZER", "copy_files"]

TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.jinja",
    "chat_template.json",
)
"""Patterns of the files that tokenizers and chat templates are read from."""


def copy_files(source: Path, folder: Path, patterns: Iterable[str] = TOKENIZER) -> None:
    """Copy the files of ``source`` that match into ``folder``.

    Content alone is copied: what is written for a user can be changed, also where the source is read-only.
    """
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
