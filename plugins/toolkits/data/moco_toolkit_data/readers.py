"""Read rows out of local files, one at a time: JSON, JSON lines, CSV and TSV (all three also gzipped), parquet and Arrow.

Memory holds one row (one batch of rows for parquet and Arrow) whatever the size of the file. Every problem is a DatasetError of
one line that names the file, the row and, where there is one, the field.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from moco_core import DatasetError
from moco_toolkit_data.rows import Row

__all__ = ["EXTENSIONS", "check_sha256", "data_files", "read_rows"]

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_PEEK = 1 << 16
_LONGEST_CELL = 1 << 30
_PARQUET_BATCH = 256
_PARQUET_PAGES = 1 << 16
_STUDY_SPLITS = ("dev", "test")
_POINTER = b"version https://git-lfs.github.com/spec/"
_BOM = b"\xef\xbb\xbf"


def read_rows(path: Path, source: str = "", subset: str = "") -> Iterator[Row]:
    """Yield the rows of one file. ``source`` is what errors call it (default: its name).

    A JSON file may be a list of objects, an object of lists (whose keys are taken as splits) or an object of objects
    (whose keys become the field ``id`` where it is missing). A row of the reference study's published form, one list or
    key for each of "dev" and "test", is marked ``study``.
    """
    source = source or path.name
    name = path.name.lower().removesuffix(".gz")
    kinds: dict[str, Callable[[Path, str], Iterator[tuple[int, str, Any]]]] = {
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".json": _json,
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
        ".arrow": _arrow,
    }
    reader = next((kinds[e] for e in EXTENSIONS if name.endswith(e)), None)
    if reader is None:
        raise DatasetError(f"{path}: unknown kind of file; expected one of {', '.join(EXTENSIONS)}, or .gz of them")
    number = 0
    try:
        _refuse_pointer(path)
        for number, split, data in reader(path, source):
            if not isinstance(data, Mapping):
                raise DatasetError(f"{source}, row {number}: expected an object, got {type(data).__name__}")
            _refuse_halves(data, source, number)
            # the published form states its split in the first field of a line, or as the key of the list
            study = split in _STUDY_SPLITS or (next(iter(data), "") == "split" and data["split"] in _STUDY_SPLITS)
            stated = split or data.get("split")
            yield Row(data, source, number, split=stated if isinstance(stated, str) else "", subset=subset, study=study)
    except EOFError:
        raise DatasetError(
            f"{source}, row {number + 1}: the gzip file ends early, it was not downloaded whole; fetch it again"
        ) from None
    except RecursionError:
        raise DatasetError(f"{source}, row {number + 1}: nested too deeply") from None
    except ValueError as error:  # a whole number of more digits than Python converts
        raise DatasetError(f"{source}, row {number + 1}: cannot be read: {str(error).split(';')[0]}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DatasetError(f"{source}, row {number + 1}: damaged gzip data ({error}); fetch the file again") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None


def _refuse_halves(data: Any, source: str, number: int, field: str = "") -> None:
    """Refuse text with half a character in it (a lone surrogate, such as \\ud83d): no model can be asked it."""
    if isinstance(data, str):
        try:
            data.encode("utf-8")
        except UnicodeEncodeError as error:
            half = f"\\u{ord(data[error.start]):04x}"
            raise DatasetError(
                f"{source}, row {number}, field {field!r}: half a character ({half}) at {error.start + 1}; repair the text"
            ) from None
    elif isinstance(data, Mapping):
        for name, value in data.items():
            _refuse_halves(value, source, number, field or str(name))
    elif isinstance(data, (list, tuple)):
        for value in data:
            _refuse_halves(value, source, number, field)


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file with its checksum before anything of it is used. Raises DatasetError if they differ."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror or error}") from None
    if digest.hexdigest() != expected.lower():
        raise DatasetError(
            f"{path}: wrong checksum: sha256 is {digest.hexdigest()}, expected {expected.lower()}; "
            "fetch the file again, or correct the option sha256"
        )


def data_files(folder: Path) -> list[Path]:
    """Return the data files below a folder, sorted; hidden ones, and what describes others, are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            if path.name.lower().removesuffix(".gz").endswith(EXTENSIONS) and path.name != "dataset_infos.json":
                found.append(path)
    # the datasets library saves these beside its Arrow files
    beside = {p.parent for p in found if p.suffix == ".arrow"}
    return [p for p in found if p.parent not in beside or p.name not in ("dataset_info.json", "state.json")]


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DatasetError(f"{path}: a pointer of Git LFS, not the data itself; run in its folder: git lfs pull")


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    # gzip is recognised by its first bytes: downloads lose or keep the ending as they like
    with path.open("rb") as file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield unpacked  # type: ignore[misc]
        else:
            yield file


def _lines(path: Path, source: str, first: int = 1) -> Iterator[tuple[int, str]]:
    """Yield numbered lines; ``first`` is the number of the first one, 0 where it is a header."""
    with _open(path) as file:
        for number, line in enumerate(file, first):
            try:
                yield number, (line.removeprefix(_BOM) if number == first else line).decode("utf-8")
            except UnicodeDecodeError as error:
                place = f"row {number}" if number else "header"
                raise DatasetError(
                    f"{source}, {place}: not UTF-8 (byte 0x{line[error.start]:02x} at {error.start + 1}); "
                    "the file mixes encodings, convert it to UTF-8"
                ) from None


