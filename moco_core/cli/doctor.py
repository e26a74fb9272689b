"""``moco doctor``: is this installation healthy, and if not, what to do."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click

from moco_core.catalogue import installed
from moco_core.cli.common import json_option
from moco_core.cli.keeping import cache_info
from moco_core.cli.screen import printable
from moco_core.config import default_cache_path
from moco_core.discovery import PluginInfo
from moco_core.errors import MocoError
from moco_core.kinds import KINDS
from moco_core.runtime.cache import Cache

Finding = tuple[str, str, str]
"""The verdict (``ok``, ``note`` or ``problem``), what was looked at, and what about it."""


@click.command("doctor")
@json_option
def doctor_command(as_json: bool) -> int:
    """Check Python, packages, plugins, cache, disk, and what plugins look at themselves. Exits 1 if something is broken.

    Every plugin is imported.
    """
    findings = [_python(), *_scripts(), *_packages(), *_plugins(), _cache(), _disk(), *_theirs()]
    if as_json:
        rows = [dict(zip(("state", "what", "detail"), finding, strict=True)) for finding in findings]
        click.echo(json.dumps(rows, indent=1))
    else:
        for state, what, detail in findings:
            click.echo(printable(f"{state:8}{what}: {' '.join(detail.split())}"))
    return 1 if any(state == "problem" for state, _, _ in findings) else 0


def _python() -> Finding:
    return "ok", "python", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"


def _scripts() -> Iterator[Finding]:
    """Yield who else owns the script ``moco``."""
    points = metadata.entry_points(group="console_scripts", name="moco")
    others = sorted({f"{p.dist.name} {p.dist.version}" for p in points if p.dist and p.dist.name != "moco-core"})
    if others:
        yield "problem", "moco", f"the script belongs to {', '.join(others)} too; use moco-core or python -m moco_core"
    first = shutil.which("moco")
    if first and Path(first).parent.resolve() != Path(sys.executable).parent.resolve():
        yield "note", "moco", f"the first on PATH is {first}, of another environment; python -m moco_core is this one"


def _packages() -> Iterator[Finding]:
    """Yield what the installed distributions of MoCo need of others."""
    ours = {info.distribution for kind in KINDS for info in _listed(kind)[0].values() if info.distribution}
    needed: dict[str, set[str]] = {}
    for name in {*ours, "moco-core"}:
        for requirement in metadata.requires(name) or ():
            if "extra ==" not in requirement:
                needed.setdefault(re.split(r"[^\w.-]", requirement, maxsplit=1)[0], set()).add(name)
    for name in ["moco-core", *sorted(n for n in needed if not n.startswith("moco-"))]:
        try:
            yield "ok", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            if importlib.util.find_spec(name.replace("-", "_")) is not None:
                yield "ok", name, "importable, from a distribution of another name"
            else:
                yield (
                    "problem",
                    name,
                    f"not installed, but {', '.join(sorted(needed[name]))} needs it; pip install {name}",
                )


def _listed(kind: str) -> tuple[dict[str, PluginInfo], str]:
    """Return the plugins of a kind, or none and why they cannot be listed."""
    try:
        return installed().plugins(kind), ""
    except MocoError as error:
        return {}, str(error)


def _plugins() -> Iterator[Finding]:
    for kind in KINDS:
        plugins, conflict = _listed(kind)
        if conflict:
            yield "problem", f"{kind}s", conflict
            continue
        yield "ok" if plugins else "note", f"{kind}s", f"{len(plugins)} installed"
        bad = {name: info.problem for name, info in plugins.items() if info.problem}
        for name in plugins:
            try:
                installed().load(kind, name)
            except MocoError as error:
                bad[name] = str(error)
        for name, why in bad.items():
            yield "problem", f"{kind} {name}", why


def _cache() -> Finding:
    path = default_cache_path(os.environ)
    place = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not path.exists() and not os.access(place, os.W_OK):
        return "problem", "cache", f"{place} cannot be written; choose another with --cache or MOCO_CACHE"
    if not path.exists():
        return "ok", "cache", f"{path} (empty)"
    try:
        cache = Cache(path)
        found = cache_info(cache)
        cache.close()
    except MocoError as error:
        return "problem", "cache", str(error)
    if found.read_only:
        return "problem", "cache", f"{path} cannot be written, only read; choose another with --cache or MOCO_CACHE"
    return "ok", "cache", f"{path}, {found.calls:,} calls, {found.bytes / 2**20:.1f} MiB"


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return "ok" if free > 2**30 else "problem", "disk", f"{free / 2**30:.1f} GiB free here"


def _theirs() -> Iterator[Finding]:
    """Yield what installed distributions look at themselves."""
    plugins, conflict = _listed("doctor")
    if conflict:
        yield "problem", "doctor", conflict
    for info in plugins.values():
        try:
            yield from list(installed().entry(info)())
        except Exception as error:
            yield "problem", info.name, f"{info.distribution} cannot look: {type(error).__name__}: {error}"
