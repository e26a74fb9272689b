"""Imports without what is not used: who is told that it is absent, and for how long."""

from __future__ import annotations

import gc
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from moco_toolkit_checkpoints.importing import uncollected, without

PART = "from helpful_library import has_toys\nif has_toys():\n    import toys\nhas = has_toys()\n"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    package = tmp_path / "helpful_library"
    package.mkdir()
    (package / "__init__.py").write_text("def has_toys(version=None):\n    return True\n")
    (package / "part.py").write_text(PART)
    (tmp_path / "toys.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("helpful_library")
    for name in ("helpful_library", "helpful_library.part", "toys"):
        sys.modules.pop(name, None)


def test_only_what_is_imported_meanwhile_finds_it_absent(library: types.ModuleType) -> None:
    with without(library, "has_toys", "has_what_this_version_does_not_know"):
        part = importlib.import_module("helpful_library.part")
    assert "toys" not in sys.modules and part.has is False and part.has_toys("1.0") is False
    assert library.has_toys() is True and not hasattr(library, "has_what_this_version_does_not_know")
    importlib.import_module("toys")


def test_an_import_that_fails_leaves_the_truth_behind(library: types.ModuleType) -> None:
    with pytest.raises(ModuleNotFoundError), without(library, "has_toys"):
        importlib.import_module("helpful_library.nowhere")
    assert library.has_toys() is True


@pytest.mark.parametrize("collecting", [True, False])
def test_what_is_imported_uncollected_is_never_looked_through_and_the_collector_is_left_as_it_was(collecting: bool) -> None:
    before = gc.isenabled()
    gc.enable() if collecting else gc.disable()
    try:
        with pytest.raises(ImportError), uncollected():
            assert not gc.isenabled()
            kept = [[] for _ in range(1000)]
            raise ImportError
        assert gc.isenabled() is collecting
        assert not {id(each) for each in kept} & {id(each) for each in gc.get_objects()}
    finally:
        gc.unfreeze()
        gc.enable() if before else gc.disable()
