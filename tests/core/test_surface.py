"""The names of ``import moco_core``: one list, looked up when a name is used."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import moco_core

STUB = Path(moco_core.__file__).with_suffix(".pyi")


def listed():
    body = ast.parse(STUB.read_text(encoding="utf-8")).body
    return [
        (node.module, alias.name, alias.asname)
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


def test_every_name_that_type_checkers_see_is_there_at_run_time_and_the_same():
    names = listed()
    assert len(names) > 50 and all(name == shown for _, name, shown in names)  # "as" makes a name public in a stub
    for module, name, _ in names:
        assert getattr(moco_core, name) is getattr(importlib.import_module(module), name)
    assert sorted(n for _, n, _ in names) == moco_core.__all__ and set(moco_core.__all__) <= set(dir(moco_core))
    with pytest.raises(AttributeError, match="module 'moco_core' has no attribute 'Methd'"):
        moco_core.Methd  # noqa: B018


def test_import_moco_core_imports_nothing_more_and_its_names_one_by_one():
    code = """
import sys, moco_core
before = {m for m in sys.modules if "moco" in m}
moco_core.Sampling
print(before, "moco_core.api" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'moco_core'} False"
