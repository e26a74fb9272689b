"""``moco list``, ``moco show``, ``moco check`` and ``moco new``: everything about plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from moco_core.cli.common import json_option, known_plugins, plugin_option
from moco_core.kinds import KINDS

__all__ = ["check_command", "list_command", "new_command", "show_command"]

_KINDS = click.Choice(KINDS)


@click.command("list")
@click.argument("kind", required=False, type=_KINDS)
@plugin_option
@json_option
def list_command(kind: str | None, plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """List the installed plugins, from their metadata alone: nothing is imported."""
    catalogue = known_plugins(plugin_files)
    kinds = [kind] if kind else list(KINDS)
    cards = [card for k in kinds for card in catalogue.cards(k).values()]
    if as_json:
        rows = [
            {
                "kind": c.kind,
                "name": c.name,
                "level": c.level,
                "summary": c.summary,
                "distribution": c.distribution,
                "version": c.version,
                "problem": c.problem,
            }
            for c in cards
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    width = max((len(c.name) for c in cards), default=0)
    for k in kinds:
        mine = [c for c in cards if c.kind == k]
        click.echo(f"{k}s ({len(mine)})")
        for card in mine:
            level = f"{card.level:7}" if k == "method" else ""
            note = f"  [{card.problem}]" if card.problem else ""
            click.echo(f"  {card.name:{width}}  {level}{card.summary}{note}")


@click.command("show")
@click.argument("words", nargs=-1, required=True, metavar="[KIND] NAME")
@plugin_option
@json_option
def show_command(words: tuple[str, ...], plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """Show one plugin: what it is, its options, defaults, ranges and the paper's values.

    \b
    moco show method cascade
    moco show cascade
    """
    from moco_core.cli.showing import show_lines, show_rows

    kind, name, catalogue = *_named(words, plugin_files), known_plugins(())
    cls = catalogue.load(kind, name)
    if as_json:
        click.echo(json.dumps(show_rows(catalogue.card(kind, name), cls), indent=1, default=str))
        return
    for line in show_lines(catalogue.card(kind, name), cls):
        click.echo(line)


def _named(words: tuple[str, ...], plugin_files: tuple[Path, ...]) -> tuple[str, str]:
    """Return (kind, name) from ``[KIND] NAME``."""
    from moco_core.errors import ConfigError

    catalogue = known_plugins(plugin_files)
    if len(words) == 2:
        if words[0] not in KINDS:
            raise ConfigError(f"{words[0]!r} is no kind of plugin; the kinds are {', '.join(KINDS)}")
        return words[0], words[1]
    if len(words) > 2:
        raise ConfigError("expected [KIND] NAME")
    found = [k for k in KINDS if words[0] in catalogue.cards(k)]
    if len(found) > 1:
        raise ConfigError(f"{words[0]!r} is a {' and a '.join(found)}; say which: moco show {found[0]} {words[0]}")
    return (found[0] if found else "method"), words[0]


@click.command("check")
@click.argument("words", nargs=-1, required=True, metavar="[KIND] NAME")
@plugin_option
@json_option
def check_command(words: tuple[str, ...], plugin_files: tuple[Path, ...], as_json: bool) -> int:
    """Run the conformance kit of a plugin's kind. Exits 1 if a check fails."""
    from moco_toolkit_authoring import run_checks

    kind, name = _named(words, plugin_files)
    catalogue = known_plugins(())
    catalogue.load(kind, name)
    results = run_checks(kind, name, catalogue=catalogue)
    if as_json:
        click.echo(json.dumps([_check_row(r) for r in results], indent=1))
    else:
        for result in results:
            message = f": {result.message}" if result.message else ""
            click.echo(f"{result.status:8} {result.name}{message}")
    failed = [r for r in results if not r.ok]
    if not as_json:
        click.echo(f"{len(results) - len(failed)} of {len(results)} checks hold")
    return 1 if failed else 0


def _check_row(result: Any) -> dict[str, Any]:
    return {"check": result.name, "status": result.status, "message": result.message}


@click.command("new")
@click.argument("kind", type=click.Choice([*KINDS, "run"]))
@click.argument("name")
@click.option(
    "--in", "target", type=click.Path(path_type=Path), help="Where to put it  [default: ./moco-KIND-NAME, ./NAME.yaml]"
)
def new_command(kind: str, name: str, target: Path | None) -> None:
    """Scaffold a complete plugin: package, README, tests that already run the conformance kit. Or, with `run`, copy the
    run configuration NAME that ships with MoCo: demo, token_level, weight_level, one_method, grid, local_data.

    \b
    moco new method my_idea
    cd moco-method-my-idea && pip install -e '.[test]' && moco check my_idea && python -m pytest
    moco new run demo && moco bench demo.yaml
    """
    from moco_core.catalogue import distribution_name
    from moco_toolkit_authoring.scaffold import copy_run, render

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
