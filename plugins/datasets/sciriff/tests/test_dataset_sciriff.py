"""SciRIFF from its hand-written rows, through the code that reads the real source."""

from __future__ import annotations

from typing import Any

import pytest

from moco_core import ConfigError, DatasetError, Example
from moco_core.options import build
from moco_dataset_sciriff import SciRIFF
from moco_toolkit_authoring import dataset_checks

test_conformance = dataset_checks("sciriff")


def read(**options: Any) -> dict[str, Example]:
    data = SciRIFF(build(SciRIFF.Options, {"path": str(SciRIFF.fixture_path()), **options}))
    return {e.question.prompt: e for split in ("dev", "test") for e in data.examples(split)}


def test_one_task_is_kept_with_its_closed_set_of_labels() -> None:
    found = {e.id.partition(":")[2]: e for e in read().values()}
    assert {i: e.references[0] for i, e in found.items()} == {
        "validation:0": "Uses",
        "test:0": "Background",
        "test:1": "CompareOrContrast",
    }
    assert all(e.question.labels[0] == "Background" and e.question.answer_format == "" for e in found.values())


def test_another_task_needs_its_labels() -> None:
    with pytest.raises(
        ConfigError, match="labels: the answers of task 'some_other_task' are not known here, list them"
    ):
        read(task="some_other_task")
    with pytest.raises(DatasetError, match=r"row 3, field 'output': expected one of yes, no, got 'It is about bees\.'"):
        read(task="some_other_task", labels=["yes", "no"])


def test_the_configuration_follows_the_option() -> None:
    assert SciRIFF(build(SciRIFF.Options, {"context": "8192"})).hub[0].config == "8192"
