"""Checks of commands: ``moco NAME`` is reached, helps quickly, and tells what is wrong in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import click

from moco_core.cli import cli
from moco_core.errors import PluginConflict
from moco_toolkit_authoring import common
from moco_toolkit_authoring.suite import Case, Check, check, require

__all__ = ["CHECKS", "CommandCase", "CommandPlan"]

_TRIALS: Mapping[str, list[str]] = {
    "help": ["--help"],
    "option": ["--no-such-option"],
    "input": ["no-such-thing"],
}
_PROBE = """
import contextlib, io, json, os, sys
from moco_core.cli import main
name, trials, heavy = json.load(sys.stdin)
told = {}
for trial, words in trials.items():
    out, err, before = io.StringIO(), io.StringIO(), set(os.listdir())
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([name, *words])
        except SystemExit as end:
            code = end.code
    told[trial] = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "new": sorted(set(os.listdir()) - before)}
    told[trial]["heavy"] = [module for module in heavy if module in sys.modules]
print(json.dumps(told))
"""
"""A process of its own tries the command as a shell would, in an empty folder; what it imported so far is told with each."""


@attrs.frozen(kw_only=True)
class CommandPlan:
    """What the checks of commands work with: nothing beyond the plugin."""


class CommandCase(Case):
    """One command."""

    @property
    def cls(self) -> Any:
        """The click command."""
        return self.catalogue.entry(self.info)

    def tried(self, trial: str) -> dict[str, Any]:
        """Return what came of a trial: exit code, what was said where, and the files it made."""
        told: dict[str, dict[str, Any]] = self.once("tried", self._try)
        return told[trial]

    def _try(self) -> dict[str, dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            paths = os.pathsep.join(p for p in sys.path if p)
            done = subprocess.run(
                [sys.executable, "-c", _PROBE],
                input=json.dumps([self.name, _TRIALS, common.HEAVY]),
                capture_output=True,
                text=True,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "120"},
                check=False,
            )
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        require(done.returncode == 0, f"trying it ends with exit code {done.returncode}: {last}")
        told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        return told


def _options(command: click.Command, path: str) -> Iterator[tuple[str, click.Option]]:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield path, parameter
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _options(inner, f"{path} {name}")


def _errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"(^|: )error: ", line, re.IGNORECASE)]


@check(per_setting=False)
def entry_point_resolves(case: CommandCase) -> None:
    """The entry point imports and names a click command."""
    require(isinstance(case.cls, click.Command), f"the entry point names {case.cls!r}, no click command")
    require(re.fullmatch(r"[a-z][a-z0-9_-]*", case.name), f"the name {case.name!r} is not one that is typed: small letters")


@check(per_setting=False)
def name_is_free(case: CommandCase) -> None:
    """The name is neither a command of the core's nor one of another distribution's: `moco NAME` reaches it."""
    try:
        command = case.cls
    except PluginConflict as conflict:
        raise AssertionError(str(conflict)) from None
    reached = cli.get_command(click.Context(cli), case.name)
    require(reached is None or reached is command, f"moco {case.name} is a command already; choose another name")


@check(per_setting=False, after=["name_is_free", "entry_point_resolves"])
def help_is_shown(case: CommandCase) -> None:
    """`--help` ends with exit code 0 and says what the command does."""
    told = case.tried("help")
    require(told["code"] == 0, f"--help ends with exit code {told['code']!r}: {told['err'].strip()[-200:]}")
    usage, _, rest = told["out"].partition("\n")
    words = rest.partition("Options:")[0].strip()
    require(usage.lower().startswith("usage:") and words, "--help says nothing; give the command's function a docstring")


@check(per_setting=False, after=["entry_point_resolves"])
def options_are_documented(case: CommandCase) -> None:
    """Every option has help."""
    bare = [f"{path} {o.opts[0]}".strip() for path, o in _options(case.cls, "") if not (o.help or "").strip() and not o.hidden]
    require(not bare, f"options without help: {', '.join(bare)}")


@check(per_setting=False, after=["help_is_shown"])
def help_is_light(case: CommandCase) -> None:
    """`--help` imports neither torch nor any other heavy library."""
    heavy = case.tried("help")["heavy"]
    require(not heavy, f"--help imports {', '.join(heavy)}; import them where the command's work begins")


@check(per_setting=False, after=["help_is_shown"])
def help_does_nothing_else(case: CommandCase) -> None:
    """`--help` writes no file, and nothing to standard error."""
    told = case.tried("help")
    require(not told["new"], f"--help writes {', '.join(told['new'])}; nothing is to happen as the module is imported")
    require(not told["err"], f"--help writes to standard error: {told['err'].strip()[:200]}")


@check(per_setting=False, after=["help_is_shown"])
def unknown_options_are_refused(case: CommandCase) -> None:
    """An unknown option ends with exit code 2 and one line that names it."""
    told = case.tried("option")
    lines = _errors(told["err"])
    named = len(lines) == 1 and "--no-such-option" in lines[0]
    require(
        told["code"] == 2 and named,
        f"--no-such-option ends with exit code {told['code']!r}, saying {told['err'].strip()[-200:]!r}; leave options to click",
    )


@check(per_setting=False, after=["help_is_shown"])
def bad_input_is_told(case: CommandCase) -> None:
    """An argument that names nothing ends the command with one line and exit code 1 or 2; no traceback, and no file is left."""
    told, words = case.tried("input"), f"`moco {case.name} no-such-thing`"
    lines = [line for line in told["err"].splitlines() if line.strip()]
    said = lines[-1] if lines else ""
    require(told["code"] in (1, 2), f"{words} ends with exit code {told['code']!r}, as if all were well")
    own = "Traceback" not in told["err"] and not said.endswith("(moco --debug shows where)")
    require(own, f"{words} raises {said!r}; raise ConfigError with one line that says what to do")
    count = len(_errors(told["err"]))
    require(count == 1, f"{words} says {count} lines with 'error:', not one")
    require(not told["new"], f"{words} leaves {', '.join(told['new'])} behind")


def _alone(case: CommandCase) -> bool:
    """Whether the distribution is the command's own, not a toolkit that brings it along."""
    return "-toolkit-" not in case.info.distribution


CHECKS: tuple[Check, ...] = (
    entry_point_resolves,
    name_is_free,
    help_is_shown,
    options_are_documented,
    help_is_light,
    help_does_nothing_else,
    unknown_options_are_refused,
    bad_input_is_told,
    common.keywords_match_the_class,
    common.distribution_follows_conventions,
    common.package_is_typed,
    attrs.evolve(common.readme_has_its_headings, applies=_alone),
    common.installed_metadata_is_current,
)
