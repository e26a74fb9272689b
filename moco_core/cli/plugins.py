"""``moco list`` and ``moco show``: what is installed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moco_core.cli.common import json_option, known_plugins, named, plugin_option
from moco_core.kinds import KINDS

_KINDS = click.Choice(KINDS)


@click.command("list")
@click.argument("kind", required=False, type=_KINDS)
@click.option("--can", "capability", help="Only pools whose models can do this: step, weights, logprobs, score, ...")
@plugin_option
@json_option
def list_command(kind: str | None, capability: str | None, plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """List the installed plugins, from their metadata alone: nothing is imported."""
    catalogue = known_plugins(plugin_files)
    kinds = ["pool"] if capability else [kind] if kind else list(KINDS)
    plugins = [info for k in kinds for info in catalogue.plugins(k).values()]
    if capability:
        plugins = [info for info in plugins if f"can-{capability}" in info.keywords]
    if as_json:
        rows = [
            {
                "kind": p.kind,
                "name": p.name,
                "level": p.level,
                "summary": p.summary,
                "distribution": p.distribution,
                "version": p.version,
                "problem": p.problem,
            }
            for p in plugins
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    width = max((len(p.name) for p in plugins), default=0)
    for k, contributed in ((k, contributed) for k in kinds for contributed in (False, True)):
        mine = [p for p in plugins if p.kind == k and ("contrib" in p.keywords) == contributed]
        if contributed and not mine:
            continue
        click.echo(f"{k}s{', contributed' if contributed else ''} ({len(mine)})")
        for info in mine:
            level = f"{info.level:7}" if k == "method" else ""
            note = f"  [{info.problem}]" if info.problem else ""
            click.echo(f"  {info.name:{width}}  {level}{info.summary}{note}")


@click.command("show")
@click.argument("words", nargs=-1, required=True, metavar="[KIND] NAME")
@plugin_option
@json_option
def show_command(words: tuple[str, ...], plugin_files: tuple[Path, ...], as_json: bool) -> None:
    """Show one plugin: what it is, its options, defaults, ranges and the paper's values.

    \b
    moco show method NAME
    moco show NAME               what is called so, if only one kind has it
    moco show run                the keys of a run configuration
    """
    from moco_core.cli.showing import run_lines, run_rows, show_lines, show_rows

    if words == ("run",):
        for line in [json.dumps(run_rows(), indent=1, default=str)] if as_json else run_lines():
            click.echo(line)
        return
    catalogue = known_plugins(plugin_files)
    kind, name = named(catalogue, words)
    cls = catalogue.load(kind, name)
    if as_json:
        click.echo(json.dumps(show_rows(catalogue.plugin_info(kind, name), cls), indent=1, default=str))
        return
    for line in show_lines(catalogue.plugin_info(kind, name), cls):
        click.echo(line)
