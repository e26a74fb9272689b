"""Tests of {{name}}: the conformance checks, and what this dataset alone promises."""

from pathlib import Path

import pytest

from moco_core import DatasetError, NoOptions
from moco_toolkit_authoring import LastWord, dataset_checks
from {{package}} import {{Class}}, Options

test_conformance = dataset_checks("{{name}}", settings=[{}, {"dev": 2}], metric=LastWord(NoOptions()))


def test_splits_follow_the_file() -> None:
    data = {{Class}}(Options(dev=2))
    assert [e.id for e in data.examples("dev")] == ["s1", "s2"]
    assert next(data.examples("test")).references == ("9",)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "1", "question": "Why?"}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="row 1: the field 'answer' is missing"):
        list({{Class}}(Options(path=str(file))).examples("dev"))
