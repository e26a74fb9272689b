"""``moco runs``: which runs there are, and how they ended."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import complete_plugin, json_option
from moco_core.cli.screen import printable

__all__ = ["runs_command"]


@click.command("runs")
@click.argument("folder", type=click.Path(path_type=Path), default="runs")
@click.option(
    "--method",
    "methods",
    multiple=True,
    shell_complete=complete_plugin("method"),
    help="Runs of this method or label; 'single' are the single models (repeatable).",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    shell_complete=complete_plugin("dataset"),
    help="Runs on this dataset (repeatable).",
)
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(["finished", "failed", "interrupted", "running"]),
    help="Runs that ended so (repeatable).",
)
@json_option
def runs_command(
    folder: Path, methods: tuple[str, ...], datasets: tuple[str, ...], statuses: tuple[str, ...], as_json: bool
) -> int:
    """List the runs in FOLDER (runs) and below it, the latest last.

    \b
    moco runs --dataset gsm8k --method majority_vote
    moco runs experiments --status interrupted
    """
    from moco_command_runs.listing import find, lines

    runs, problems = find(folder)
    shown = [run for run in runs if run.matches(methods, datasets, statuses)]
    if as_json:
        click.echo(printable(json.dumps([run.data() for run in shown], indent=1, ensure_ascii=False)))
    elif shown:
        click.echo("\n".join(lines(shown)))
    if runs and not shown:
        known = ", ".join(sorted({run.run.label for run in runs})), ", ".join(sorted({run.run.dataset for run in runs}))
        click.echo(printable(f"none of {len(runs)} runs matches; there are runs of {known[0]} on {known[1]}"), err=True)
    for problem in problems:
        click.echo(printable(f"error: {problem}"), err=True)
    return 1 if problems else 0
