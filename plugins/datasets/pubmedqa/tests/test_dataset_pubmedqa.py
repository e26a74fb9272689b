"""PubMedQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_pubmedqa import PubMedQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("pubmedqa")


def read(**options: Any) -> dict[str, Example]:
    data = PubMedQA(build(PubMedQA.Options, {"path": str(PubMedQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_prompt_is_question_and_abstract_without_the_conclusion() -> None:
    found = {e.id: e for e in read().values()}
    assert found["102"].question.text() == (
        "Question: Do gloves make hands larger?\n\nContext: Hands were measured before and after wearing gloves., "
        "There was no difference {P = 0.9}.\n\nAnswer 'yes', 'no', or 'maybe'."
    )
    assert {i: e.references for i, e in found.items()} == {"101": ("yes",), "102": ("no",), "103": ("maybe",)}
    assert found["101"].question.labels == ("yes", "no", "maybe")
    assert not any("lowers the pulse." in str(e) for e in found.values())


def test_the_official_test_articles_can_be_stated(tmp_path: Path) -> None:
    (tmp_path / "test_ground_truth.json").write_text('{"102": "no"}')
    options = {**PubMedQA.sample(), "test_ids": str(tmp_path / "test_ground_truth.json")}
    data = PubMedQA(PubMedQA.Options(**options))
    assert [e.id for e in data.examples("test")] == ["102"]
    assert sorted(e.id for e in data.examples("dev")) == ["101", "103"]
    with pytest.raises(DatasetError, match="expected a JSON object or list of article ids"):
        PubMedQA(PubMedQA.Options(test_ids=str(tmp_path / "none.json")))


def test_a_decision_outside_the_labels_is_an_error(tmp_path: Path) -> None:
    row = {"pubid": 1, "question": "q", "context": {"contexts": ["c"]}, "final_decision": "perhaps"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match="field 'final_decision': expected one of yes, no, maybe, got 'perhaps'"):
        read(path=str(tmp_path / "x.jsonl"))
