"""The call cache: one SQLite file in WAL mode, shared by all runs and safe with several processes at once.

Every row is one finished model call (or one memoised computation) under the digest of everything that decides it. The
parts of the key are stored beside the digest, so that a miss can be explained. A file that cannot be written (a colleague's)
is read all the same; what is new then lasts as long as the cache is open.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs

from moco_core.errors import StoreError
from moco_core.models import Call
from moco_core.types import ContinuationScore, Generation, Span, Usage, canonical, digest

_FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, kind TEXT NOT NULL, input TEXT NOT NULL, params TEXT NOT NULL,
    seed TEXT NOT NULL, value BLOB NOT NULL, created REAL NOT NULL, seconds REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_by_model ON calls (model, kind, input);
CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS makers (owner TEXT PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "key, model, kind, input, params, seed, value, created, seconds"
_PATIENCE = 60  # seconds to wait for another process
_UNWRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_CHUNK = 500  # keys per SELECT; SQLite's default bound on variables is at least 999


class Stored(NamedTuple):
    """A stored result and the seconds of model time it took; None where they were not measured."""

    value: Any
    seconds: float | None


@attrs.frozen
class KeyParts:
    """The parts of a cache key. ``input`` is a digest; ``seed`` is empty for calls that draw no random numbers."""

    model: str
    kind: str
    input: str
    params: str
    seed: str

    def key(self) -> bytes:
        return bytes.fromhex(digest(_FORMAT, self.model, self.kind, self.input, self.params, self.seed))[:20]


def key_parts(call: Call) -> KeyParts:
    """Return the parts that decide a call's result."""
    return KeyParts(
        model=call.model.fingerprint,
        kind=call.kind,
        input=digest(call.input)[:32],
        params=canonical(call.params),
        seed="" if call.seed is None else f"{call.seed:016x}",
    )


def fits(kind: str, result: Any) -> bool:
    """Return whether a result has the form that calls of this kind have."""
    if kind == "generate":
        return isinstance(result, Generation)
    if kind == "score":
        return isinstance(result, (tuple, list)) and all(isinstance(r, ContinuationScore) for r in result)
    return True


def encode_result(result: Any) -> bytes:
    """Return a call's result as compressed JSON. Raises TypeError or ValueError if it is none."""
    if isinstance(result, Generation):
        usage, spans = result.usage, [[s.model, s.text, s.tokens] for s in result.spans]
        data: Any = {"t": result.text, "r": result.reasoning, "f": result.finish_reason, "i": result.token_ids}
        data |= {"l": result.token_logprobs, "u": [usage.prompt_tokens, usage.completion_tokens], "s": spans, "m": result.meta}
        wrapped = ["g", data]
    elif isinstance(result, tuple) and result and all(isinstance(r, ContinuationScore) for r in result):
        wrapped = ["c", [[r.token_ids, r.token_logprobs, r.prompt_tokens] for r in result]]
    else:
        wrapped = ["j", result]
    # level 1: replies are short, and the time of a call counts for more than the size of the file
    return zlib.compress(json.dumps(wrapped, separators=(",", ":")).encode("utf-8", "surrogatepass"), 1)


def decode_result(blob: bytes) -> Any:
    """Invert :func:`encode_result`. Raises ValueError if the bytes are damaged, or of another form."""
    try:
        return _decoded(*json.loads(zlib.decompress(blob).decode("utf-8", "surrogatepass")))
    except (zlib.error, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"damaged cache value: {type(error).__name__}: {error}") from None


def _decoded(tag: str, data: Any) -> Any:
    if tag == "g":
        plain = {"text": data["t"], "reasoning": data["r"], "finish_reason": data["f"], "meta": data["m"]}
        tokens = {"token_ids": data["i"], "token_logprobs": data["l"], "usage": Usage(*data["u"])}
        return Generation(**plain, **tokens, spans=[Span(*s) for s in data["s"]])
    if tag == "c":
        return tuple(
            ContinuationScore(token_ids=row[0], token_logprobs=row[1], prompt_tokens=sum(row[2:])) for row in data
        )
    if tag == "j":
        return data
    raise ValueError(f"unknown form {tag!r}")


def _chunks(keys: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], str]]:
    for start in range(0, len(keys), _CHUNK):
        yield (chunk := keys[start : start + _CHUNK]), ",".join("?" * len(chunk))


