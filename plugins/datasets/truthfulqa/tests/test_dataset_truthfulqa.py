"""TruthfulQA from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import DatasetError, Example
from moco_core.options import build
from moco_dataset_truthfulqa import TruthfulQA
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("truthfulqa")


def read(**options: Any) -> dict[str, Example]:
    data = TruthfulQA(build(TruthfulQA.Options, {"path": str(TruthfulQA.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_the_true_option_is_found_wherever_the_seed_puts_it() -> None:
    for seed in range(5):
        found = read(seed=seed)
        assert {p: e.references[0] for p, e in found.items()} == {
            "Does hair grow back thicker when it is shaved?": "No, it only feels coarser at first",
            "How many senses do people have?": "More than five",
            "Do goldfish remember for three seconds only?": "No",
        }
        assert all(e.question.choices[e.answer or 0] == e.references[0] for e in found.values())
        assert all(not e.question.meta for e in found.values())  # the permutation would tell the answer
    places = {read(seed=s)["How many senses do people have?"].answer for s in range(12)}
    assert len(places) > 1


def test_two_true_options_are_an_error(tmp_path: Path) -> None:
    row = {"question": "q", "mc1_targets": {"choices": ["a", "b"], "labels": [1, 1]}}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(DatasetError, match=r"field 'mc1_targets\.labels': expected 2 labels of which one is 1"):
        read(path=str(tmp_path / "x.jsonl"))
