"""What a plugin comes to in another process, which orders sets and hashes differently."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any, NoReturn
from unittest import mock

from moco_core.catalogue import Catalogue
from moco_core.options import plain
from moco_core.types import digest
from moco_toolkit_authoring.suite import Case, NotApplicable, require

__all__ = ["PATIENCE", "require_no_hash_order"]

PATIENCE = 120.0
"""Seconds that the processes may take together."""
_CODE = "from moco_toolkit_authoring.elsewhere import _main; _main()"
_SEEDS = 3
"""How many orders are tried where the first process tells something else than this one."""


def require_no_hash_order(case: Case, what: str) -> None:
    """Fail if :meth:`Case.tell` tells something else in a process with other hashes; ``what`` is what it tells.

    A process makes the case of the plugin's name and options, with the usual plan. NotApplicable where it cannot, or where
    it always tells the same, which then is not what is told here: a test stands in for something that the plugin reads.
    """
    facts, here = json.dumps(_facts(case)), digest(case.tell())
    ours = os.environ.get("PYTHONHASHSEED", "random")
    told = set()
    for seed in [s for s in map(str, range(1, _SEEDS + 2)) if s != ours][:_SEEDS]:
        told.add(_told(facts, seed))
        if told == {here}:
            return
        if digest(case.tell()) != here:
            raise NotApplicable("it tells something else every time")
        require(len(told) == 1, f"{what} depend on the order of a set or on hash(); sort, or use moco_core.types.digest")
    raise NotApplicable("in a process of its own it always tells something else than here")


def _told(facts: str, seed: str) -> str:
    path = os.pathsep.join(p for p in sys.path if p)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, facts],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE / _SEEDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotApplicable("it takes long in a process of its own") from None
    if done.returncode or not done.stdout:
        raise NotApplicable(f"it cannot be run in a process of its own: {(done.stderr.splitlines() or ['?'])[-1]}")
    return done.stdout.strip()


def _facts(case: Case) -> dict[str, Any]:
    facts = {"kind": case.kind, "name": case.name, "given": plain(case.given)}
    facts |= {part: [type(of).__module__, type(of).__name__] for part, of in (("case", case), ("plan", case.plan))}
    if case.info.distribution:
        return facts
    if getattr(sys.modules.get(case.cls.__module__), case.cls.__name__, None) is not case.cls:
        raise NotApplicable(
            f"{case.cls.__qualname__} is made while its module runs, and no other process finds it: define it at the top "
            "level of its file, or package it"
        )
    return facts | {"file": inspect.getsourcefile(case.cls) or "", "class": [case.cls.__module__, case.cls.__name__]}


def _main() -> None:
    facts = json.loads(sys.argv[1])
    catalogue = Catalogue(os.environ)
    if "class" in facts:
        catalogue.register(_found(facts["file"], *facts["class"]), facts["name"])
    case, plan = (getattr(importlib.import_module(module), name) for module, name in (facts["case"], facts["plan"]))
    with contextlib.redirect_stdout(io.StringIO()):
        told = case(catalogue, facts["kind"], facts["name"], facts["given"], plan()).tell()
    print(digest(told))


def _found(file: str, module: str, name: str) -> type[Any]:
    """Return a class that was registered by hand, by its module's name or else by its file."""
    if module != "__main__":
        with contextlib.suppress(ImportError, AttributeError):
            found: type[Any] = getattr(importlib.import_module(module), name)
            return found
    spec = importlib.util.spec_from_file_location("moco_checked", file)
    assert spec is not None and spec.loader is not None
    loaded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    failed = _define(loaded, spec.loader, file)
    if not hasattr(loaded, name):
        sys.exit(f"{name} is not found in {file}{failed}")
    return getattr(loaded, name)  # type: ignore[no-any-return]


def _define(module: ModuleType, loader: Any, file: str) -> str:
    """Execute a file for what it defines. One that is a script too, and checks what it defines, goes no further than that."""

    def stop(*args: Any, **given: Any) -> NoReturn:
        raise SystemExit

    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(sys, "argv", [file]),
        mock.patch.object(os, "_exit", stop),
        mock.patch("moco_toolkit_authoring.run_checks", stop),
    ):
        try:
            loader.exec_module(module)
        except SystemExit:
            return ""
        except Exception as error:
            return f": {type(error).__name__}: {error}"
    return ""
