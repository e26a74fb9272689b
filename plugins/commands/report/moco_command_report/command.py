"""``moco report``: runs as one page that opens from disk."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import json_option
from moco_core.cli.screen import printable

__all__ = ["report_command"]


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="report.html", show_default=True, help="The file."
)
@click.option(
    "--size",
    type=click.FloatRange(min=0, min_open=True),
    default=25.0,
    show_default=True,
    help="At most this many MB; what does not fit of replies and transcripts is left out, and the page says so.",
)
@click.option("--force", is_flag=True, help="Take runs of different datasets, questions, metrics or versions.")
@json_option
def report_command(runs: tuple[Path, ...], out: Path, size: float, force: bool, as_json: bool) -> int:
    """Write RUNS, or all runs below a folder, as one HTML file that needs no network.

    \b
    moco report runs
    moco report runs/skills-* -o skills.html
    """
    from moco_command_report.writing import write_report

    told = write_report(runs, out, size=size, force=force)
    if as_json:
        click.echo(printable(json.dumps(told.data(), indent=1, ensure_ascii=False)))
    else:
        click.echo(printable(told.line()))
    for problem in told.problems:
        click.echo(printable(f"error: {problem}"), err=True)
    for note in told.notes:
        click.echo(printable(f"note: {note}"), err=True)
    return 1 if told.problems else 0
