"""``moco runs``: which runs there are, and how they ended."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import click

from moco_core.cli.common import complete_plugin, json_option
from moco_core.cli.screen import printable

__all__ = ["runs_command"]

_DATES = click.DateTime(["%Y-%m-%d"])


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
@click.option("--since", type=_DATES, metavar="DATE", help="Runs begun on this day or later (YYYY-MM-DD, local time).")
@click.option("--until", type=_DATES, metavar="DATE", help="Runs begun on this day or earlier.")
@click.option("--min-score", type=float, metavar="SCORE", help="Runs that scored at least this.")
@click.option("--max-score", type=float, metavar="SCORE", help="Runs that scored at most this.")
@json_option
def runs_command(
    folder: Path,
    methods: tuple[str, ...],
    datasets: tuple[str, ...],
    statuses: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    min_score: float | None,
    max_score: float | None,
    as_json: bool,
) -> int:
    """List the runs in FOLDER (runs) and below it, the latest last.

    \b
    moco runs --dataset gsm8k --method majority_vote
    moco runs experiments --status interrupted
    moco runs --since 2026-11-01 --min-score 0.8
    """
    from moco_command_runs.listing import find, lines

    runs, problems = find(folder)
    shown = [
        run
        for run in runs
        if run.matches(methods, datasets, statuses) and run.begun(since, until) and run.scored(min_score, max_score)
    ]
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
