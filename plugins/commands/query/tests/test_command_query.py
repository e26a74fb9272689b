"""Runs asked in SQL: what is found equals what the folders hold, and a query reaches nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eight_questions import register

import moco_core as moco
from moco_core import (
    RunResult,
    cli,
    read_records,
)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> moco.Results:
    """The runs of two single models and of a vote, in ``runs``."""
    register(monkeypatch, tmp_path)
    return moco.run(pool="said", method="majority_vote", dataset="eight", dev=0)


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def query(capsys: Any) -> Told:
    def told(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli._run(["query", *map(str, args)])
        got = capsys.readouterr()
        return code, got.out, got.err

    return told


def rows(query: Told, *args: object) -> list[dict[str, Any]]:
    code, out, err = query(*args, "--json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_runs_have_the_facts_of_their_folders(runs: moco.Results, query: Told) -> None:
    found = {row["label"]: row for row in rows(query, "SELECT * FROM runs")}
    assert {label: row["score"] for label, row in found.items()} == {
        "a": 0.5,
        "b": 0.75,
        "majority_vote": found["majority_vote"]["score"],
    }
    for run in runs.runs:
        row, head = found[run.label], json.loads((run.folder / "run.json").read_text())
        assert (row["run"], row["role"], row["dataset"], row["metric"]) == (
            str(run.folder),
            run.role,
            "eight",
            "exact_match",
        )
        assert (row["low"], row["high"], row["n"]) == tuple(head["score"][k] for k in ("low", "high", "n"))
        assert (row["calls"], row["prompt_tokens"]) == (run.calls, run.usage.prompt_tokens)
        assert row["config"] == head["config"] and row["source"] is None and row["started"].startswith("20")


def test_units_questions_and_calls_join(runs: moco.Results, query: Told) -> None:
    sql = "SELECT subset, avg(score) AS mean, count(*) AS n FROM units WHERE run = '{}' GROUP BY subset ORDER BY subset"
    # b is right on 1 to 6: of the even ones 2, 4, 6, of the odd ones 1, 3, 5
    assert rows(query, sql.format(runs["b"].folder)) == [{"subset": s, "mean": 0.75, "n": 4} for s in "xy"]
    found = rows(
        query, "runs",
        "SELECT r.label, count(*) AS n FROM calls c JOIN runs r USING (run) JOIN questions q USING (run, id)"
        " WHERE q.score = 0 GROUP BY r.label ORDER BY 1",
    )  # fmt: skip
    wrong = {r.label: [row for row in read_records(r.folder) if row["score"] == 0] for r in runs.runs}
    assert found == [{"label": label, "n": sum(len(r["calls"]) for r in wrong[label])} for label in sorted(wrong)]


def test_questions_and_calls_hold_what_was_said(runs: moco.Results, query: Told) -> None:
    folder = runs["a"].folder
    (row,) = rows(query, folder, "SELECT * FROM questions WHERE id = 'q5'")
    (record,) = (r for r in read_records(folder) if r["id"] == "q5")
    assert (row["number"], row["expected"], row["answer"], row["calls"]) == (5, ["1"], "0", 1)
    assert row["reply"] == record["reply"]["text"] and row["meta"] == record["reply"]["meta"]
    (call,) = rows(query, folder, "SELECT said, seen->'$.messages[0][1]' AS asked FROM calls WHERE id = 'q5'")
    assert call == {"said": record["calls"][0]["said"], "asked": record["calls"][0]["seen"]["messages"][0][1]}


def test_people_get_a_table(runs: moco.Results, query: Told) -> None:
    code, out, _ = query("SELECT label, score, NULL AS gone FROM runs WHERE role = 'baseline' ORDER BY score")
    assert code == 0 and out.splitlines() == ["label  score  gone", "a        0.5", "b       0.75", "(2 rows)"]
    assert query("SELECT label FROM runs WHERE false")[1].splitlines() == ["label", "(0 rows)"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM read_text('/etc/passwd')", "FROM '/etc/passwd'",
        "SELECT * FROM glob('*')", "SELECT * FROM read_json('https://example.org/x.json')",
        "SELECT * FROM sqlite_scan('calls.sqlite', 'x')",
        "COPY runs TO 'out.csv'", "EXPORT DATABASE 'out'", "ATTACH 'out.db'", "INSTALL httpfs", "LOAD json",
        "SET enable_external_access = true", "PRAGMA database_list", "CREATE TABLE out AS SELECT 1", "DELETE FROM runs",
        "DROP TABLE runs", "CALL pragma_version()", "SELECT 1; DROP TABLE runs", "SELECT getenv('HOME')",
        "SELEC 1", "SELECT x FROM runs", "", "SELECT 1 +",
    ],
)  # fmt: skip
def test_what_is_no_question_about_runs_is_one_line_and_touches_nothing(
    runs: moco.Results, query: Told, sql: str
) -> None:
    before = sorted(p for p in Path().rglob("*"))
    code, out, err = query("runs", sql)
    assert (code, out) == (2, "") and err.startswith("error: SQL: ") and len(err.splitlines()) == 1
    assert sorted(p for p in Path().rglob("*")) == before


def test_explaining_and_describing_are_reading(runs: moco.Results, query: Told) -> None:
    assert [row["name"] for row in rows(query, "SHOW TABLES")] == ["calls", "questions", "runs", "units"]
    assert {row["column_name"] for row in rows(query, "DESCRIBE units")} == {"run", "id", "subset", "score"}
    assert query("EXPLAIN SELECT * FROM runs")[0] == 0


def test_json_is_plain_whatever_the_types(runs: moco.Results, query: Told) -> None:
    (row,) = rows(
        query,
        "SELECT 1 AS a, 2 AS a, 'nan'::DOUBLE AS b, 1.5::DECIMAL(4, 2) AS c, DATE '2001-09-09' AS d, [1, NULL] AS e, "
        "{'x': 1} AS f",
    )
    assert row == {"a": 1, "a_2": 2, "b": None, "c": 1.5, "d": "2001-09-09", "e": [1, None], "f": {"x": 1}}


def test_any_script_and_any_control_character_goes_through_and_steers_no_terminal(
    runs: moco.Results, query: Told
) -> None:
    folder, said = runs["a"].folder, "\x1b[2J مرحبا 模型 🎉 nul\x00 \u202e half \ud800" + "x" * 2_000_000
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    lines[0]["reply"]["text"] = said
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (row,) = rows(query, folder, "SELECT reply FROM questions WHERE number = 0")
    assert row["reply"].encode("utf-8") == said.encode("utf-8", "replace")
    out = query(folder, "SELECT reply FROM questions WHERE number = 0")[1]
    assert (
        not {"\x1b", "\x00", "\u202e"} & {*out} and len(out.splitlines()) == 3 and max(map(len, out.splitlines())) <= 60
    )


def test_damaged_parts_are_named_and_the_rest_is_asked(runs: moco.Results, query: Told) -> None:
    records = runs["a"].folder / "records.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join([lines[0][:30], '{"index": 1, "calls": 3, "reply": []}', *lines[2:]]) + "\n")
    (runs["b"].folder / "run.json").write_text("{")
    code, out, err = query("SELECT count(*) AS n FROM questions", "--json")
    assert code == 1 and json.loads(out) == [{"n": 7 + 8}]
    assert (
        len(err.splitlines()) == 2 and "records.jsonl: line 1 is damaged" in err and "run.json: cannot be read" in err
    )


def test_killed_runs_have_what_they_left(runs: moco.Results, query: Told) -> None:
    folder = runs["a"].folder
    head = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(
        json.dumps({k: v for k, v in head.items() if k != "score"} | {"status": "running"})
    )
    (folder / "units.jsonl").unlink()
    sql = "SELECT status, score, (SELECT count(*) FROM questions) AS recorded FROM runs"
    assert rows(query, folder, sql) == [{"status": "interrupted", "score": None, "recorded": 8}]
    assert RunResult.read(folder).units == ()


def test_places_without_runs_are_one_line(runs: moco.Results, query: Told) -> None:
    Path("empty").mkdir()
    for args, line in (
        (("absent", "SELECT 1"), "error: absent: no such folder"),
        (("empty", "SELECT 1"), "error: empty: holds no run"),
        (("runs",), "error: runs: is a folder; the question in SQL comes after it"),
    ):
        code, out, err = query(*args)
        assert (code, out) == (2, "") and err.startswith(line) and len(err.splitlines()) == 1


def test_help_imports_nothing_heavy_and_a_query_no_engine(runs: moco.Results) -> None:
    code = (
        "import sys\n"
        "from moco_core.cli import _run\n"
        "def heavy(*names):\n"
        "    return [m for m in sys.modules if m.split('.')[0] in names or m.startswith(('moco_method_', 'moco_pool_'))]\n"
        "assert _run(['query', '--help']) == 0\n"
        "assert not heavy('torch', 'numpy', 'rich', 'yaml', 'duckdb', 'moco_toolkit_comparison')\n"
        "assert _run(['query', 'SELECT label FROM runs']) == 0\n"
        "assert not heavy('torch', 'transformers', 'rich', 'yaml'), heavy('torch', 'transformers', 'rich', 'yaml')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
