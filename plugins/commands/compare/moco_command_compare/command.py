"""``moco compare``: what one run repaired and broke of another."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import json_option
from moco_core.cli.screen import printable

__all__ = ["compare_command"]


@click.command("compare")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option(
    "--list",
    "cell",
    type=click.Choice(["repaired", "broken", "both-right", "both-wrong", "not-compared"]),
    help="Also list the questions that are so.",
)
@click.option("--force", is_flag=True, help="Compare runs of different datasets, questions, metrics or versions.")
@json_option
def compare_command(base: Path, other: Path, cell: str | None, force: bool, as_json: bool) -> int:
    """Compare the run folder OTHER with BASE, question by question.

    \b
    moco compare runs/skills-single-a-s0-5e6f7a8b runs/skills-cascade-s0-1a2b3c4d --list broken
    """
    from moco_command_compare.pairs import listed, pair_of, run_of
    from moco_core import ConfigError
    from moco_toolkit_comparison import comparable

    runs = [run_of(base), run_of(other)]
    if base.resolve() == other.resolve():
        raise ConfigError(f"{other}: is the run that it is to be compared with; name two")
    differences, problems = comparable(runs, force), list[str]()
    pair = pair_of(*runs)
    if as_json:
        click.echo(printable(json.dumps(pair.data() | {"differences": differences}, indent=1, ensure_ascii=False)))
    else:
        for line in (*pair.lines(), *(listed(pair, cell, problems) if cell else ())):
            click.echo(printable(" ".join(line.splitlines())))
    for difference in differences:
        click.echo(printable(f"not comparable: {difference}"), err=True)
    for problem in problems:
        click.echo(printable(f"error: {problem}"), err=True)
    return 1 if problems else 0
