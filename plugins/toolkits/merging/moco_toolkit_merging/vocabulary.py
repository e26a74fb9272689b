"""Do the token ids of two checkpoints mean the same, and do replies end with the same ones? Rows are merged by id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from moco_toolkit_checkpoints.fingerprints import read_json

__all__ = ["compare_ends", "compare_vocabularies", "tokens_of"]

_OTHERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")


def compare_vocabularies(folders: Sequence[Path], names: Sequence[str]) -> tuple[str, list[str]]:
    """Compare the vocabulary of every folder with the first's; return what forbids merging, or an empty text, and warnings.

    An id that two tokenizers give to different tokens forbids it. Ids that only one of them uses are warned about: what was
    learnt for that token is averaged with a row that nobody trained.
    """
    warnings: list[str] = []
    known = [tokens_of(folder) for folder in folders]
    first, one = known[0], names[0]
    for other, two, folder in zip(known[1:], names[1:], folders[1:], strict=True):
        if first is None or other is None:
            if _digests(folders[0]) != _digests(folder):
                warnings.append(f"{one!r} and {two!r}: the tokenizers' files differ and cannot be compared token by token")
            continue
        for index in sorted(first.keys() & other.keys()):
            if first[index] != other[index]:
                return (
                    f"id {index} is {first[index]!r} in {one!r} and {other[index]!r} in {two!r}; "
                    "align the vocabularies first (mergekit's tokenizer_source does)",
                    warnings,
                )
        for mine, theirs, has, lacks in ((first, other, one, two), (other, first, two, one)):
            if extra := sorted(mine.keys() - theirs.keys()):
                warnings.append(
                    f"{has!r} has {len(extra)} tokens that {lacks!r} does not know (first {mine[extra[0]]!r}, id {extra[0]})"
                )
    return "", warnings


def compare_ends(folders: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Return one warning for every folder whose model ends a reply with other tokens than the first's.

    A base and its chat model differ so; the merge has the generation configuration of the first.
    """
    first, one = _ends(folders[0]), names[0]
    return [
        f"{one!r} and {two!r}: replies end with token {_ids(first)} in one and {_ids(other)} in the other; "
        f"the merge ends as {one!r} does"
        for folder, two in zip(folders[1:], names[1:], strict=True)
        if (other := _ends(folder)) != first
    ]


def _ends(folder: Path) -> tuple[int, ...]:
    """Return the end tokens that a folder states: its generation configuration's, else its configuration's."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        found = read_json(path).get("eos_token_id") if path.is_file() else None
        if found is not None:
            return tuple(sorted(found)) if isinstance(found, list) else (int(found),)
    return ()


def _ids(ends: Sequence[int]) -> str:
    return " or ".join(map(str, ends)) or "none"


def tokens_of(folder: Path) -> Mapping[int, str] | None:
    """Return what each id of a folder's tokenizer.json stands for; None if there is none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    data = read_json(path)
    vocabulary = (data.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, dict):
        found = {int(index): str(token) for token, index in vocabulary.items()}
    else:  # a list of [token, score], by id
        found = {index: str(entry[0]) for index, entry in enumerate(vocabulary)}
    return found | {int(t["id"]): str(t["content"]) for t in data.get("added_tokens") or []}


def _digests(folder: Path) -> dict[str, str]:
    """Return the hashes of a folder's other tokenizer files, by name."""
    paths = [folder / name for name in _OTHERS]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths if p.is_file()}
