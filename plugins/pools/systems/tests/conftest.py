"""Scripted models in a pool that can be named, and runs of them in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest

import moco_core as moco
from moco_core import Model, PoolSource, option
from moco_core.catalogue import installed
from moco_core.types import digest
from moco_toolkit_authoring.scripted import ScriptedCall, ScriptedEngine, scripted_model


@attrs.frozen(kw_only=True)
class SaidOptions:
    models: tuple[str, ...] = option(("a", "b", "c"), help="names")


def say(call: ScriptedCall) -> str:
    """An answer that the model, what it reads and its seed decide."""
    number = int(digest(call.model, call.transcript, call.seed)[:4], 16) % 3
    return f"I am {call.model}. The answer is {number}."


class Said(PoolSource[SaidOptions]):
    """Scripted models."""

    Options = SaidOptions
    engines: ClassVar[list[ScriptedEngine]] = []

    def models(self) -> Sequence[Model]:
        engine = ScriptedEngine()
        self.engines.append(engine)
        return [scripted_model(name, say, engine=engine) for name in self.options.models]


class Calls:
    """What the scripted models of a test were asked."""

    @property
    def history(self) -> list[ScriptedCall]:
        return [call for engine in Said.engines for call in engine.history]

    @property
    def engines(self) -> list[ScriptedEngine]:
        return Said.engines

    @property
    def batches(self) -> list[int]:
        return [size for engine in Said.engines for size in engine.batches]

    @staticmethod
    def say(call: ScriptedCall) -> str:
        return say(call)

    def __len__(self) -> int:
        return len(self.history)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Calls]:
    """Make the pool ``said`` known, with nothing asked so far, and keep cache and runs in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    Said.engines.clear()
    yield Calls()
    Said.engines.clear()


@pytest.fixture
def run(said: Calls) -> Callable[..., dict[str, Any]]:
    """Run methods over a pool on a few questions; return the runs by label."""

    def work(pool: Any, *methods: Any, test: int = 6, dev: int = 4, **config: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"methods": list(methods)} if methods else {}
        results = moco.run(pool=pool, dataset="skills", test=test, dev=dev, **given, **config)
        assert all(r.status == "finished" for r in results.runs), [r.first_error for r in results.runs]
        return {r.label: r for r in results.runs}

    return work
