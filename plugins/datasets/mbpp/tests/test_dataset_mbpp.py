"""MBPP from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from own_programs import code_execution

from moco_core import Example
from moco_core.options import build
from moco_dataset_mbpp import MBPP, called
from moco_toolkit_authoring import dataset_checks


def solved(example: Example) -> str:
    return f"```python\n{example.meta['solution']}\n```"


test_conformance = dataset_checks("mbpp", gold=solved, metric=code_execution())


def read(**options: Any) -> dict[str, Example]:
    data = MBPP(build(MBPP.Options, {"path": str(MBPP.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


CODE = {
    "11": "def double(x):\n    return 2 * x\n",
    "12": "def shared(a, b):\n    return tuple(set(a) & set(b))\n",
    "13": "def half(x):\n    return x / 2\n",
    "14": "def sum(values):\n    return values[0] + values[1]\n",
}


def test_setup_solution_and_asserts_run_to_their_end() -> None:
    for example in read().values():
        program = "\n".join([example.meta["setup"], CODE[example.id], example.meta["test"]])
        exec(compile(program, example.id, "exec"), {})


def test_the_prompt_shows_the_task_and_all_asserts() -> None:
    example = next(e for e in read().values() if e.id == "11")
    assert example.question.text() == (
        "You are an expert Python programmer, and here is your task: Write a function to double a number. "
        "Your code should pass these tests:\n\nassert double(2) == 4\nassert double(0) == 0\nassert double(-1) == -2\n"
        "Answer with one Python code block."
    )
    assert {e.id: e.meta["entry_point"] for e in read().values()} == {
        "11": "double",
        "12": "shared",
        "13": "half",
        "14": "sum",  # a task that redefines a builtin
    }


@pytest.mark.parametrize(
    ("test", "name"),
    [
        ("assert set(f([1])) == set([1])", "f"),
        ("assert math.isclose(area(3), 9.0)", "area"),
        ("assert (max_height(root)) == 3", "max_height"),
        ("assert chain([Pair(5, 24)], 4) == 3", "chain"),
        ("assert not ok('x')", "ok"),
        ("assert first_even ([1, 2]) == 2", "first_even"),
        ("assert 1 == 1", ""),
        ("assert (", ""),
    ],
)
def test_the_function_is_taken_from_the_call(test: str, name: str) -> None:
    assert called(test, "") == name


def test_the_studys_tests_are_called_with_the_function(tmp_path: Path) -> None:
    rows = [
        {
            "split": "test",
            "id": 1,
            "input": "Do it. pass this test case: assert f(1) == 2",
            "test": "def check(c):\n    assert c(1) == 2\n",
            "language": "python",
        },
        {
            "split": "test",
            "id": 769,
            "input": "Do it. pass this test case: assert g(1) == 2",
            "test": "",
            "language": "python",
        },
    ]
    (tmp_path / "mbpp.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    data = MBPP(MBPP.Options(path=str(tmp_path)))
    (example,) = data.examples("test")
    exec("def f(x):\n    return x + 1\n" + example.meta["test"], {})
    assert data.notes()["dropped"]["test"] == {"no test": 1}


def test_the_configuration_follows_the_option() -> None:
    assert MBPP(build(MBPP.Options, {"config": "sanitized"})).hub[0].config == "sanitized"
