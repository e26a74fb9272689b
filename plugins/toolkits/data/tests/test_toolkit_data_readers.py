"""Readers: every form of file gives the same rows, and every bad input one line with file, row and field."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moco_core import DatasetError
from moco_toolkit_data import Row, read_rows
from moco_toolkit_data.readers import check_sha256, data_files

ROWS = [{"id": "a", "n": 1, "t": "é \u2028 x"}, {"id": "b", "n": -2, "t": ""}]


def as_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8")


def as_list(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def as_object(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({r["id"]: {k: v for k, v in r.items() if k != "id"} for r in rows}), encoding="utf-8")


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def as_stream(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


def as_arrow_file(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def data(path: Path) -> list[dict[str, Any]]:
    return [dict(row) for row in read_rows(path)]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.jsonl", as_lines),
        ("rows.ndjson", as_lines),
        ("rows.json", as_lines),  # JSON lines are often called .json
        ("rows.json", as_list),
        ("rows.json", as_object),
        ("rows.parquet", as_parquet),
        ("rows.arrow", as_stream),
        ("rows.arrow", as_arrow_file),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_every_form_gives_the_same_rows(
    tmp_path: Path, name: str, write: Callable[[Path, list[dict[str, Any]]], None], zipped: bool
) -> None:
    path = tmp_path / name
    write(path, ROWS)
    if zipped and not name.endswith(("parquet", "arrow")):
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    assert data(path) == ROWS
    assert [row.number for row in read_rows(path)] == [1, 2]


def test_gzip_is_recognised_by_its_content_not_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(gzip.compress(b'{"id": "a"}\n'))
    assert data(path) == [{"id": "a"}]


def test_marks_of_encodings_and_numbers_of_any_size(tmp_path: Path) -> None:
    rows = [{"hash": 18446744073709551615, "x": 1.5, "t": "é"}, {"hash": -(10**30), "x": 1e300, "t": ""}]
    for name, text in (("a.json", json.dumps(rows)), ("b.jsonl", "\n".join(map(json.dumps, rows)))):
        (tmp_path / name).write_text(f"\ufeff{text}", encoding="utf-8")
        assert data(tmp_path / name) == rows
    for name in ("c.json", "c.csv"):
        (tmp_path / name).write_text("[1]", encoding="utf-16")
        fails(tmp_path / name, "not UTF-8 (byte 0xff at 1)")


def test_csv_and_tsv_keep_quoted_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('\ufeffid,t\n1,"a ""b""\nc, d"\n2,\n', encoding="utf-8")
    (tmp_path / "rows.tsv").write_text("id\tt\n1\tx, y\n", encoding="utf-8")
    assert data(tmp_path / "rows.csv") == [{"id": "1", "t": 'a "b"\nc, d'}, {"id": "2", "t": ""}]
    assert data(tmp_path / "rows.tsv") == [{"id": "1", "t": "x, y"}]


def test_the_published_form_is_told_by_its_splits(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"task": "x", "dev": [{"id": 1}], "test": [{"id": 2}, {"id": 3}]}')
    (tmp_path / "b.jsonl").write_text('{"split": "test", "id": 2}\n')
    (tmp_path / "c.jsonl").write_text('{"id": 2, "split": "test"}\n{"id": 3, "split": "train"}\n')
    assert [(r.split, r.study, r["id"]) for r in read_rows(tmp_path / "a.json")] == [
        ("dev", True, 1),
        ("test", True, 2),
        ("test", True, 3),
    ]
    assert [(r.split, r.study) for r in read_rows(tmp_path / "b.jsonl")] == [("test", True)]
    assert [(r.split, r.study) for r in read_rows(tmp_path / "c.jsonl")] == [("test", False), ("train", False)]


# Bad input: one line each, with file, row and field


def fails(path: Path, text: str, act: Callable[[Row], Any] = lambda row: None) -> None:
    with pytest.raises(DatasetError) as caught:
        for row in read_rows(path):
            act(row)
    message = str(caught.value)
    assert text in message and "\n" not in message and path.name in message


def test_truncated_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = gzip.compress(
        b"".join(json.dumps({"id": hashlib.sha256(bytes([i])).hexdigest()}).encode() + b"\n" for i in range(200))
    )
    path.write_bytes(whole[: len(whole) // 2])
    fails(path, "the gzip file ends early")
    with pytest.raises(DatasetError, match=r"rows\.jsonl\.gz, row [1-9]\d*: "):
        data(path)


def test_damaged_gzip(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = bytearray(gzip.compress(b'{"id": "abcdefgh"}\n' * 50))
    whole[20] ^= 0xFF
    path.write_bytes(bytes(whole))
    fails(path, "damaged gzip data")


def test_mixed_encodings_in_lines_and_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"t": "é"}\n'.encode() + '{"t": "é"}\n'.encode("latin-1"))
    fails(path, "rows.jsonl, row 2: not UTF-8 (byte 0xe9 at 8)")
    path = tmp_path / "rows.json"
    path.write_bytes('[{"t": "é"}, '.encode() + '{"t": "é"}]'.encode("latin-1"))
    fails(path, "row 2: not UTF-8")
    path = tmp_path / "rows.csv"
    path.write_bytes("t\né\n".encode() + "é\n".encode("latin-1"))
    fails(path, "not UTF-8")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("r.jsonl", '{"a": 1}\n{"a": \n', "r.jsonl, row 2: not JSON"),
        ("r.jsonl", '{"a": 1}\n[1, 2]\n', "r.jsonl, row 2: expected an object, got list"),
        ("r.json", '[{"a": 1}, {"a": ', "r.json, row 2: not JSON"),
        ("r.json", '[{"a": 1}, 3]', "r.json, row 2: expected an object, got int"),
        ("r.json", "3", "r.json, row 1: expected an object"),
        ("r.json", '[{"a": 1}]\n[{"a": 2}]', "r.json, row 2: not JSON"),
        ("r.json", '[{"a": NaN}]', "r.json, row 1: not JSON"),
        ("r.json", "", "r.json, row 1: not JSON"),
        ("r.jsonl", "[" * 100_000, "r.jsonl, row 1: nested too deeply"),
        (
            "r.jsonl",
            "version https://git-lfs.github.com/spec/v1\n",
            "r.jsonl: a pointer of Git LFS, not the data itself",
        ),
        ("r.parquet", "version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("r.csv", "a,b\n1,2\n1\n", "r.csv, row 2: 1 cells, the header has 2"),
        ("r.csv", "a,a\n1,2\n", "r.csv, header: column 'a' occurs twice"),
        ("r.csv", 'a,b\n1,"2\n', "r.csv, row 1: not CSV"),
        ("r.parquet", "no parquet", "r.parquet, row 1: not parquet"),
        ("r.arrow", "no arrow", "r.arrow, row 1: not Arrow"),
        ("r.txt", "a", "unknown kind of file"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, text: str) -> None:
    (tmp_path / name).write_text(content)
    fails(tmp_path / name, text)


def test_a_missing_file(tmp_path: Path) -> None:
    fails(tmp_path / "none.jsonl", "cannot be read: No such file")


def test_wrong_checksum(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"abc")
    check_sha256(path, hashlib.sha256(b"abc").hexdigest().upper())
    with pytest.raises(DatasetError, match=r"rows\.jsonl: wrong checksum: sha256 is ba7816bf.*, expected 0{64}"):
        check_sha256(path, "0" * 64)


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda r: r.text("anwser"), "rows.jsonl, row 1, field 'anwser': missing, did you mean 'answer'?"),
        (lambda r: r.text("zzz"), "field 'zzz': missing; the row has answer, n, ok, list, obj, empty, null, js"),
        (lambda r: r.text("n"), "field 'n': expected text, got int 3"),
        (lambda r: r.text("null"), "field 'null': expected text, got null"),
        (lambda r: r.text("empty", empty=False), "field 'empty': empty text"),
        (lambda r: r.key("list"), "field 'list': expected text or an integer, got list"),
        (lambda r: r.key("ok"), "field 'ok': expected text or an integer, got bool True"),
        (lambda r: r.integer("answer"), "field 'answer': expected an integer, got str 'x'"),
        (lambda r: r.integer("ok"), "field 'ok': expected an integer, got bool True"),
        (lambda r: r.boolean("n"), "field 'n': expected true or false, got int 3"),
        (lambda r: r.texts("answer"), "field 'answer': expected a list of texts, got str 'x'"),
        (lambda r: r.texts("list"), "field 'list[1]': expected text, got int 2"),
        (lambda r: r.mapping("list"), "field 'list': expected an object, got list"),
        (lambda r: r.labelled("obj"), "field 'obj.B': expected text, got null"),
        (lambda r: r.inner("obj").text("C"), "field 'obj.C': missing"),
        (lambda r: r.parsed("answer"), "field 'answer': expected JSON written as text"),
        (lambda r: r.index("answer", ("A", "B")), "field 'answer': expected one of A, B, got 'x'"),
        (lambda r: r.within("n", 3), "field 'n': expected an index from 0 to 2, got 3"),
    ],
)
def test_missing_fields_and_wrong_types(tmp_path: Path, act: Callable[[Row], Any], text: str) -> None:
    row = {
        "answer": "x",
        "n": 3,
        "ok": True,
        "list": ["a", 2],
        "obj": {"A": "a", "B": None},
        "empty": " ",
        "null": None,
    }
    as_lines(tmp_path / "rows.jsonl", [{**row, "js": "[1]"}])
    fails(tmp_path / "rows.jsonl", text, act)


def test_getters_return_what_is_there() -> None:
    row = Row({"id": 3, "t": " x ", "b": "False", "js": '["a, b"]', "c": {"A": "x", "id": "y"}, "none": None})
    assert (row.key("id"), row.text("t"), row.boolean("b"), row.parsed("js")) == ("3", " x ", False, ["a, b"])
    assert row.labelled("c") == (("A", "id"), ("x", "y"))
    study = Row({"id": 3, "question": "which?", "choices": {"A": "x", "B": "y"}, "answer": "B"})
    assert study.lettered() == ("3", "which?", ("x", "y"), 1)
    assert row.optional("none") == row.optional("missing") == ""


def test_folders_list_their_data_files_sorted_and_skip_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/x.jsonl.gz", "a.parquet", ".cache/x.jsonl", "README.md", "b/.hidden.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(p.relative_to(tmp_path)) for p in data_files(tmp_path)] == ["a.parquet", "b/x.jsonl.gz"]


def test_what_the_datasets_library_writes_beside_its_files_is_no_data(tmp_path: Path) -> None:
    for name in ("x/data-0.arrow", "x/dataset_info.json", "x/state.json", "y/state.json", "dataset_infos.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(p.relative_to(tmp_path)) for p in data_files(tmp_path)] == ["x/data-0.arrow", "y/state.json"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    def peak(count: int) -> int:
        path = tmp_path / name
        rows = [{"id": str(i), "t": "x" * 200} for i in range(count)]
        if name.endswith("csv"):
            path.write_text("id,t\n" + "".join(f"{r['id']},{r['t']}\n" for r in rows))
        else:
            (as_list if name.endswith("json") else as_lines)(path, rows)
        del rows
        tracemalloc.start()
        try:
            assert sum(1 for _ in read_rows(path)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # imports
    assert peak(4000) < peak(500) + 200_000  # the larger file has 0.8 MB more


def test_memory_does_not_grow_with_a_parquet_file_of_one_row_group(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.parquet"
        rng = random.Random(0)
        table = pyarrow.table({"id": [str(i) for i in range(count)], "t": [rng.randbytes(300) for _ in range(count)]})
        parquet.write_table(table, path, compression="none", use_dictionary=False, row_group_size=count)
        del table
        before, most, seen = pyarrow.total_allocated_bytes(), 0, 0
        for _ in read_rows(path):
            seen += 1
            if not seen % 100:
                most = max(most, pyarrow.total_allocated_bytes() - before)
        assert seen == count
        return most

    assert peak(60_000) < peak(6_000) + 4_000_000  # the larger file has 16 MB more


LEAVES = st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.floats(-1e9, 1e9) | st.text()
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=8
)


@given(st.lists(st.dictionaries(st.text(min_size=1), VALUES, max_size=4), min_size=1, max_size=4))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_streamed_json_equals_the_standard_library(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"meta": {"id": 1}, "dev": rows, "n": 3}), encoding="utf-8")
    found = [dict(r) for r in read_rows(path)]
    assert found == [{"id": 1}, *rows]
