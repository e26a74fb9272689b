"""``moco doctor``: is this installation healthy, and if not, what to do."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

import attrs
import click

from moco_core.catalogue import installed
from moco_core.cli.common import json_option
from moco_core.config import default_cache_path
from moco_core.errors import MocoError
from moco_core.kinds import KINDS
from moco_core.runtime.cache import Cache

__all__ = ["doctor_command"]


@attrs.frozen
class Finding:
    """One thing that was looked at; ``state`` is ok, note or problem."""

    state: str
    what: str
    detail: str


@click.command("doctor")
@click.option("--import-all", is_flag=True, help="Also import every plugin (slow).")
@json_option
def doctor_command(import_all: bool, as_json: bool) -> int:
    """Check Python, packages, plugins, devices, cache and sandbox. Exits 1 if something is broken."""
    findings = [_python(), *_packages(), *_plugins(import_all), _cache(), _sandbox(), _disk()]
    if as_json:
        click.echo(json.dumps([attrs.asdict(f) for f in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.state:8}{finding.what}: {finding.detail}")
    return 1 if any(f.state == "problem" for f in findings) else 0


def _python() -> Finding:
    return Finding("ok", "python", f"{platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores")


def _packages() -> list[Finding]:
    out = []
    for name in ("moco-core", "torch", "transformers", "peft", "vllm", "openai", "datasets", "mergekit"):
        try:
            out.append(Finding("ok", name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            out.append(Finding("note", name, "not installed"))
    if importlib.util.find_spec("torch") is not None:
        out.append(_devices())
    return out


def _devices() -> Finding:
    try:
        import torch

        if torch.cuda.is_available():
            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
            return Finding("ok", "devices", ", ".join(names))
        return Finding("note", "devices", "no GPU; models run on the CPU")
    except Exception as error:
        return Finding("problem", "torch", f"{type(error).__name__}: {error}; reinstall torch")


def _plugins(import_all: bool) -> list[Finding]:
    out: list[Finding] = []
    for kind in KINDS:
        try:
            cards = installed().cards(kind)
        except MocoError as error:
            out.append(Finding("problem", f"{kind}s", str(error)))
            continue
        bad = {n: c.problem for n, c in cards.items() if c.problem}
        if import_all:
            for name in cards:
                try:
                    installed().load(kind, name)
                except MocoError as error:
                    bad[name] = str(error)
        out.append(Finding("ok" if cards else "note", f"{kind}s", f"{len(cards)} installed"))
        out += [Finding("problem", f"{kind} {n}", why) for n, why in bad.items()]
    return out


def _cache() -> Finding:
    path = default_cache_path(os.environ)
    if not path.exists():
        return Finding("ok", "cache", f"{path} (empty)")
    try:
        cache = Cache(path)
        found = cache.info()
        cache.close()
    except MocoError as error:
        return Finding("problem", "cache", str(error))
    return Finding("ok", "cache", f"{path}, {found.calls:,} calls, {found.bytes / 2**20:.1f} MiB")


def _sandbox() -> Finding:
    found = shutil.which("bwrap")
    if found:
        return Finding("ok", "sandbox", f"bubblewrap at {found}")
    return Finding(
        "note", "sandbox", "bubblewrap is absent: code_execution will refuse to run (apt install bubblewrap)"
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    state = "ok" if free > 2**30 else "problem"
    return Finding(state, "disk", f"{free / 2**30:.1f} GiB free here")
