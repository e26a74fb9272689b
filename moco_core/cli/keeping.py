"""Looking after what is stored: how much there is, what resembles a call, what may go."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs

from moco_core.runtime.artifacts import FACTS
from moco_core.runtime.cache import Cache, KeyParts
from moco_core.runtime.locks import FileLock
from moco_core.runtime.training import FIGURES

_DISTANCE = {"seed": 1, "params": 2, "input": 4, "model": 8, "kind": 16}
_PARTS = "SELECT model, kind, input, params, seed FROM calls"
_OUTDATED = """
FROM calls JOIN makers ON owner = CASE model WHEN '' THEN lower(hex(key)) ELSE model END
WHERE version < (SELECT max(version) FROM makers AS later WHERE later.name = makers.name)
"""
_SIZE = "length(value) + 200"  # a row's bytes: its value and, about, its key


@attrs.frozen(kw_only=True)
class CacheInfo:
    """What a cache holds. Sizes are bytes. ``outdated`` counts results, by what made them, that a later version replaced."""

    path: Path
    calls: int
    bytes: int
    models: Mapping[str, int]
    outdated: Mapping[str, int] = attrs.field(factory=dict)
    read_only: bool = False


@attrs.frozen(kw_only=True)
class ArtifactInfo:
    """One stored artifact. ``bytes`` is its size, ``used`` the time stamp of its last use."""

    folder: Path
    kind: str
    bytes: int
    used: float


def cache_info(cache: Cache) -> CacheInfo:
    """Count what is stored."""
    models = {str(m): int(n) for m, n in cache.execute("SELECT model, count(*) FROM calls GROUP BY model ORDER BY 2 DESC")}
    path = cache.path or Path(":memory:")
    files = [path, *(path.with_name(path.name + s) for s in ("-wal", "-shm"))]
    size = sum(f.stat().st_size for f in files if f.exists())
    outdated = dict(cache.execute(f"SELECT name || ' ' || version, count(*) {_OUTDATED} GROUP BY 1 ORDER BY 1"))
    calls, read_only = sum(models.values()), cache.read_only
    return CacheInfo(path=path, calls=calls, bytes=size, models=models, outdated=outdated, read_only=read_only)


def parts_of(cache: Cache, key: bytes) -> KeyParts | None:
    """Return the parts of a stored key."""
    rows = cache.execute(f"{_PARTS} WHERE key = ?", (key,))
    return KeyParts(*rows[0]) if rows else None


def differing(one: KeyParts, other: KeyParts) -> tuple[str, ...]:
    """Return the names of the parts in which two keys differ."""
    return tuple(f.name for f in attrs.fields(KeyParts) if getattr(one, f.name) != getattr(other, f.name))


def nearest(cache: Cache, wanted: KeyParts, before: float | None = None) -> KeyParts | None:
    """Return the stored key most like ``wanted`` but not equal to it: same input first, then same model.

    Another seed is nearer than other settings, and those are nearer than another model.
    """
    cutoff = time.time() if before is None else before
    for column, value in (("input", wanted.input), ("model", wanted.model)):
        rows = cache.execute(
            f"{_PARTS} WHERE {column} = ? AND kind = ? AND created < ? LIMIT 200", (value, wanted.kind, cutoff)
        )
        found = [parts for parts in (KeyParts(*row) for row in rows) if parts != wanted]
        if found:
            return min(found, key=lambda parts: sum(_DISTANCE[name] for name in differing(wanted, parts)))
    return None


def prune(
    cache: Cache, *, outdated: bool = False, older_than: float | None = None, keep_bytes: int | None = None
) -> int:
    """Delete what a later version replaced, calls older than a time stamp, then the oldest until the file fits.

    Return how many went.
    """
    before = cache.count
    if outdated:
        cache.execute(f"DELETE FROM calls WHERE key IN (SELECT key {_OUTDATED})")
    if older_than is not None:
        cache.execute("DELETE FROM calls WHERE created < ?", (older_than,))
    if keep_bytes is not None:
        newer = f"SELECT key, sum({_SIZE}) OVER (ORDER BY created DESC, key DESC) AS size FROM calls"
        cache.execute(f"DELETE FROM calls WHERE key IN (SELECT key FROM ({newer}) WHERE size > ?)", (keep_bytes,))
    gone = before - cache.count
    cache.execute("VACUUM")
    return gone


def clear(cache: Cache) -> int:
    """Delete everything; return how many calls went."""
    count = cache.count
    cache.execute("DELETE FROM calls")
    cache.execute("VACUUM")
    return count


def artifacts_below(root: Path) -> list[ArtifactInfo]:
    """Return the artifacts in a store, the most recently used first."""
    return sorted(_artifacts(root), key=lambda a: -a.used)


def _artifacts(root: Path) -> Iterator[ArtifactInfo]:
    for file in root.glob(f"*/{FACTS}"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            kind = json.loads(file.read_text(encoding="utf-8"))["what"].get("kind", "")
            size = sum(f.stat().st_size for f in file.parent.rglob("*") if f.is_file())
            yield ArtifactInfo(folder=file.parent, kind=str(kind), bytes=size, used=file.stat().st_mtime)


def train_rate(root: Path, models: Collection[str]) -> float | None:
    """Return the seconds per token of the last training of one of these models (fingerprints); None if there is none."""
    for stored in artifacts_below(root):
        if stored.kind == "training":
            what = json.loads((stored.folder / FACTS).read_text(encoding="utf-8"))["what"]
            figures = json.loads((stored.folder / FIGURES).read_text(encoding="utf-8"))
            if what["model"] in models and figures.get("train_tokens"):
                return float(figures["train_seconds"]) / float(figures["train_tokens"])
    return None


def prune_artifacts(root: Path, *, older_than: float | None = None, keep_bytes: int | None = None) -> int:
    """Delete artifacts unused since a time stamp, then the longest unused until the rest fits; return how many went.

    One that is being built is left alone; what a killed builder left behind goes with the rest.
    """
    gone, kept = 0, 0
    for each in artifacts_below(root):
        kept += each.bytes
        if (older_than is not None and each.used < older_than) or (keep_bytes is not None and kept > keep_bytes):
            shutil.rmtree(each.folder, ignore_errors=True)
            kept -= each.bytes
            gone += 1
    for partial in root.glob("*.partial"):
        lock = FileLock(partial.with_suffix(".lock"))
        if (older_than is None or partial.stat().st_mtime < older_than) and lock.acquire():
            shutil.rmtree(partial, ignore_errors=True)
            lock.release()
    return gone
