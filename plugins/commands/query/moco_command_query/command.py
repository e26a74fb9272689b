"""``moco query``: read-only SQL over runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import json_option
from moco_core.cli.screen import printable

__all__ = ["query_command"]


@click.command("query")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.argument("sql")
@json_option
def query_command(runs: tuple[Path, ...], sql: str, as_json: bool) -> int:
    """Ask the run folders RUNS (runs), and those below them, one read-only question in SQL (DuckDB's).

    The tables are runs, units, questions and calls; "DESCRIBE calls" shows a table's columns.

    \b
    moco query "SELECT label, score FROM runs WHERE dataset = 'gsm8k' ORDER BY score"
    moco query runs "SELECT model, count(*), sum(completion_tokens) FROM calls GROUP BY model" --json
    """
    from moco_command_query.asking import ask
    from moco_toolkit_comparison.loading import load_runs

    found, problems = load_runs(runs or [Path("runs")])
    answer = ask(found, sql, problems)
    if as_json:
        click.echo(printable(json.dumps(answer.data(), indent=1, ensure_ascii=False, allow_nan=False)))
    else:
        for line in answer.lines():
            click.echo(line)
    for problem in problems:
        click.echo(printable(f"error: {problem}"), err=True)
    return 1 if problems else 0
