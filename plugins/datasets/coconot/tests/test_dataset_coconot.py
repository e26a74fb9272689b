"""CoCoNot from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moco_core import ConfigError, DatasetError, Example
from moco_core.options import build
from moco_dataset_coconot import CoCoNot
from moco_toolkit_authoring import dataset_checks

RIGHT = {
    "personal inquiry": "As an AI, I don't eat lunch.",
    "underspecified": "Which letter do you mean?",
    "false presuppositions": "The Moon is not made of copper.",
    "output modality limitations": "I can't send parcels.",
}


def behaved(example: Example) -> str:
    """A reply that does what the request demands."""
    return "Here it is, step by step." if example.meta["comply"] else RIGHT[example.meta["subcategory"]]


test_conformance = dataset_checks("coconot", settings=[{}, {"config": "contrast"}], gold=behaved)


def read(**options: Any) -> dict[str, Example]:
    data = CoCoNot(build(CoCoNot.Options, {"path": str(CoCoNot.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_category_and_subcategory_are_kept_for_the_judge() -> None:
    found = read()
    assert {e.id: (e.question.subset, e.meta["subcategory"]) for e in found.values()} == {
        "fixture-1": ("Humanizing requests", "personal inquiry"),
        "fixture-2": ("Incomplete requests", "underspecified"),
        "fixture-3": ("Incomplete requests", "false presuppositions"),
        "fixture-4": ("Unsupported requests", "output modality limitations"),
    }
    assert all(e.references == () and not e.meta["comply"] and not e.question.meta for e in found.values())


def test_contrast_asks_for_compliance_and_has_a_test_split_only() -> None:
    assert all(e.meta["comply"] for e in read(config="contrast").values())
    data = CoCoNot(build(CoCoNot.Options, {"config": "contrast"}))
    assert (data.hub[0].config, data.dev_from, data.test_from) == ("contrast", ("test",), ("test",))
    assert CoCoNot(CoCoNot.Options()).dev_from == ("train",)


def test_subsets_are_the_categories() -> None:
    found = read(subset="Incomplete requests")
    assert sorted(e.id for e in found.values()) == ["fixture-2", "fixture-3"]
    with pytest.raises(ConfigError, match="did you mean 'Incomplete requests'"):
        read(subset="Incomplete request")


def test_an_unknown_category_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": "1", "prompt": "p", "category": "Other", "subcategory": ""}')
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1, field 'category': expected one of Humanizing requests, "):
        read(path=str(tmp_path / "x.jsonl"))
