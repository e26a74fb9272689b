"""MMLU-ProX from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_mmluprox import LANGUAGES, MMLUProX
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("mmluprox", settings=[{}, {"shuffle_choices": True}, {"subset": "de"}])


def read(split: str | None = None, **options: Any) -> dict[str, Example]:
    data = MMLUProX(build(MMLUProX.Options, {"path": str(MMLUProX.fixture_path()), **options}))
    splits = (split,) if split else ("dev", "test")
    return {e.id: e for s in splits for e in data.examples(s)}  # type: ignore[arg-type]


def test_options_end_where_the_source_has_none_and_subsets_are_languages() -> None:
    found = read()
    assert {id: (e.question.subset, e.references) for id, e in found.items()} == {
        "de-1": ("de", ("Rhein",)), "de-2": ("de", ("12",)), "en-1": ("en", ("Rhine",)), "en-2": ("en", ("12",)),
    }  # fmt: skip
    assert found["de-1"].question.choices == ("Elbe", "Rhein", "Oder")
    assert found["de-2"].meta["category"] == "math"


@pytest.mark.parametrize("seed", range(4))
def test_a_question_is_on_one_side_in_all_its_languages(seed: int) -> None:
    sides = [{id.split("-")[1] for id in read(split, seed=seed, dev_size=2, test_size=2)} for split in ("dev", "test")]
    assert all(sides) and not set.intersection(*sides)


def test_there_are_29_languages_and_a_lite_version() -> None:
    assert len(set(LANGUAGES)) == len(MMLUProX.hub) == 29
    data = MMLUProX(build(MMLUProX.Options, {"lite": True, "subset": "wo"}))
    assert [hub.name for hub in data.sources()] == ["li-lab/MMLU-ProX-Lite/wo"]


def test_a_gap_between_options_is_an_error(tmp_path: Path) -> None:
    row = {"question_id": 1, "question": "?", "option_0": "a", "option_2": "b", "answer_index": 0}
    (tmp_path / "en.jsonl").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match=r"en\.jsonl, row 1, field 'option_1': missing; expected two to ten options"):
        read(path=str(tmp_path))
