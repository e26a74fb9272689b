"""``moco export``: what runs came to in the form of other programs, or a fitted system in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import click

from moco_core.cli.common import plugin_option

__all__ = ["export_command"]

TEXTS = ("csv", "markdown", "latex")
FOLDERS = ("jsonl", "every-eval-ever", "figures", "hub-folder")
TABLES = ("systems", "seeds", "subsets", "datasets", "pairs", "costs", "study")


@click.command("export")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "target",
    required=True,
    metavar="FORM|FOLDER",
    help=f"One of {', '.join(TEXTS + FOLDERS)}; or a new folder.",
)
@click.option(
    "-f",
    "--file",
    "place",
    type=click.Path(path_type=Path),
    help="File or folder to write  [default: a text to standard output]",
)
@click.option(
    "--table",
    type=click.Choice(TABLES),
    default="systems",
    show_default=True,
    help="Which table (csv, markdown, latex).",
)
@click.option(
    "--force", is_flag=True, help="Compare runs of different datasets, questions, metrics or versions (tables, figures)."
)
@click.option("--organization", default="unknown", show_default=True, help="Who provides the data (every-eval-ever).")
@plugin_option
def export_command(
    runs: tuple[Path, ...],
    target: str,
    place: Path | None,
    table: str,
    force: bool,
    organization: str,
    plugin_files: tuple[Path, ...],
) -> int:
    """Write what RUN folders (and those below them) came to in the form of other programs; or one RUN's system to a folder.

    \b
    moco export runs --to csv -f results.csv
    moco export runs --to latex --table pairs
    moco export runs --to figures -f figures                      # forest and Pareto, as PDF and SVG
    moco export runs/skills-dare_ties-s0-1a2b3c4d --to merged     # a checkpoint
    moco export runs/skills-cascade-s0-5e6f7a8b --to cascade      # a system, for moco.open
    """
    from moco_core import ConfigError, suggest

    if target not in TEXTS + FOLDERS or target == "hub-folder":
        if target == "hub-folder":
            folder = _folder(place, target)
        elif not Path(target).exists() and (near := suggest(target, TEXTS + FOLDERS)):
            raise ConfigError(f"--to {target}: no such form{near} (a folder of that name is ./{target})")
        elif len(runs) == 1 and runs[0].is_dir() and not (runs[0] / "system").is_dir():
            forms = ", ".join(TEXTS + FOLDERS)
            raise ConfigError(f"--to {target}: no such form ({forms}), and {runs[0]} has no system to write to a folder")
        else:
            folder = Path(target)
        return _system(runs, folder, plugin_files)
    return _results(runs, target, place, table, force, organization)


def _system(runs: tuple[Path, ...], folder: Path, plugin_files: tuple[Path, ...]) -> int:
    from moco_command_export.exporting import export
    from moco_core import ConfigError
    from moco_core.cli.common import known_plugins

    if len(runs) > 1:
        raise ConfigError(f"--to {folder}: a folder holds the system of one run, {len(runs)} are given")
    click.echo(f"{folder}: {export(runs[0], folder, known_plugins(plugin_files))}", err=True)
    return 0


def _results(
    runs: tuple[Path, ...], form: str, place: Path | None, table: str, force: bool, organization: str
) -> int:
    from moco_core.cli.screen import printable
    from moco_toolkit_comparison.loading import comparable, load_runs

    found, problems = load_runs(runs)
    # samples and logs say what each run did; tables and figures compare
    differences = [] if form in ("jsonl", "every-eval-ever") else comparable(found, force, side_by_side=True)
    if form in TEXTS:
        from moco_command_export.tables import text_of

        text = text_of(found, table, form)
        if place is None:
            click.echo(text, nl=False)
        else:
            _write(place, text)
    else:
        folder, said = _folder(place, form), list[str]()
        if form == "jsonl":
            from moco_command_export.samples import write_samples as write
        elif form == "figures":
            from moco_command_export.figures import write_figures as write
        else:
            from moco_command_export.every_eval import write_logs

            said = write_logs(found, folder, organization)
        if form != "every-eval-ever":
            said = write(found, folder)
        for line in said:
            click.echo(printable(line), err=True)
    for difference in differences:
        click.echo(printable(f"not comparable: {difference}"), err=True)
    for problem in problems:
        click.echo(printable(f"error: {problem}"), err=True)
    return 1 if problems else 0


def _folder(place: Path | None, form: str) -> Path:
    from moco_core import ConfigError

    if place is None:
        raise ConfigError(f"--to {form}: writes several files; name their folder with -f FOLDER")
    if place.is_file():
        raise ConfigError(f"-f {place}: is a file; name a folder")
    return place


def _write(place: Path, text: str) -> None:
    from moco_core import StoreError

    try:
        place.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise StoreError(f"{place}: cannot be written: {error.strerror or error}") from None
