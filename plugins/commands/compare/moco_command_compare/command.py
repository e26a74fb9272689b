"""``moco compare``: what one run repaired and broke of another."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import json_option
from moco_core.cli.screen import printable

__all__ = ["compare_command"]


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(path_type=Path))
@click.option(
    "--list",
    "cell",
    type=click.Choice(["repaired", "broken", "both-right", "both-wrong", "not-compared"]),
    help="Also list the questions that are so (of two runs).",
)
@click.option("--force", is_flag=True, help="Compare runs of different datasets, questions, metrics or versions.")
@json_option
def compare_command(runs: tuple[Path, ...], cell: str | None, force: bool, as_json: bool) -> int:
    """Compare the second RUN folder with the first, question by question; or every two of several, corrected for their number.

    \b
    moco compare runs/skills-single-a-s0-5e6f7a8b runs/skills-cascade-s0-1a2b3c4d --list broken
    moco compare runs/skills-*
    """
    from moco_command_compare.pairs import listed, pair_of, run_of
    from moco_core import ConfigError
    from moco_toolkit_comparison import comparable

    if len(runs) < 2:
        raise ConfigError(f"{runs[0]}: is compared with nothing; name another run")
    found = [run_of(folder) for folder in runs]
    places = [folder.resolve() for folder in runs]
    if again := next((f for i, f in enumerate(runs) if places[i] in places[:i]), None):
        raise ConfigError(f"{again}: is the run that it is to be compared with; name each once")
    differences, problems = comparable(found, force), list[str]()
    if len(runs) > 2:
        from moco_command_compare.grids import grid_of

        if cell:
            raise ConfigError("--list: lists the questions of two runs; name two")
        grid = grid_of(found)
        data, lines = grid.data(), [*grid.lines()]
    else:
        pair = pair_of(*found)
        data, lines = pair.data(), [*pair.lines(), *(listed(pair, cell, problems) if cell else ())]
    if as_json:
        click.echo(printable(json.dumps(data | {"differences": differences}, indent=1, ensure_ascii=False)))
    else:
        for line in lines:
            click.echo(printable(" ".join(line.splitlines())))
    for difference in differences:
        click.echo(printable(f"not comparable: {difference}"), err=True)
    for problem in problems:
        click.echo(printable(f"error: {problem}"), err=True)
    return 1 if problems else 0
