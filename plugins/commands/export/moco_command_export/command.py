"""``moco export``: a fitted system in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import click

from moco_core.cli.common import known_plugins, plugin_option

__all__ = ["export_command"]


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="New folder to write.")
@plugin_option
def export_command(run: Path, target: Path, plugin_files: tuple[Path, ...]) -> None:
    """Write the system of a RUN folder to a folder of its own, with a model card.

    \b
    moco export runs/skills-dare_ties-s0-1a2b3c4d --to merged     # a checkpoint
    moco export runs/skills-cascade-s0-5e6f7a8b --to cascade      # a system, for moco.open
    """
    from moco_command_export.exporting import export

    what = export(run, target, known_plugins(plugin_files))
    click.echo(f"{target}: {what}", err=True)
