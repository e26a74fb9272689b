"""Replies of a table are in two, as every engine gives them: what a model thought, and what it answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moco_pool_recorded.reading import read

CHANNELS = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>B"
BENCH = {"dataset_name": "d", "split": "test", "model_name": "m"}
FORMS: dict[str, Any] = {
    "a row per reply": lambda said: [{"id": "1", "model": "m", "reply": said}],
    "a row per question": lambda said: [{"id": "1", "m": said}],
    "LLMRouterBench": lambda said: {**BENCH, "records": [{"index": 1, "prompt": "q", "raw_output": said}]},
    "RouterBench": lambda said: [{"sample_id": "1", "prompt": "['q']", "m|model_response": f"[{said!r}]", "m": 1}],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=list(FORMS))
@pytest.mark.parametrize(
    ("said", "reasoning", "answer"),
    [("<think>hm</think>B", "hm", "B"), (CHANNELS, "hm", "B"), ("<think>hm", "hm", ""), ("It is B.", "", "It is B.")],
)
def test_what_a_model_thought_is_no_part_of_its_answer(
    tmp_path: Path, form: Any, said: str, reasoning: str, answer: str
) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(form(said)))
    columns = ["m"] if form is FORMS["a row per question"] else []
    (row,) = read(str(path), {}, columns)
    found = row.generation(priced=False)
    assert (found.text, found.reasoning) == (answer, reasoning)
