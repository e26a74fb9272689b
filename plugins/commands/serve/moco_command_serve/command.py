"""``moco serve``: a fitted system behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import click

from moco_core.cli.common import (
    cache_file,
    cache_option,
    complete_plugin,
    known_plugins,
    override_option,
    plugin_option,
    warn,
)

__all__ = ["serve_command"]

KEY = "MOCO_SERVE_KEY"


@click.command("serve")
@click.argument("system", shell_complete=complete_plugin("method"))
@click.option("-p", "--pool", shell_complete=complete_plugin("pool"), help="Pool, if SYSTEM is a method.")
@click.option("-d", "--dataset", help="Fit on this dataset's dev split first (methods that learn from dev).")
@click.option("--dev", type=int, default=50, show_default=True, help="Dev examples to fit on.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the fit and of sampled replies.")
@click.option("--name", help="The model's name for clients  [default: the run's label, or the method's name]")
@click.option("--kind", default="text", show_default=True, help="How answers are read where a request does not say.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need a key.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 takes a free one."
)
@click.option("--key-env", default=KEY, show_default=True, help="Environment variable with the key that clients show.")
@click.option("--max-requests", type=click.IntRange(1), default=256, show_default=True, help="Requests at once.")
@click.option(
    "--max-body", type=click.IntRange(1), default=1 << 20, show_default=True, help="Bytes of a request's body."
)
@click.option("--max-calls", type=click.IntRange(1), default=1000, show_default=True, help="Model calls per reply.")
@click.option("--max-tokens", type=click.IntRange(1), help="Tokens, read and written, per reply  [default: no bound]")
@click.option("--max-depth", type=click.IntRange(1), default=8, show_default=True, help="Systems within systems.")
@click.option("--deadline", type=click.FloatRange(0.1), default=600.0, show_default=True, help="Seconds per request.")
@click.option(
    "--min-responses", type=click.IntRange(1), default=1, show_default=True, help="Members waited for anyway."
)
@click.option(
    "--grace", type=click.FloatRange(0), help="Seconds that other members of a panel have then  [default: all]"
)
@click.option(
    "--keep-alive", type=click.FloatRange(0.1), default=10.0, show_default=True, help="Seconds between comments."
)
@click.option(
    "--replays", type=click.IntRange(0), default=0, show_default=True, help="Transcripts kept for /v1/replays."
)
@override_option
@plugin_option
@cache_option
@click.pass_obj
def serve_command(
    told: Any,
    /,
    system: str,
    pool: str | None,
    dataset: str | None,
    dev: int,
    seed: int,
    name: str | None,
    kind: str,
    host: str,
    port: int,
    key_env: str,
    overrides: tuple[str, ...],
    plugin_files: tuple[Path, ...],
    cache_path: Path | None,
    **bounds: Any,
) -> None:
    """Serve SYSTEM (a run folder, or a method's name, which is fitted first) behind an OpenAI-compatible endpoint.

    \b
    moco serve runs/skills-cascade-s0-1a2b3c4d
    moco serve majority_vote -p tiny --port 8001 --kind integer
    curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' \\
      -d '{"model": "cascade", "messages": [{"role": "user", "content": "What is 3 plus 4?"}]}'

    It ends on Ctrl-C or SIGTERM, when what runs is finished.
    """
    from moco_command_serve.limits import Limits
    from moco_command_serve.server import is_loopback, listen
    from moco_core import ConfigError
    from moco_core.errors import suggest
    from moco_core.types import ANSWER_KINDS

    if kind not in ANSWER_KINDS:
        raise ConfigError(f"--kind {kind}: expected one of {', '.join(ANSWER_KINDS)}{suggest(kind, ANSWER_KINDS)}")
    key = os.environ.get(key_env, "")
    if not key and not is_loopback(host):
        raise ConfigError(f"--host {host}: whoever can reach it needs a key; set the environment variable {key_env}")
    limits = Limits(**{field: bounds[given] for given, field in _BOUNDS.items()})
    given = {"pool": pool, "dataset": dataset}
    opened, known, own = _opened(system, given, dev, seed, overrides, plugin_files, cache_path)
    with listen(host, port) as found:
        debug = bool(isinstance(told, dict) and told.get("debug"))
        asyncio.run(_serve(opened, found, name or own, known, limits, kind, key, host, debug))


_BOUNDS = {
    "max_requests": "requests",
    "max_body": "body",
    "max_calls": "calls",
    "max_tokens": "tokens",
    "max_depth": "depth",
    "deadline": "deadline",
    "min_responses": "min_responses",
    "grace": "grace",
    "keep_alive": "keep_alive",
    "replays": "replays",
}


def _opened(
    system: str,
    given: dict[str, str | None],
    dev: int,
    seed: int,
    overrides: tuple[str, ...],
    plugin_files: tuple[Path, ...],
    cache_path: Path | None,
) -> tuple[Any, dict[str, Any], str]:
    """Return the system, what its run tells of it, and what it is called."""
    from moco_command_serve.card import facts_of
    from moco_core import ConfigError, MocoError, RunResult, api
    from moco_core.cli.overrides import apply_overrides
    from moco_core.config import default_pool

    catalogue, cache = known_plugins(plugin_files), cache_file(cache_path)
    folder = Path(system)
    if folder.is_dir() or "/" in system:
        if overrides or any(given.values()):
            raise ConfigError("a saved system has its pool and options already; drop --pool, --dataset and -o")
        opened = api.open(folder, plugins=catalogue, cache=cache)
        try:
            own = RunResult.read(folder).label
        except MocoError:
            own = type(opened.parts.method).title
        return opened, facts_of(folder), own.replace(" ", "-")
    named = {"method": system, **given, "pool": given["pool"] or default_pool(catalogue)}
    data = apply_overrides({k: v for k, v in named.items() if v is not None}, list(overrides))
    return api.fit(dev=dev, seed=seed, plugins=catalogue, cache=cache, **data), {}, system


async def _serve(
    opened: Any,
    found: socket.socket,
    name: str,
    known: dict[str, Any],
    limits: Any,
    kind: str,
    key: str,
    host: str,
    debug: bool,
) -> None:
    from moco_command_serve.app import make_app
    from moco_command_serve.card import check_members
    from moco_command_serve.server import make_server
    from moco_command_serve.service import Service

    port = found.getsockname()[1]
    async with opened as system:
        warn(system.runtime.cache.warnings)
        service = Service(system, name=name, limits=limits, kind=kind, debug=debug)
        check_members(service, host, port, limits)
        server = make_server(make_app(service, key=key, known=known), limits)
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"{name} is served at http://{shown}:{port}/v1 (Ctrl-C ends it)", err=True)
        await server.serve([found])
    click.echo("stopped; everything that ran is finished", err=True)
