"""Threads that first use the library at the same time: one imports it and opens the engine, the others wait."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TOGETHER = """
import sys
import threading

import torch

from moco_core import build
from moco_pool_transformers.pool import Options, TransformersPool

engine = TransformersPool(build(Options, {"models": ["any"]})).engine
start, opened, failed = threading.Barrier(3), [], []
threading.excepthook = lambda caught: failed.append(caught.exc_value)

def serve():
    start.wait()
    opened.append(engine.residency)

def respond():
    start.wait()
    while "transformers" not in sys.modules:  # it is there once its import has begun
        pass
    import moco_toolkit_decoding.runner

threads = [threading.Thread(target=work) for work in (serve, serve, respond)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(set(map(id, opened))), "engine opened,", failed)

# what only assisted decoding and the detection of objects want is left out, and whoever asks is told the truth
from transformers.utils import is_scipy_available, is_sklearn_available
print([name for name in ("sklearn", "scipy.optimize") if name in sys.modules], is_sklearn_available(), is_scipy_available())
import sklearn.metrics
"""


def test_threads_that_use_it_at_once_find_it_whole_and_one_open_engine() -> None:
    out = subprocess.run([sys.executable, "-c", TOGETHER], capture_output=True, text=True, check=True)
    assert out.stdout == "1 engine opened, []\n[] True True\n", out.stderr


@pytest.mark.parametrize(
    "package",
    ["moco_pool_transformers", "moco_toolkit_checkpoints", "moco_toolkit_decoding", "moco_toolkit_merging"],
)
def test_what_runs_in_threads_imports_transformers_through_one_module(package: str) -> None:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    door = folder / "transformers.py"
    for path in folder.rglob("*.py"):
        if path != door and "testing" not in path.parts:
            lines = path.read_text(encoding="utf-8").splitlines()
            assert not [line for line in lines if line.lstrip().startswith(("import transformers", "from transformers"))]
