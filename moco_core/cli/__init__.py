"""The ``moco`` command. Each subcommand's module is imported when it is used, so that help and listing are quick."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import click

__all__ = ["cli", "main"]

_COMMANDS = {
    "run": (
        "moco_core.cli.running",
        "Fit a method on the dev split, answer the test split, compare with the single models.",
    ),
    "bench": ("moco_core.cli.running", "Run a grid of methods, datasets and seeds over one pool; one table."),
    "plan": ("moco_core.cli.planning", "Resolve everything and check it; predict calls and memory; run nothing."),
    "ask": ("moco_core.cli.asking", "Ask one question; --messages shows who said what."),
    "list": ("moco_core.cli.plugins", "List the installed plugins."),
    "show": (
        "moco_core.cli.plugins",
        "Show one plugin: what it is, its options, defaults, ranges and the paper's values.",
    ),
    "check": ("moco_core.cli.plugins", "Run the conformance kit on a plugin."),
    "new": ("moco_core.cli.plugins", "Scaffold a plugin of your own."),
    "cache": ("moco_core.cli.caching", "Look into the call cache, explain misses, prune it."),
    "doctor": ("moco_core.cli.doctor", "Check this installation and say what is wrong with it."),
}


class _Commands(click.Group):
    """A group that knows its commands' names and one-line help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="moco-core", prog_name="moco")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Several language models working as one.

    \b
    moco list                                what is installed
    moco run cascade --dataset skills        one method, compared with every single model
    moco bench templates/runs/demo.yaml      a grid of methods
    moco ask majority_vote "What is 3 + 4?"  one question, no files

    Shell completion: eval "$(_MOCO_COMPLETE=bash_source moco)" (or zsh_source, fish_source).
    """
    ctx.obj = {"debug": debug}


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 success, 1 failed run, 2 usage or configuration error, 130 interrupted."""
    sys.exit(_run(list(sys.argv[1:] if args is None else args)))


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
    except (KeyboardInterrupt, click.Abort):
        click.echo("stopped; run the same command again to go on where it was", err=True)
        return 130
    except BrokenPipeError:
        # the reader (head, less) has gone: say nothing, and keep the interpreter from flushing into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        from moco_core.errors import MocoError

        if debug:
            raise
        if isinstance(error, MocoError):
            for line in str(error).splitlines() or [type(error).__name__]:
                click.echo(f"error: {line}", err=True)
            return error.exit_code
        click.echo(
            f"error: {type(error).__name__}: {' '.join(str(error).split())} (moco --debug shows where)", err=True
        )
        return 1
    return result if isinstance(result, int) else 0
