"""What several subcommands share: options, the catalogue, consoles, reading a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moco_core.catalogue import Catalogue, installed

# Everything else is imported inside the functions that use it: `moco list` loads this module and must stay quick.
if TYPE_CHECKING:
    from rich.console import Console

    from moco_core.config import RunConfig

F = TypeVar("F", bound=Callable[..., Any])

override_option = click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, e.g. -o method.rounds=3 -o test=200 (repeatable).",
)
plugin_option = click.option(
    "--plugin",
    "plugin_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Register the plugins of a Python file (repeatable).",
)
cache_option = click.option(
    "--cache",
    "cache_path",
    type=click.Path(path_type=Path),
    help="The call cache [default: $MOCO_CACHE or ~/.cache/moco].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def console() -> Console:
    """Return a console for results."""
    from rich.console import Console

    return Console(soft_wrap=True)


def status_console() -> Console:
    """Return a console for progress and remarks; results alone go to stdout."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def known_plugins(files: tuple[Path, ...]) -> Catalogue:
    """Return the catalogue with the plugins of ``--plugin`` files added."""
    for path in files:
        installed().register_file(path)
    return installed()


def cache_file(path: Path | None) -> Path:
    from moco_core.config import default_cache_path

    return path or default_cache_path(os.environ)


def read_config(
    source: str | None, extra: Mapping[str, Any], overrides: tuple[str, ...], catalogue: Catalogue
) -> RunConfig:
    """Merge a YAML file, command-line arguments and overrides, and check the result.

    A seed that is given replaces the file's ``seeds``, with a word on stderr.
    """
    from moco_core.config import DEFAULT_POOL, apply_overrides, load_yaml, parse_settings

    data: dict[str, Any] = {}
    lines: dict[str, int] = {}
    name = ""
    if source is not None:
        data, lines = load_yaml(Path(source))
        name = source
    given = {k: v for k, v in extra.items() if v is not None}
    seeds = data.get("seeds")
    if "seed" in given:
        data.pop("seeds", None)
    for kind in ("method", "dataset", "observer"):  # an argument replaces whatever the file says of that kind
        if kind in given or kind + "s" in given:
            data.pop(kind, None)
            data.pop(kind + "s", None)
    data.update(given)
    data.setdefault("pool", DEFAULT_POOL)  # here already, so that -o pool.models=... reaches it
    data = apply_overrides(data, list(overrides))
    if seeds is not None and "seeds" not in data:
        click.echo(f"seed {data['seed']} is run in place of the seeds {seeds} of {name}", err=True)
    return parse_settings(data, catalogue, lines=lines, source=name)


def complete_plugin(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a shell-completion function for the plugin names of a kind."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [n for n in installed().cards(kind) if n.startswith(incomplete)]

    return complete
