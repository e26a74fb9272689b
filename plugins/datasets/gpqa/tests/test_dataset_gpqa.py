"""GPQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_gpqa import GPQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("gpqa", settings=[{}, {"config": "extended", "seed": 3}])


def read(**options: Any) -> dict[str, Example]:
    data = GPQA(build(GPQA.Options, {"path": str(GPQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_white_space_is_stripped_and_the_order_is_seeded_and_recorded() -> None:
    given = {
        "recFixture1": ("6 N", "5 N", "1.5 N", "9 N"),
        "recFixture2": ("carbon dioxide", "oxygen", "hydrogen", "chlorine"),
        "recFixture3": ("transfer RNA", "messenger RNA", "DNA", "DNA"),
    }
    for example in read().values():
        order = example.meta["permutation"]
        assert example.question.choices == tuple(given[example.id][i] for i in order)
        assert example.answer == order.index(0) and example.references == given[example.id][:1]
        assert example.question.prompt == example.question.prompt.strip() and not example.question.meta
    assert {e.id: e.question.subset for e in read().values()}["recFixture2"] == "Chemistry"


def test_another_seed_gives_another_order() -> None:
    orders = {tuple(read(seed=s)["What carries amino acids to the ribosome?"].meta["permutation"]) for s in range(8)}
    assert len(orders) > 1


@pytest.mark.parametrize(("config", "sizes"), [("diamond", (99, 99)), ("main", (224, 224)), ("extended", (273, 273))])
def test_each_collection_is_its_own_configuration(config: str, sizes: tuple[int, int]) -> None:
    data = GPQA(build(GPQA.Options, {"config": config}))
    assert data.hub[0].config == f"gpqa_{config}" and data.sizes() == sizes and data.facts.gated


def test_a_missing_file_says_how_to_unlock_the_source(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"accept the terms at https://huggingface\.co/datasets/Idavidrein/gpqa, then run"
    ):
        read(path=str(tmp_path / "gpqa"))


def test_a_source_whose_terms_are_not_accepted_says_what_unlocks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **keywords: Any) -> None:
        raise type("GatedRepoError", (Exception,), {})("403 Client Error.\nCannot access gated repo")

    module = types.ModuleType("datasets")
    module.load_dataset = refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    with pytest.raises(DatasetError) as caught:
        next(GPQA(GPQA.Options()).examples("test"))
    assert str(caught.value) == (
        "Idavidrein/gpqa is gated: accept its terms at https://huggingface.co/datasets/Idavidrein/gpqa, "
        "then run: hf auth login"
    )
