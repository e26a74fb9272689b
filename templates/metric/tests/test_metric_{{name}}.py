"""Tests of {{name}}: the conformance checks, and what this metric alone promises."""

import pytest

from moco_core import Example, Question
from moco_toolkit_authoring import metric_checks, score_of
from {{package}} import {{Class}}, Options

test_conformance = metric_checks("{{name}}", settings=[{}, {"ignore_case": False}])


@pytest.mark.parametrize(
    ("text", "value"),
    [("Paris", 1.0), ("I think so.\n\n  paris. ", 1.0), ("Paris it is", 0.0), ("Paris\nRome", 0.0), ("", 0.0)],
)
def test_the_last_line_counts(text: str, value: float) -> None:
    example = Example(question=Question(id="q", prompt="Capital of France?"), references=["Paris"])
    assert score_of({{Class}}(Options()), example, text).value == value
