"""``moco cache``: what is stored, why a run missed it, and how to shrink it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import attrs
import click

from moco_core.cli.common import cache_file, cache_option, json_option
from moco_core.cli.explain import explain_run
from moco_core.cli.keeping import CacheInfo, artifacts_below, cache_info, parts_of, prune_artifacts
from moco_core.cli.keeping import clear as clear_calls
from moco_core.cli.keeping import prune as prune_calls
from moco_core.cli.screen import printable
from moco_core.errors import ConfigError, MocoError
from moco_core.options import plain
from moco_core.runs.records import read_run
from moco_core.runtime.cache import Cache
from moco_core.runtime.runtime import artifacts_of

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_AGES = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@click.group("cache")
def cache_command() -> None:
    """Look into the call cache, explain misses, prune it."""


def _opened(path: Path, *, to_write: bool = False) -> Cache:
    """Open a cache that is there; looking into one makes none. Raises ConfigError, also for one to write that cannot be."""
    if not path.exists():
        raise ConfigError(f"no call cache at {path}; --cache PATH names another")
    cache = Cache(path)
    if to_write and cache.read_only:
        cache.close()
        raise ConfigError(f"the call cache {path} cannot be written; nothing was deleted")
    return cache


@cache_command.command("info")
@click.option("--out", type=click.Path(path_type=Path), default="runs", help="Run folders that name the models.")
@cache_option
@json_option
def info(out: Path, cache_path: Path | None, as_json: bool) -> None:
    """Show where the cache lies and what it holds. Models are named as the run folders here call them."""
    path = cache_file(cache_path)
    if path.exists():
        cache = Cache(path)
        found = cache_info(cache)
        cache.close()
    else:
        found = CacheInfo(path=path, calls=0, bytes=0, models={})
    names, artifacts = _model_names(out), artifacts_below(artifacts_of(path))
    if as_json:
        body = {"path": str(found.path), "calls": found.calls, "bytes": found.bytes, "models": dict(found.models)}
        body |= {"outdated": dict(found.outdated), "read_only": found.read_only}
        if artifacts:
            body["artifacts"] = [{"kind": a.kind, "bytes": a.bytes, "folder": str(a.folder)} for a in artifacts]
        click.echo(json.dumps({**body, "names": {m: names[m] for m in found.models if m in names}}))
        return
    told = ", cannot be written" if found.read_only else ""
    click.echo(f"{found.path}: {found.calls:,} calls, {found.bytes / 2**20:.1f} MiB{told}")
    for model, count in found.models.items():
        name = f"  {', '.join(names[model])}" if model in names else ""
        click.echo(printable(f"  {model[:16] or 'memoised results'}  {count:,}{name}"))
    if found.outdated:
        which = ", ".join(f"{count:,} of {maker}" for maker, count in found.outdated.items())
        click.echo(printable(f"  no longer read, since a later version is in use: {which}"))
        click.echo("  moco cache prune --outdated deletes them")
    if artifacts:
        size = sum(a.bytes for a in artifacts)
        click.echo(f"{artifacts_of(path)}: {len(artifacts):,} artifacts, {size / 2**20:.1f} MiB")
    for kind, count in Counter(a.kind for a in artifacts).items():
        click.echo(printable(f"  {kind or 'unnamed'}  {count:,}"))


def _model_names(out: Path) -> dict[str, list[str]]:
    """Return what the runs in a folder call the models of each fingerprint."""
    names: dict[str, set[str]] = {}
    for file in out.glob("*/run.json"):
        try:
            for model in read_run(file.parent).get("models", ()):
                names.setdefault(model["fingerprint"], set()).add(model["name"])
        except (MocoError, KeyError, TypeError):
            continue  # a damaged run names nothing
    return {fingerprint: sorted(found) for fingerprint, found in names.items()}


@cache_command.command("show")
@click.argument("key")
@cache_option
def show(key: str, cache_path: Path | None) -> None:
    """Show one stored call by its KEY, as the records of a run state it."""
    try:
        wanted = bytes.fromhex(key)
    except ValueError:
        raise ConfigError(f"{key}: expected the key of a call, hexadecimal digits as in records.jsonl") from None
    cache = _opened(cache_file(cache_path))
    try:
        parts, stored = parts_of(cache, wanted), cache.get_many([wanted]).get(wanted)
    finally:
        cache.close()
    if parts is None or stored is None:
        raise ConfigError(f"no call {key} in {cache_file(cache_path)}")
    body = {**attrs.asdict(parts), "seconds": stored.seconds, "result": plain(stored.value)}
    click.echo(printable(json.dumps(body, indent=1, ensure_ascii=False)))


@cache_command.command("explain")
@click.argument("run", type=click.Path(path_type=Path))
@cache_option
@json_option
def explain(run: Path, cache_path: Path | None, as_json: bool) -> None:
    """Say which calls of a RUN folder were not in the cache, and what differed from the nearest stored call."""
    cache = Cache(cache_file(cache_path))
    try:
        report = explain_run(run, cache)
    finally:
        cache.close()
    if as_json:
        click.echo(json.dumps(report.data(), indent=1))
        return
    for line in report.lines():
        click.echo(printable(line))


@cache_command.command("prune")
@click.option("--outdated", is_flag=True, help="Delete what earlier versions made and is no longer read.")
@click.option("--older-than", metavar="AGE", help="Delete calls older than AGE, and artifacts unused since, e.g. 30d or 12h.")
@click.option("--keep", metavar="SIZE", help="Delete the oldest calls, and artifacts, until each fits SIZE, e.g. 2G.")
@cache_option
def prune(outdated: bool, older_than: str | None, keep: str | None, cache_path: Path | None) -> None:
    """Delete old calls and artifacts (trained weights, fitted heads, graphs)."""
    if not outdated and older_than is None and keep is None:
        raise ConfigError("say what to prune: --outdated, --older-than 30d, --keep 2G, or several of them")
    before = None if older_than is None else time.time() - _amount(older_than, _AGES, "--older-than", "30d")
    size = None if keep is None else int(_amount(keep, _UNITS, "--keep", "2G"))
    path = cache_file(cache_path)
    cache = _opened(path, to_write=True)
    count = prune_calls(cache, outdated=outdated, older_than=before, keep_bytes=size)
    cache.close()
    aged = older_than is not None or keep is not None
    _tell(count, prune_artifacts(artifacts_of(path), older_than=before, keep_bytes=size) if aged else 0)


@cache_command.command("clear")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cache_option
def clear(yes: bool, cache_path: Path | None) -> None:
    """Delete everything."""
    path = cache_file(cache_path)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError("nobody is there to be asked; say --yes to delete every call")
        built = len(artifacts_below(artifacts_of(path)))
        also = f" and the {built:,} artifacts beside it" if built else ""
        click.confirm(f"delete every call in {path}{also}?", abort=True)
    cache = _opened(path, to_write=True)
    count = clear_calls(cache)
    cache.close()
    _tell(count, prune_artifacts(artifacts_of(path), keep_bytes=0))


def _tell(calls: int, artifacts: int) -> None:
    click.echo(f"{calls:,} calls deleted")
    if artifacts:
        click.echo(f"{artifacts:,} artifacts deleted")


def _amount(text: str, units: dict[str, int], option: str, example: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]?)[bB]?\s*", text)
    if match is None or match[2].lower() not in units:
        known = ", ".join(u for u in units if u)
        raise ConfigError(f"{option}: expected a number and a unit ({known}), such as {example}; got {text!r}")
    return float(match[1]) * units[match[2].lower()]
