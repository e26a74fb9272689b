"""``moco lm_eval``: lm-eval's own command line, which knows the model ``moco`` then."""

from __future__ import annotations

import sys

import click

__all__ = ["lm_eval_command"]


@click.command(
    "lm_eval", context_settings={"ignore_unknown_options": True, "help_option_names": []}, add_help_option=False
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def lm_eval_command(args: tuple[str, ...]) -> None:
    """Run lm-eval with ARGS, its own; the model `moco` is a fitted system.

    \b
    moco lm_eval run --model moco --model_args system=runs/RUN --tasks gsm8k
    """
    from lm_eval.__main__ import cli_evaluate

    from moco_command_lm_eval.model import register

    register()
    before, sys.argv = sys.argv, ["lm_eval", *args]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
