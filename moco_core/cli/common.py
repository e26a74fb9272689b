"""What several subcommands share: options, the catalogue, consoles, reading a configuration."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moco_core.catalogue import Catalogue, installed
from moco_core.cli.screen import say
from moco_core.kinds import KINDS

# Everything else is imported inside the functions that use it: `moco list` loads this module and must stay quick.
if TYPE_CHECKING:
    from rich.console import Console

    from moco_core.config import RunConfig
    from moco_core.fields import Lines

F = TypeVar("F", bound=Callable[..., Any])

override_option = click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, e.g. -o method.rounds=3 -o test=200 (repeatable).",
)
field_option = click.option(
    "--field",
    "fields",
    multiple=True,
    metavar="NAME=FIELD",
    help="Say which field of a file given as -d is what, e.g. --field question=text (repeatable).",
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


def named(catalogue: Catalogue, words: Sequence[str]) -> tuple[str, str]:
    """Return the (kind, name) that a person means by ``[KIND] NAME``; an unknown name is taken to be a method's.

    Raises ConfigError if the kind is none, or left out although two kinds have the name.
    """
    from moco_core.errors import ConfigError

    if len(words) == 2:
        if words[0] not in KINDS:
            raise ConfigError(f"{words[0]!r} is no kind of plugin; the kinds are {', '.join(KINDS)}")
        return words[0], words[1]
    if len(words) != 1:
        raise ConfigError("expected [KIND] NAME")
    found = [k for k in KINDS if words[0] in catalogue.plugins(k)]
    if len(found) > 1:
        raise ConfigError(f"{words[0]!r} is a {' and a '.join(found)}; say which: {found[0]} {words[0]}")
    return (found[0] if found else "method"), words[0]


def complete_plugin(kind: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a shell-completion function for the plugin names of a kind."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [n for n in installed().plugins(kind) if n.startswith(incomplete)]

    return complete


class _PoolOption(click.Option):
    """Names the default in its help: the installed pool that is meant to be it."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names = installed().able("pool", "default-pool")
        self.help = f"{self.help}  [default: {names[0]}]" if len(names) == 1 else self.help
        return super().get_help_record(ctx)


def pool_option(help: str) -> Callable[[F], F]:
    """Return the option that names a pool."""
    return click.option("-p", "--pool", cls=_PoolOption, shell_complete=complete_plugin("pool"), help=help)


method_option = click.option(
    "--method", "methods", multiple=True, shell_complete=complete_plugin("method"), help="Method (repeatable)."
)
# What run, bench and plan take, in the order of their help.
_RUN_OPTIONS = (
    click.option(
        "-d",
        "--dataset",
        "datasets",
        multiple=True,
        shell_complete=complete_plugin("dataset"),
        help="Dataset, or a file of questions (repeatable in bench).",
    ),
    pool_option("Pool"),
    click.option("-m", "--metric", shell_complete=complete_plugin("metric"), help="Metric  [default: the dataset's]"),
    click.option("--seed", type=int, help="Seed of sampling, permutations and searches."),
    click.option("--dev", type=int, help="Use the first N dev examples."),
    click.option("--test", type=int, help="Use the first N test examples."),
    click.option("--out", type=click.Path(), help="Where run folders go  [default: runs]"),
    click.option(
        "--observer",
        "observers",
        multiple=True,
        shell_complete=complete_plugin("observer"),
        help="Observer that watches the runs, such as an experiment tracker (repeatable).",
    ),
    click.option("--budget", help="Stop once this is spent now: money, or tokens, such as '500k tokens'."),
    click.option("--prices", type=click.Path(), help="A YAML file: money per million [prompt, completion] tokens, by model."),
    click.option(
        "--controls",
        multiple=True,
        metavar="NAME,...",
        help="Controls of every method: self, equal_budget, placebo (repeatable).",
    ),
    click.option("--wait", is_flag=True, help="Wait where another process writes a run folder, instead of stopping."),
    click.option("--no-baselines", is_flag=True, help="Do not run the single models of the pool."),
    field_option,
    override_option,
    plugin_option,
    cache_option,
    click.option(
        "--columns", multiple=True, metavar="NAME,...", help="Show these columns of the table, however wide (repeatable)."
    ),
    json_option,
)
_SETTINGS = ("pool", "metric", "seed", "dev", "test", "out")


def run_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say what is run."""
    for option in reversed(_RUN_OPTIONS):
        command = option(command)
    return command


def one_or_many(kind: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the configuration key of plugins given by name; singular for one, so that -o dataset.path=... reaches it."""
    return {kind: names[0]} if len(names) == 1 else {f"{kind}s": list(names)} if names else {}


