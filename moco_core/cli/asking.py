"""``moco ask``: one question, one answer, and on request who said what."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import click

from moco_core import api
from moco_core.cli.common import (
    cache_file,
    cache_option,
    complete_plugin,
    console,
    json_option,
    known_plugins,
    override_option,
    plugin_option,
    pool_option,
    status_console,
    warn,
)
from moco_core.cli.display import call_lines, spans_text
from moco_core.cli.overrides import apply_overrides
from moco_core.cli.screen import printable, say
from moco_core.config import default_pool
from moco_core.errors import ConfigError, suggest
from moco_core.runtime.systems import Asked, OpenSystem
from moco_core.types import ANSWER_KINDS, Question


@click.command("ask")
@click.argument("system", shell_complete=complete_plugin("method"))
@click.argument("question")
@pool_option("Pool, if SYSTEM is a method")
@click.option("-d", "--dataset", help="Fit on this dataset's dev split first (methods that learn from dev).")
@click.option("--dev", type=int, default=50, show_default=True, help="Dev examples to fit on.")
@click.option("--choice", "choices", multiple=True, help="Offer a choice (repeatable).")
@click.option("--kind", default="text", show_default=True, help="How to read the answer (text, integer, choice, ...).")
@click.option(
    "--messages", is_flag=True, help="Show every call: who saw what and who said what; colour shared answers."
)
@click.option("--seed", type=int, default=0, show_default=True)
@override_option
@plugin_option
@cache_option
@json_option
def ask_command(
    system: str,
    question: str,
    pool: str | None,
    dataset: str | None,
    dev: int,
    choices: tuple[str, ...],
    kind: str,
    messages: bool,
    seed: int,
    overrides: tuple[str, ...],
    plugin_files: tuple[Path, ...],
    cache_path: Path | None,
    as_json: bool,
) -> None:
    """Ask SYSTEM (a run folder, or a method's name) one QUESTION ('-' reads it from standard input).

    \b
    moco ask runs/RUN "What is 3 plus 4?" --messages
    moco ask METHOD "What is the sum of 41, 2 and 3?" --pool POOL --messages
    """
    catalogue = known_plugins(plugin_files)
    question = _text(sys.stdin.buffer.read() if question == "-" else question, "the question").strip()
    if not question:
        raise ConfigError("the question is empty")
    for number, choice in enumerate(choices, 1):
        _text(choice, f"--choice {number}")
    if kind not in ANSWER_KINDS:
        raise ConfigError(f"--kind {kind}: expected one of {', '.join(ANSWER_KINDS)}{suggest(kind, ANSWER_KINDS)}")
    item = Question(id="ask-0", prompt=question, choices=choices, answer_kind="choice" if choices else kind)
    if Path(system).is_dir():
        if pool or overrides or dataset:
            raise ConfigError("a saved system has its pool and options already; drop --pool, --dataset and -o")
        opened = api.open(system, plugins=catalogue, cache=cache_file(cache_path))
    else:
        named = {"method": system, "pool": pool or default_pool(catalogue), "dataset": dataset}
        data = apply_overrides({k: v for k, v in named.items() if v is not None}, list(overrides))
        opened = api.fit(
            dev=dev, seed=seed, choices=bool(choices), plugins=catalogue, cache=cache_file(cache_path), **data
        )
    _show(asyncio.run(_ask(opened, item)), messages, as_json)


async def _ask(opened: OpenSystem, question: Question) -> Asked:
    with status_console().status(f"opening and asking {len(opened.parts.pool)} models"):  # on a terminal
        async with opened as system:
            warn(system.runtime.cache.warnings)
            return await system.ask(question)


def _text(given: str | bytes, what: str) -> str:
    """Return what was typed or piped as text. Raises ConfigError if it is none; the shell hands odd bytes on as they are."""
    try:
        return (given if isinstance(given, bytes) else given.encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeError:
        raise ConfigError(f"{what} is not text in UTF-8") from None


def _show(asked: Asked, messages: bool, as_json: bool) -> None:
    if as_json:
        body: dict[str, Any] = {
            "text": asked.text,
            "finish": asked.reply.finish_reason,
            "meta": dict(asked.reply.meta),
            "spans": [[s.model, s.text, s.tokens] for s in asked.reply.spans],
        }
        if messages:
            body["calls"] = [
                {"model": c.model, "kind": c.kind, "cached": c.cached, "seen": c.request, "said": c.response}
                for c in asked.calls
            ]
        click.echo(printable(json.dumps(body, indent=1, ensure_ascii=False)))
        return
    out = console()
    if messages:
        for line in call_lines(asked.calls):
            say(out, line)
        say(out, "--- answer")
    if messages and asked.reply.spans:
        text, legend = spans_text(asked.reply.spans)
        out.print(text)
        if not out.is_terminal:
            for span in asked.reply.spans:
                say(out, f"[{span.model}] {span.text!r}")
        for line in legend:
            say(out, line)
    else:
        say(out, asked.text)
    if messages and asked.reply.meta:
        say(out, f"details: {json.dumps(dict(asked.reply.meta), ensure_ascii=False)}")
