"""``moco new`` and ``moco check``: the commands of plugin authors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from moco_core.catalogue import Catalogue, installed
from moco_core.cli.common import named
from moco_core.discovery import distribution_name
from moco_toolkit_authoring.scaffold import MADE, copy_run, render

LIMIT = 120.0
"""As :data:`moco_toolkit_authoring.suite.LIMIT`, which help does not import."""

__all__ = ["check_command", "new_command"]


@click.command("check")
@click.argument("words", nargs=-1, metavar="[KIND] NAME")
@click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Register the plugins of a Python file (repeatable).",
)
@click.option(
    "--wheel",
    type=click.Path(path_type=Path, exists=True),
    help="A wheel, or the folder of a plugin to build one from: check it in a fresh environment with the core alone.",
)
@click.option("--limit", type=float, default=LIMIT, show_default=True, help="Seconds that one check may take.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def check_command(
    words: tuple[str, ...], plugin_files: tuple[Path, ...], wheel: Path | None, limit: float, as_json: bool
) -> int:
    """Run the conformance checks of a plugin's kind. Exits 1 if a check fails.

    \b
    moco check cascade
    moco check --wheel .
    """
    if (wheel is None) == (not words):
        raise click.UsageError("give the name of a plugin, or --wheel PATH")
    if wheel is not None:
        from moco_toolkit_authoring.wheels import check_wheel

        return check_wheel(wheel, click.echo)
    from moco_toolkit_authoring import run_checks

    catalogue = installed()
    for path in plugin_files:
        catalogue.register_file(path)
    kind, name = _meant(catalogue, words)
    if kind == "command":
        catalogue.plugin_info(kind, name)
    else:
        catalogue.load(kind, name)
    shown = sys.stderr.isatty()

    def show(check: str) -> None:
        if shown:
            click.echo(f"\r\x1b[K{check} ...", nl=False, err=True)

    results = run_checks(kind, name, catalogue=catalogue, limit=limit, on_start=show)
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        rows = [{"check": r.name, "status": r.status, "message": r.message} for r in results]
        click.echo(json.dumps(rows, indent=1))
    else:
        for result in results:
            message = f": {result.message}" if result.message else ""
            click.echo(f"{result.status:8} {result.name}{message}")
    failed = [r for r in results if not r.ok]
    if not as_json:
        click.echo(f"{len(results) - len(failed)} of {len(results)} checks hold")
    return 1 if failed else 0


def _meant(catalogue: Catalogue, words: tuple[str, ...]) -> tuple[str, str]:
    """Return the (kind, name) of ``[KIND] NAME``, commands included: by that word, or where nothing else has the name."""
    if len(words) == 2 and words[0] == "command":
        return words[0], words[1]
    kind, name = named(catalogue, words)
    free = len(words) == 1 and name not in catalogue.plugins(kind)
    return ("command", name) if free and name in catalogue.plugins("command") else (kind, name)


@click.command("new")
@click.argument("kind", type=click.Choice([*MADE, "run"]))
@click.argument("name")
@click.option(
    "--in", "target", type=click.Path(path_type=Path), help="Where to put it  [default: ./moco-KIND-NAME, ./NAME.yaml]"
)
def new_command(kind: str, name: str, target: Path | None) -> None:
    """Scaffold a complete plugin: package, README, tests that already run the conformance checks. Or, with `run`, copy the
    run configuration NAME that ships with MoCo: demo, text_level, token_level, weight_level, one_method,
    grid, local_data, learning, trained_text, everything,
    bad_members.

    \b
    moco new method my_idea
    cd moco-method-my-idea && pip install -e '.[test]' && moco check my_idea && python -m pytest
    moco new run demo && moco bench demo.yaml
    """
    if kind == "run":
        target = target or Path(f"{name}.yaml")
        copy_run(name, target)
        click.echo(f"{target}: written")
        click.echo(f"next: moco plan {target} && moco bench {target}")
        return
    target = target or Path(distribution_name(kind, name))
    written = render(kind, name, target)
    click.echo(f"{target}: {len(written)} files")
    # the runner belongs to the plugin's own extra, and is run as a module so that no other environment's is found
    click.echo(f"next: pip install -e '{target}[test]' && moco check {kind} {name} && python -m pytest {target}")
