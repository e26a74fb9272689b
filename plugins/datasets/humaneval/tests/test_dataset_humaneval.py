"""HumanEval from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from own_programs import code_execution

from moco_core import Example
from moco_core.options import build
from moco_dataset_humaneval import HumanEval
from moco_toolkit_authoring import dataset_checks


def solved(example: Example) -> str:
    return f"```python\n{example.question.meta['prefix']}{example.meta['solution']}```"


test_conformance = dataset_checks("humaneval", gold=solved, metric=code_execution())


def read(**options: Any) -> dict[str, Example]:
    data = HumanEval(build(HumanEval.Options, {"path": str(HumanEval.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


CANONICAL = {
    "Fixture/0": "    return x + 2\n",
    "Fixture/1": "    return helper(s) == s\n",
    "Fixture/2": "    return values[0] if values else None\n",
}


def test_the_program_of_prefix_solution_and_test_runs_to_its_end() -> None:
    for example in read().values():
        prefix = example.question.meta["prefix"]
        assert example.question.prompt == f"Complete the following code\n{prefix}"
        assert example.meta["solution"] == CANONICAL[example.id]
        exec(compile(prefix + CANONICAL[example.id] + example.meta["test"], example.id, "exec"), {})
        with pytest.raises(AssertionError):
            exec(compile(prefix + "    return 12345\n" + example.meta["test"], example.id, "exec"), {})


def test_the_entry_point_is_not_the_helper(tmp_path: Path) -> None:
    found = {e.id: e.meta["entry_point"] for e in read().values()}
    assert found == {"Fixture/0": "plus_two", "Fixture/1": "is_mirror", "Fixture/2": "first"}
    # the study's rows lost entry point and solution: the function is the last one of the prompt
    rows = []
    for example in read().values():
        test = example.meta["test"].rpartition("\ncheck(")[0]
        rows.append(
            {"split": "test", "id": example.id, "input": example.question.prompt, "test": test, "language": "python"}
        )
    (tmp_path / "humaneval.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    study = HumanEval(HumanEval.Options(path=str(tmp_path)))
    lost = {e: attrs.evolve(x, meta={k: v for k, v in x.meta.items() if k != "solution"}) for e, x in read().items()}
    assert {e.question.prompt: e for e in study.examples("test")} == lost


def test_indentation_is_kept_to_the_letter() -> None:
    assert read()[
        'Complete the following code\n\n\ndef first(values: list) -> object:\n    """Return the first value, or None."""\n'
    ]
