"""Checks of commands: the repository's own pass, and each broken one fails exactly its check."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from moco_core import Executor
from moco_core.catalogue import Catalogue, installed
from moco_toolkit_authoring import checks_of, run_checks

GOOD = '''"""Say what a thing weighs."""

import click

from moco_core import ConfigError


@click.command("weigh")
@click.argument("thing")
@click.option("--grams", is_flag=True, help="In grams.")
def command(thing: str, grams: bool) -> None:
    """Say what THING weighs."""
    raise ConfigError(f"{thing}: no such thing; name one that is there")
'''
METADATA = """Metadata-Version: 2.4
Name: moco-command-weigh
Version: 0.1.0
Summary: Say what a thing weighs.
Requires-Python: >=3.11
License-Expression: Apache-2.0
Keywords: moco,spec-1,section-look
Requires-Dist: moco-core>=0.1,<0.2

## What it does
## Usage
## Options
## Limits
"""


@pytest.fixture
def laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Catalogue]]:
    """Lay a command out as installed; return a catalogue that sees only it."""

    def make(source: str = GOOD, name: str = "weigh") -> Catalogue:
        package, info = tmp_path / "moco_command_weigh", tmp_path / "moco_command_weigh-0.1.0.dist-info"
        package.mkdir()
        info.mkdir()
        (package / "__init__.py").write_text(source, encoding="utf-8")
        (package / "py.typed").touch()
        (tmp_path / "flax.py").touch()  # stands for a heavy library
        (info / "METADATA").write_text(METADATA, encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[moco.command]\n{name} = moco_command_weigh:command\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.chdir(tmp_path)  # one of them writes a file as it is imported
        importlib.invalidate_caches()
        return Catalogue({}, entry_points=list(metadata.Distribution.at(info).entry_points))

    yield make
    sys.modules.pop("moco_command_weigh", None)
    sys.modules.pop("flax", None)


def told(catalogue: Catalogue, name: str = "weigh") -> dict[str, str]:
    return {r.name: r.message for r in run_checks("command", name, catalogue=catalogue) if not r.ok}


def test_a_good_command_passes_every_check(laid_out: Callable[..., Catalogue]) -> None:
    results = run_checks("command", "weigh", catalogue=laid_out())
    assert [r.name for r in results if r.status != "passed"] == ["installed_metadata_is_current"]  # not an editable one
    assert len(results) == len(checks_of("command"))


BODY = '    raise ConfigError(f"{thing}: no such thing; name one that is there")\n'
ANY_WORD = '@click.command("weigh", context_settings={"ignore_unknown_options": True})'


@pytest.mark.parametrize(
    ("check", "old", "new", "message"),
    [
        ("entry_point_resolves", GOOD, '"""Nothing."""\n\ncommand = 3\n', "the entry point names 3, no click command"),
        ("help_is_shown", '    """Say what THING weighs."""\n', "", "give the command's function a docstring"),
        ("help_is_shown", "import click\n", "import click\n\nraise OSError('no scales')\n", "no scales"),
        ("options_are_documented", ', help="In grams."', "", "options without help: --grams"),
        ("help_is_light", "import click\n", "import click\nimport flax\n", "--help imports flax"),
        ("help_does_nothing_else", "import click\n", "import click\n\nopen('left.txt', 'w').close()\n", "writes left.txt"),
        ("help_does_nothing_else", "import click\n", "import click\n\nclick.echo('hi', err=True)\n", "standard error: hi"),
        ("unknown_options_are_refused", '@click.command("weigh")', ANY_WORD, "leave options to click"),
        ("bad_input_is_told", BODY, "    open(thing).close()\n", 'raises "error: FileNotFoundError'),
        ("bad_input_is_told", BODY, "    click.echo('about a pound')\n", "exit code 0, as if all were well"),
        ("bad_input_is_told", BODY, "    open('log', 'w').close()\n" + BODY, "leaves log behind"),
        ("bad_input_is_told", BODY, "    raise ConfigError(['no', 'none'])\n", "says 2 lines with 'error:', not one"),
    ],
)
def test_each_mistake_fails_its_check_alone(
    laid_out: Callable[..., Catalogue], check: str, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    source = GOOD.replace(old, new)
    if check == "unknown_options_are_refused":
        source = source.replace(BODY, '    raise ConfigError("no such thing")\n')
    found = told(laid_out(source))
    if "no scales" in message:  # it cannot even be imported
        assert found.keys() >= {"entry_point_resolves"} and all("no scales" in text for text in found.values())
        return
    assert list(found) == [check] and message in found[check]


def test_a_name_that_is_taken_is_told(laid_out: Callable[..., Catalogue]) -> None:
    found = told(laid_out(name="run"), "run")
    assert found == {"name_is_free": "moco run is a command already; choose another name"}


@pytest.mark.parametrize("name", sorted(installed().plugins("command")))
def test_the_repositorys_own_commands_pass(name: str) -> None:
    assert told(Catalogue({}), name) == {}


# ---------------------------------------------------------------- executors


class OneByOne(Executor):
    """One run after the other."""

    async def map(self, jobs, run):
        for job in jobs:
            yield await run(job)


class AllAtOnce(Executor):
    """Gives a list, when all is done."""

    async def map(self, jobs, run):
        return [await run(job) for job in jobs]


class Eager(Executor):
    """Writes before it is asked."""

    def map(self, jobs, run):
        Path("started").touch()
        return OneByOne(self.options).map(jobs, run)


@pytest.mark.parametrize(
    ("cls", "message"),
    [(OneByOne, None), (AllAtOnce, "map() returns coroutine"), (Eager, "map() writes files before it is asked")],
)
def test_an_executor_yields_as_runs_end(catalogue: Catalogue, cls: type, message: str | None) -> None:
    catalogue.register(cls, "sample")
    found = {r.name: r.message for r in run_checks("executor", "sample", catalogue=catalogue) if not r.ok}
    assert list(found) == ([] if message is None else ["map_yields_as_runs_end"])
    assert message is None or message in found["map_yields_as_runs_end"]
