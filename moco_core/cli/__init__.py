"""The ``moco`` command. Each subcommand's module is imported when it is used, so that help and listing are quick.

Distributions add subcommands: an entry point in the group ``moco.command`` whose name is the subcommand and whose value
names a click command, as ``module:command``. The distribution's summary is its help; its keyword ``section-look`` (or
another of :data:`SECTIONS`) says where ``moco --help`` lists it.
"""

from __future__ import annotations

import atexit
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

SECTIONS = ("try", "run", "look", "publish", "maintain")
"""What people do, in the order of ``moco --help``."""

_COMMANDS = {
    "list": ("try", "moco_core.cli.plugins", "List the installed plugins."),
    "show": (
        "try",
        "moco_core.cli.plugins",
        "Show one plugin: what it is, its options, defaults, ranges and the paper's values.",
    ),
    "ask": ("try", "moco_core.cli.asking", "Ask one question; --messages shows who said what."),
    "plan": (
        "run",
        "moco_core.cli.planning",
        "Resolve everything and check it; predict calls and memory; run nothing.",
    ),
    "run": (
        "run",
        "moco_core.cli.running",
        "Fit a method on the dev split, answer the test split, compare with the single models.",
    ),
    "bench": ("run", "moco_core.cli.running", "Run a grid of methods, datasets and seeds over one pool; one table."),
    "new": ("publish", "", "Scaffold a plugin of your own."),
    "check": ("publish", "", "Run the conformance checks on a plugin."),
    "cache": ("maintain", "moco_core.cli.caching", "Look into the call cache, explain misses, prune it."),
    "doctor": ("maintain", "moco_core.cli.doctor", "Check this installation and say what is wrong with it."),
}
"""Section, module and help of the commands that the core knows; those without a module come with its extra ``authoring``."""


_SLOW = ("ask", "plan", "run", "bench")


class _Commands(click.Group):
    """A group that knows its commands' names and one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, _, _ in _described()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name, ("", "", ""))[1]
        if module:
            if cmd_name in _SLOW and sys.stderr.isatty():  # imports, plugins and data take their time in silence
                sys.stderr.write("starting\r")  # whatever comes next stands over it
                sys.stderr.flush()
            command = getattr(importlib.import_module(module), f"{cmd_name}_command")
            assert isinstance(command, click.Command)
            return command
        from moco_core.catalogue import installed
        from moco_core.errors import BrokenPlugin, UnknownPlugin

        info = installed().plugins("command").get(cmd_name)
        if info is None:
            if cmd_name in _COMMANDS:
                raise UnknownPlugin(f"moco {cmd_name} is not installed; pip install 'moco-core[authoring]'")
            return None
        found = installed().entry(info)
        if not isinstance(found, click.Command):
            raise BrokenPlugin(
                f"command {cmd_name!r} ({info.distribution} {info.version}) is {found!r}, no click command"
            )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(_described())
        width = max(len(name) for name, _, _ in rows)
        for section in SECTIONS:
            mine = [(name.ljust(width), text) for name, its, text in rows if its == section]
            if mine:
                with formatter.section(section.capitalize()):
                    formatter.write_dl(mine)


def _described() -> Iterator[tuple[str, str, str]]:
    """Yield name, section and help of every command, those of other distributions last; nothing is imported."""
    from moco_core.catalogue import installed

    plugins = installed().plugins("command")
    for name, (section, module, text) in _COMMANDS.items():
        yield name, section, text if module or name in plugins else f"{text} (pip install 'moco-core[authoring]')"
    for name, info in plugins.items():
        if name not in _COMMANDS:
            section = next((s for s in SECTIONS if f"section-{s}" in info.keywords), "look")
            yield name, section, f"{info.summary} [{info.problem}]" if info.problem else info.summary


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moco-core", prog_name="moco")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Several language models working as one.

    \b
    moco list                                what is installed
    moco run METHOD --dataset DATASET        one method, compared with every single model
    moco bench templates/runs/demo.yaml      a grid of methods
    moco ask METHOD "What is 3 + 4?"         one question, no files

    Shell completion: eval "$(_MOCO_COMPLETE=bash_source moco)" (or zsh_source, fish_source).
    """
    ctx.obj = {"debug": debug}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 failed run, 2 usage or configuration error, 130 interrupted.

    SIGTERM and SIGHUP (a batch system's time is up, the terminal is gone) end a run as Ctrl-C does.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP: so do we
            signal.signal(number, _interrupt)
    codes: list[int] = []
    if args is None:  # the command, not a program that calls it
        atexit.register(_end, codes)
    codes.append(_run(list(sys.argv[1:] if args is None else args)))
    sys.exit(codes[0])


def _end(codes: Sequence[int]) -> None:
    """End the process at once: Python would take thousands of modules apart first, for a second or two.

    What was registered first is called last: all else that had to be done at exit is done.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # nobody reads, or the disk is full: Python says so
    if codes:
        os._exit(codes[0])


def _interrupt(number: int, frame: object) -> None:
    """Do what Ctrl-C does: an event loop has taken SIGINT over by then; a job in the background ignores it."""
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL):
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


def _run(args: list[str]) -> int:
    from_env = bool(os.environ.get("MOCO_DEBUG"))
    debug = from_env or "--debug" in args
    try:
        result: Any = cli.main(args=args, prog_name="moco", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as stop:
        if not isinstance(stop.__cause__, KeyboardInterrupt):  # the answer to a question was no
            click.echo("nothing was done", err=True)
            return 1
        click.echo("stopped; run the same command again to go on where it was", err=True)
        return 130
    except BrokenPipeError:
        # the reader (head, less) has gone: say nothing, and keep the interpreter from flushing into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        from moco_core.cli.screen import printable
        from moco_core.errors import MocoError

        if debug:
            raise
        if isinstance(error, MocoError):
            for line in str(error).splitlines() or [type(error).__name__]:
                click.echo(printable(f"error: {line}"), err=True)
            return error.exit_code
        line = f"error: {type(error).__name__}: {' '.join(str(error).split())} (moco --debug shows where)"
        click.echo(printable(line), err=True)
        return 1
    return result if isinstance(result, int) else 0
