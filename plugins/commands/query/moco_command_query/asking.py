"""Asking DuckDB: tables that were read from run folders, one statement that reads them, and no way out of memory."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from moco_command_query.tables import TABLES, Table
from moco_core import ConfigError, RunResult
from moco_core.cli.screen import printable

if TYPE_CHECKING:
    import duckdb

__all__ = ["Answered", "ask"]

_LONG = 60
"""Characters of a cell that are shown on a terminal."""
_CLOSED = (
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET lock_configuration = true",
)
"""No file, no address, no variable of this process, no further extension; and nothing of it to be undone."""


@attrs.frozen
class Answered:
    """The rows of a query under the names and types of their columns."""

    names: Sequence[str]
    types: Sequence[str]
    rows: Sequence[tuple[Any, ...]]

    def data(self) -> list[dict[str, Any]]:
        """Return a JSON object per row; of columns with one name, the later ones are numbered."""
        names: list[str] = []
        for name in self.names:
            count = 1
            while (unique := name if count == 1 else f"{name}_{count}") in names:
                count += 1
            names.append(unique)
        return [
            {
                n: _json(json.loads(v) if t == "JSON" and v is not None else v)
                for n, t, v in zip(names, self.types, row, strict=True)
            }
            for row in self.rows
        ]

    def lines(self) -> Iterator[str]:
        """Yield an aligned table, long cells cut short, and how many rows there are."""
        table = [[_cell(name) for name in self.names], *([_cell(value) for value in row] for row in self.rows)]
        widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
        right = [any(isinstance(row[i], (int, float)) for row in self.rows) for i in range(len(self.names))]
        for cells in table:
            spaces = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
            padded = (space + c if r else c + space for c, space, r in zip(cells, spaces, right, strict=True))
            yield "  ".join(padded).rstrip()
        yield f"({len(self.rows)} row{'' if len(self.rows) == 1 else 's'})"


def ask(runs: Sequence[RunResult], sql: str, problems: list[str]) -> Answered:
    """Return what one statement that reads finds in runs. Raises ConfigError for any other, or a wrong one."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="moco-query-") as folder, duckdb.connect(":memory:") as connection:
        statement = _statement(connection, sql)
        for name, table in TABLES.items():
            needed = re.search(rf"\b({name}|query_table)\b", sql, re.IGNORECASE) is not None
            _load(connection, name, table, runs if needed else (), Path(folder), problems)
        spill = str(Path(folder) / "spilled").replace("'", "''")
        for setting in (f"SET temp_directory = '{spill}'", *_CLOSED):
            connection.execute(setting)
        try:
            connection.execute(statement)
            found = connection.fetchall()
        except duckdb.Error as error:
            raise ConfigError(_told(error)) from None
        columns = connection.description or []
        return Answered([c[0] for c in columns], [str(c[1]) for c in columns], found)


def _statement(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    import duckdb

    if sql and len(sql) < 1000 and Path(sql).is_dir():
        raise ConfigError(f"{sql}: is a folder; the question in SQL comes after it")
    try:
        found = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise ConfigError(_told(error)) from None
    if len(found) != 1:
        raise ConfigError(f"SQL: {len(found)} statements; ask one")
    if found[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise ConfigError(
            f"SQL: {found[0].type.name} is not asked here; runs are only read (SELECT, DESCRIBE, EXPLAIN)"
        )
    return found[0]


def _load(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: Table,
    runs: Sequence[RunResult],
    folder: Path,
    problems: list[str],
) -> None:
    """Fill a table through a file, which is a hundred times as fast as row by row."""
    columns = ", ".join(f"{column} {type}" for column, type in table.columns.items())
    connection.execute(f"CREATE TABLE {name} ({columns})")
    file, longest = folder / f"{name}.jsonl", 0
    with file.open("wb") as out:
        for row in table.rows(runs, problems):
            # halves of surrogate pairs are no text elsewhere
            line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            longest = max(longest, len(line))
            out.write(line)
    if longest:
        connection.execute(
            f"INSERT INTO {name} SELECT * FROM "
            "read_json(?, format = 'newline_delimited', columns = ?, maximum_object_size = ?)",
            [str(file), dict(table.columns), longest + 1],
        )
    file.unlink()


def _told(error: Exception) -> str:
    """Return DuckDB's message in one line, without the drawing of where it is."""
    return f"SQL: {' '.join(str(error).split('LINE ', 1)[0].split())}"


def _json(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(v) for v in value]
    if hasattr(value, "as_integer_ratio"):  # a decimal number
        return float(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = printable(" ".join(text[: 4 * _LONG].split()))
    return text if _width(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # here, since most answers do without it

    return cell_len(text)
