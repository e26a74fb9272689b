"""WikiDYK from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_core.testing import dataset_checks
from moco_dataset_wikidyk import WikiDYK

test_conformance = dataset_checks("wikidyk")


def read(**options: Any) -> dict[str, Example]:
    data = WikiDYK(build(WikiDYK.Options, {"path": str(WikiDYK.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_years_are_subsets_and_the_fact_is_never_shown() -> None:
    found = read()
    assert {p: (e.references[0], e.question.subset) for p, e in found.items()} == {
        "Which bridge in Northby was moved by ten metres in one night?": ("Mill Bridge", "2022"),
        "Who painted only with her left hand after 1901?": ("Ada Brook", "2023"),
        "What grows on the roof of Westhall station?": ("wild thyme", "2023"),
    }
    assert not any(e.references[0] in e.question.text() or e.question.meta for e in found.values())


def test_an_empty_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": "q", "answer": " ", "fact": "f", "date": "2022"}))
    with pytest.raises(DatasetError, match=r"x\.jsonl, row 1, field 'answer': empty text"):
        read(path=str(tmp_path / "x.jsonl"))