def _json_lines(path: Path, source: str) -> Iterator[tuple[int, str, Any]]:
    for number, line in _lines(path, source):
        if not line.strip():
            continue
        try:
            yield number, "", json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{source}, row {number}: not JSON: {error.msg} (column {error.colno})") from None


def _json(path: Path, source: str) -> Iterator[tuple[int, str, Any]]:
    if _first_line_is_whole(path):
        yield from _json_lines(path, source)
        return
    import ijson  # type: ignore[import-untyped]

    number = 0
    try:
        with _open(path) as file:
            if (head := file.read(len(_BOM))) != _BOM:
                file.seek(0)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DatasetError(f"{source}, row 1: not UTF-8 (byte 0x{head[0]:02x} at 1); convert it to UTF-8")
            for split, data in _elements(ijson, ijson.basic_parse(file)):
                number += 1
                yield number, split, data
    except ijson.JSONError as error:
        text = error.args[0] if error.args else ""
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
        if "UTF8" in text:
            raise DatasetError(
                f"{source}, row {number + 1}: not UTF-8; the file mixes encodings, convert it to UTF-8"
            ) from None
        raise DatasetError(
            f"{source}, row {number + 1}: not JSON: {text.strip().splitlines()[0].strip(' .')}"
        ) from None


def _first_line_is_whole(path: Path) -> bool:
    """Tell JSON lines that are called .json: the first line is an object on its own and another line follows."""
    with _open(path) as file:
        head = file.read(_PEEK)
    line, newline, rest = head.partition(b"\n")
    if not newline or not rest.strip():
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _elements(ijson: Any, events: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield (key of the enclosing list, element) of a document without ever holding it."""
    first, bare = next(events)
    if first == "start_array":
        for event, value in events:
            if event == "end_array":
                break
            yield "", _value(ijson, event, value, events)
        next(events, None)  # the parser refuses what stands behind the list
    elif first == "start_map":
        key = ""
        for event, value in events:
            if event == "map_key":
                key = value
            elif event == "start_array":
                for inner, member in events:
                    if inner == "end_array":
                        break
                    yield key, _value(ijson, inner, member, events)
            elif event == "start_map":
                row = _value(ijson, event, value, events)
                yield "", row if "id" in row else {"id": key, **row}
    else:
        yield "", bare  # a bare value: reported as "expected an object"


def _value(ijson: Any, event: str, value: Any, events: Iterator[tuple[str, Any]]) -> Any:
    builder = ijson.ObjectBuilder()
    builder.event(event, float(value) if isinstance(value, Decimal) else value)
    depth = int(event.startswith("start"))
    while depth:
        event, value = next(events)
        # whole numbers of any size stay whole, others are what the standard library makes of them
        builder.event(event, float(value) if isinstance(value, Decimal) else value)
        depth += event.startswith("start") - event.startswith("end")
    return builder.value


def _csv(path: Path, source: str) -> Iterator[tuple[int, str, Any]]:
    csv.field_size_limit(_LONGEST_CELL)  # by default a long context is no CSV
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    rows = csv.reader((line for _, line in _lines(path, source, first=0)), delimiter=delimiter, strict=True)
    number = 0
    try:
        header = next(rows, [])
        if len(set(header)) != len(header):
            raise DatasetError(f"{source}, header: column {max(header, key=header.count)!r} occurs twice")
        for cells in rows:
            if not cells:
                continue
            number += 1
            if len(cells) != len(header):
                raise DatasetError(f"{source}, row {number}: {len(cells)} cells, the header has {len(header)}")
            yield number, "", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DatasetError(f"{source}, row {number + 1}: not CSV: {error}") from None


def _parquet(path: Path, source: str) -> Iterator[tuple[int, str, Any]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    number = 0
    try:
        # pages are read as they are needed: by default a whole row group is held, and a file may be one row group
        with pyarrow.parquet.ParquetFile(path, buffer_size=_PARQUET_PAGES, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for data in batch.to_pylist():
                    number += 1
                    yield number, "", data
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{source}, row {number + 1}: not parquet: {str(error).splitlines()[0]}") from None


def _arrow(path: Path, source: str) -> Iterator[tuple[int, str, Any]]:
    import pyarrow

    number = 0
    try:
        with pyarrow.memory_map(str(path)) as file:
            for batch in _batches(pyarrow, file):
                for start in range(0, batch.num_rows, _PARQUET_BATCH):
                    for data in batch.slice(start, _PARQUET_BATCH).to_pylist():
                        number += 1
                        yield number, "", data
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{source}, row {number + 1}: not Arrow: {str(error).splitlines()[0]}") from None


def _batches(pyarrow: Any, file: Any) -> Iterator[Any]:
    """The batches of an Arrow file of either format: the stream, which the datasets library writes, or the file."""
    try:
        stream = pyarrow.ipc.open_stream(file)
    except pyarrow.ArrowInvalid:
        file.seek(0)
        table = pyarrow.ipc.open_file(file)
        yield from map(table.get_batch, range(table.num_record_batches))
    else:
        yield from stream