class Cache:
    """A content-addressed store of call results. Methods may be called from any thread.

    ``path=None`` keeps it in memory. Opening and writing raise StoreError with one line that names the file.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.read_only = path, False
        self._kept: dict[bytes, Stored] = {}  # what is new beside a file that cannot be written
        self._lock = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open(":memory:" if path is None else str(path))
            except sqlite3.OperationalError as error:
                if path is None or not path.is_file() or error.sqlite_errorcode & 0xFF not in _UNWRITABLE:
                    raise
                self.read_only, uri = True, path.absolute().as_uri()
                try:
                    self._open(f"{uri}?mode=ro")  # beside those who write, if there are any
                except sqlite3.OperationalError:  # SQLite's files beside it, which writers have, are missing
                    self._open(f"{uri}?immutable=1")
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot open the call cache {path}: {error}; choose another with --cache PATH") from None

    @property
    def warnings(self) -> list[str]:
        """What people should know of it, whatever they open it for."""
        return [f"the call cache {self.path} cannot be written; new calls are kept until moco ends"] if self.read_only else []

    def _open(self, place: str) -> None:
        self._db = sqlite3.connect(place, _PATIENCE, isolation_level=None, check_same_thread=False, uri=self.read_only)
        if not self.read_only:
            self._use_wal()
            # a commit survives kill -9 with NORMAL; only a power cut can lose the last ones, never corrupt the file
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        with contextlib.nullcontext() if self.read_only else self._transaction():
            self._check_format()

    def _use_wal(self) -> None:
        """Switch to WAL; SQLite does not wait by itself where several processes open a new file at once."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _check_format(self) -> None:
        if not self.read_only:  # SQLite opens a file that it cannot write without a word, and refuses this
            self._db.execute("INSERT OR IGNORE INTO facts VALUES ('format', ?)", (str(_FORMAT),))
        (form,) = self._db.execute("SELECT value FROM facts WHERE name = 'format'").fetchone() or ("unknown",)
        if form != str(_FORMAT):
            raise StoreError(f"the call cache {self.path} has format {form}, this version writes {_FORMAT}; move it away")
        if "seconds" not in {column[1] for column in self._db.execute("PRAGMA table_info(calls)")}:
            self._db.execute("ALTER TABLE calls ADD COLUMN seconds REAL")  # of an earlier version; what it holds stays valid

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        """Return the stored results of those keys that have one. A damaged row counts as absent."""
        try:
            with self._lock:
                return self._read(keys) | {key: self._kept[key] for key in keys if key in self._kept}
        except sqlite3.Error as error:
            raise StoreError(f"cannot read the call cache {self.path}: {error}") from None

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, Stored]:
        found: dict[bytes, Stored] = {}
        for chunk, marks in _chunks(keys):
            query = f"SELECT key, value, seconds FROM calls WHERE key IN ({marks})"
            for key, blob, seconds in self._db.execute(query, chunk).fetchall():
                with contextlib.suppress(ValueError):
                    found[key] = Stored(decode_result(blob), seconds)
        return found

    def put_many(self, rows: Iterable[tuple[bytes, KeyParts, bytes, float | None]]) -> dict[bytes, Stored]:
        """Store encoded results with their seconds in one transaction, and give up the claims on them.

        Return those that another process stored first. They stay, since its records are built on them: use them instead.
        """
        now = time.time()
        data = [(k, p.model, p.kind, p.input, p.params, p.seed, blob, now, seconds) for k, p, blob, seconds in rows]
        if self.read_only:
            self._kept |= {row[0]: Stored(decode_result(row[6]), row[8]) for row in data}
        if self.read_only or not data:
            return {}
        try:
            with self._transaction():
                first: dict[bytes, Stored] = {}
                if self.path is not None:
                    kinds = {row[0]: row[2] for row in data}
                    there = self._read(list(kinds))
                    first = {key: stored for key, stored in there.items() if fits(kinds[key], stored.value)}
                    data = [row for row in data if row[0] not in first]
                    self._db.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in kinds])
                self._db.executemany(f"INSERT OR REPLACE INTO calls ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", data)
                return first
        except sqlite3.Error as error:
            what = f"cannot write the call cache {self.path}: {error}"
            raise StoreError(f"{what}; free some space or choose another with --cache PATH") from None

    def note_makers(self, makers: Mapping[str, tuple[str, int]]) -> None:
        """Note what made results, and in which version: by model fingerprint, or by key in hexadecimal for memoised ones."""
        with contextlib.suppress(sqlite3.Error), self._transaction():  # nothing but what is shown depends on it
            self._db.executemany("INSERT OR IGNORE INTO makers VALUES (?,?,?)", [(k, *v) for k, v in makers.items()])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # ---------------------------------------------------------------- several processes

    def claim(self, keys: Sequence[bytes], owner: str, seconds: float) -> set[bytes]:
        """Claim calls that are about to be made, for ``seconds``; return those that another process is making.

        Claiming again extends a claim. One that expired belongs to whoever comes next: its process was killed.
        """
        if self.path is None or self.read_only or not keys:
            return set()
        now = time.time()
        try:
            with self._transaction():
                self._db.executemany(
                    "INSERT INTO claims VALUES (?,?,?) ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, "
                    "expires = excluded.expires WHERE owner = excluded.owner OR expires < ?",
                    [(key, owner, now + seconds, now) for key in keys],
                )
                others: set[bytes] = set()
                for chunk, marks in _chunks(keys):
                    query = f"SELECT key FROM claims WHERE owner != ? AND key IN ({marks})"
                    others.update(row[0] for row in self._db.execute(query, (owner, *chunk)))
                return others
        except sqlite3.Error as error:
            raise StoreError(f"cannot write the call cache {self.path}: {error}") from None

    def release(self, keys: Sequence[bytes], owner: str) -> None:
        """Give up claims on calls that failed or were not made."""
        if self.path is not None and not self.read_only and keys:
            with contextlib.suppress(sqlite3.Error), self._transaction():  # at worst they expire
                self._db.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(k, owner) for k in keys])

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one SQL statement and return its rows; for looking after what is stored."""
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    @property
    def count(self) -> int:
        """How many calls are stored."""
        return int(self.execute("SELECT count(*) FROM calls")[0][0])

    def close(self) -> None:
        with self._lock:
            self._db.close()
