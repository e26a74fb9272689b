"""``moco read``: one run, or one of its questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from moco_core.cli.common import console, json_option
from moco_core.cli.screen import printable

__all__ = ["read_command"]


@click.command("read")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("question", required=False)
@click.option(
    "--list",
    "sort",
    type=click.Choice(["right", "wrong", "failed", "unread", "all"]),
    help="Also list the run's questions that are so.",
)
@json_option
def read_command(run: Path, question: str | None, sort: str | None, as_json: bool) -> int:
    """Show a RUN folder, or who said what for one QUESTION of it (an id, or an index from 0).

    \b
    moco read runs/skills-cascade-s0-1a2b3c4d --list wrong
    moco read runs/skills-cascade-s0-1a2b3c4d 17
    """
    from moco_command_read.records import head_of, record_of
    from moco_core import ConfigError

    if question is not None and sort is not None:
        raise ConfigError("--list lists the questions of a run; drop it or QUESTION")
    found, head = head_of(run)
    if question is None:
        return _show_run(found, head, sort, as_json)
    record = record_of(found, question)
    if as_json:
        _echo(record)
    else:
        from moco_command_read.showing import show_question

        show_question(console(), found, record)
    return 0


def _show_run(run: Any, head: Any, sort: str | None, as_json: bool) -> int:
    """Print a run and, if asked for, its questions of a sort; return 1 if records are damaged."""
    from moco_command_read.records import count, sorts_of
    from moco_command_read.showing import question_line, run_lines
    from moco_core import read_records

    problems: list[str] = []
    counts = count(read_records(run.folder, problems))
    listed = (r for r in (read_records(run.folder, []) if sort else ()) if sort == "all" or sort in sorts_of(r))
    if as_json:
        kept = ("index", "id", "subset", "question", "references", "answer", "score", "error")
        body = {"folder": str(run.folder), **{k: v for k, v in head.items() if k not in ("format", "given")}}
        _echo(body | {"counts": counts} | ({"listed": [{k: r.get(k) for k in kept} for r in listed]} if sort else {}))
    else:
        for line in run_lines(run, head, counts):
            click.echo(line)
        for record in listed:
            click.echo(question_line(record, sorts_of(record)))
    for problem in problems:
        click.echo(printable(f"error: {problem}"), err=True)
    return 1 if problems else 0


def _echo(body: Any) -> None:
    click.echo(printable(json.dumps(body, indent=1, ensure_ascii=False)))
