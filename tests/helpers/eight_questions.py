"""Two scripted models on eight questions, and their runs: what the commands that read run folders are tried on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import moco_core as moco
from moco_core import Dataset, DatasetFacts, Example, Model, NoOptions, PoolSource, Question, Split
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedCall, ScriptedPool

RIGHT = {"a": range(4), "b": range(1, 7)}
"""Which of eight questions each model gets right: b repairs 4, 5 and 6 and breaks 0."""


class Said(PoolSource[NoOptions]):
    """Scripted models that know some of the answers."""

    def models(self) -> Sequence[Model]:
        def says(call: ScriptedCall) -> str:
            return f"The answer is {int(int(call.prompt.split()[-1][:-1]) in RIGHT[call.model])}."

        return ScriptedPool(dict.fromkeys(RIGHT, says)).models()


class Eight(Dataset[NoOptions]):
    """Eight questions in two subsets, for all of which 1 is right."""

    facts = DatasetFacts(title="Eight", metric="exact_match")

    def examples(self, split: Split) -> Iterator[Example]:
        for i in range(8 if split == "test" else 0):
            question = Question(id=f"q{i}", prompt=f"What is {i}?", answer_kind="integer", subset="xy"[i % 2])
            yield Example(question=question, references=("1",))


def register(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in ``folder``, with a cache of its own, where the pool ``said`` and the dataset ``eight`` are known."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MOCO_CACHE", str(folder / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    moco.register(Eight, "eight")