def configured(source: str | None, named: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[Catalogue, RunConfig]:
    """Return the plugins known to a command, and what it is asked to run; ``given`` are its :func:`run_options`."""
    catalogue = known_plugins(given["plugin_files"])
    extra = {**{key: given[key] for key in _SETTINGS}, **named}
    if given["no_baselines"]:
        extra["baselines"] = False
    if given["wait"]:
        extra["wait"] = True
    if given["budget"] is not None:
        extra["budget"] = given["budget"]
    if given["prices"] is not None:
        from moco_core.cli.reading import load_yaml

        extra["prices"] = load_yaml(Path(given["prices"]))[0]
    if controls := [name.strip() for part in given["controls"] for name in part.split(",") if name.strip()]:
        extra["controls"] = controls
    extra |= one_or_many("observer", given["observers"])
    return catalogue, read_config(source, extra, given["overrides"], catalogue, given["fields"])


def console() -> Console:
    """Return a console for results."""
    from rich.console import Console

    return Console(soft_wrap=True)


def status_console() -> Console:
    """Return a console for progress and remarks; results alone go to stdout."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def warn(warnings: Iterable[str]) -> None:
    """Tell a person what is worth a warning, each once."""
    status = status_console()
    for text in dict.fromkeys(warnings):
        say(status, f"warning: {text}")


def known_plugins(files: tuple[Path, ...]) -> Catalogue:
    """Return the catalogue with the plugins of ``--plugin`` files added; tell a person what they are called."""
    catalogue = installed()
    for path in files:
        names = ", ".join(f"{kind} {name}" for kind, name in catalogue.register_file(path))
        if sys.stderr.isatty():
            say(status_console(), f"{path}: {names}")
    return catalogue


def cache_file(path: Path | None) -> Path:
    from moco_core.config import default_cache_path

    return path or default_cache_path(os.environ)


def read_config(
    source: str | None,
    extra: Mapping[str, Any],
    overrides: Sequence[str],
    catalogue: Catalogue,
    fields: Sequence[str] = (),
) -> RunConfig:
    """Merge a YAML file or an earlier run, command-line arguments and overrides, and check the result.

    ``fields`` are NAME=FIELD, for the datasets of the command line. A seed that is given replaces the file's ``seeds``, with
    a word on stderr.
    """
    from moco_core.cli.overrides import apply_overrides
    from moco_core.config import default_pool, parse_settings
    from moco_core.fields import Lines

    data, lines = ({}, Lines()) if source is None else _read_source(Path(source), catalogue)
    given = {k: v for k, v in extra.items() if v is not None}
    seeds = data.get("seeds")
    if "seed" in given:
        data.pop("seeds", None)
    for kind in ("method", "dataset", "observer"):  # an argument replaces whatever the file says of that kind
        if kind in given or kind + "s" in given:
            data.pop(kind, None)
            data.pop(kind + "s", None)
    for key in given:
        lines.forget(key)
    data.update(given)
    if "pool" not in data:  # here already, so that -o pool.models=... reaches it
        data["pool"] = default_pool(catalogue)
    if fields:
        overrides = [*(f"dataset.{field}" for field in fields), *overrides]
    data = apply_overrides(data, overrides, lines)
    config = parse_settings(data, catalogue, lines=lines, source=source or "")
    if seeds is not None and "seeds" not in data:
        click.echo(f"seed {data['seed']} is run in place of the seeds {seeds} of {source}", err=True)
    for dataset in config.datasets:
        if found := dataset.instance.notes().get("guessed") if dataset.given.get("guess") else None:
            said = ", ".join(f"{name}={value}" for name, value in found.items())
            click.echo(f"{dataset.given['path']}: guessed {said}; --field NAME=FIELD says otherwise", err=True)
    return config


def is_source(text: str) -> bool:
    """Return whether a text names a configuration, not a method: a YAML or JSON file, or what a run left."""
    path = Path(text)
    return text.endswith((".yaml", ".yml", ".json")) or "/" in text or path.is_file() or (path / "run.json").is_file()


def _read_source(path: Path, catalogue: Catalogue) -> tuple[dict[str, Any], Lines]:
    if path.is_dir() or path.name == "run.json":
        from moco_core.cli.again import configuration
        from moco_core.errors import ConfigError, StoreError
        from moco_core.fields import Lines

        try:
            return configuration(path if path.is_dir() else path.parent), Lines()
        except StoreError as error:  # here it is what was asked for that is wrong
            raise ConfigError(str(error)) from None
    from moco_core.cli.reading import load_yaml

    data, lines = load_yaml(path)
    for info in catalogue.plugins("reader").values() if path.suffix == ".json" else ():
        found = catalogue.entry(info)(data, path)
        if found is not None:  # another program's: its paths start from where it is run, as there
            data, remarks = found
            for remark in remarks:
                click.echo(f"{path}: {remark}", err=True)
            return data, type(lines)()
    return data, lines
