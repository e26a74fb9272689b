"""Architectures: a few of them here, all of ``architectures.yaml`` in ``make matrix``; what is found stands in the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers_matrix import KINDS, README, RESULTS, SAMPLE, SERVED, examine, synced, table
from transformers_matrix_vllm import compare

FOUND = json.loads(RESULTS.read_text("utf-8"))
SAME = [name for name, found in json.loads(SERVED.read_text("utf-8")).items() if found == "yes"]


def test_the_readme_shows_what_was_found_of_sixty_architectures_and_more() -> None:
    assert list(FOUND) == list(KINDS) and len({row["class"] for row in FOUND.values()}) >= 60
    if README.exists():  # a copy of the tests may stand alone
        assert synced(README.read_text("utf-8"), FOUND) == README.read_text("utf-8")
    assert "wrong" not in table(FOUND)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_of_each_family_does_what_the_library_does(name: str, tmp_path: Path) -> None:
    assert examine(name, tmp_path, new=6) == FOUND[name]


@pytest.mark.matrix
@pytest.mark.parametrize("name", [n for n in KINDS if n not in SAMPLE])
def test_a_model_of_every_architecture_does_what_the_library_does(name: str, tmp_path: Path) -> None:
    assert examine(name, tmp_path) == FOUND[name]


@pytest.mark.matrix
def test_vllm_makes_of_a_merged_models_files_what_the_library_makes(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    assert len(SAME) >= 15
    assert dict(compare(SAME, tmp_path)) == dict.fromkeys(SAME, "yes")
