"""AlpacaEval from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from typing import Any

from moco_core import Example
from moco_core.options import build
from moco_dataset_alpacaeval import AlpacaEval
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("alpacaeval")


def read(**options: Any) -> dict[str, Example]:
    data = AlpacaEval(build(AlpacaEval.Options, {"path": str(AlpacaEval.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_replies_of_the_baseline_are_no_references() -> None:
    found = read()
    assert sorted(found) == [
        "How do I boil an egg?",
        "Name three trees that lose their leaves.",
        "Write a line about the sea.",
    ]
    example = found["Write a line about the sea."]
    assert example.references == () and example.question.answer_kind == "open"
    assert example.meta == {"baseline": "The sea is wide and blue.", "generator": "text_davinci_003"}
    assert example.question.text() == "Write a line about the sea." and example.question.subset == "vicuna"


def test_the_official_instructions_have_sizes_of_their_own() -> None:
    assert AlpacaEval(AlpacaEval.Options()).sizes() == (205, 600)
    assert AlpacaEval.hub[0].file == "alpaca_eval.json"
