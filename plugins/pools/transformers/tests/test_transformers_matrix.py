"""Architectures: a few of them here, all of ``architectures.yaml`` in ``make matrix``; what is found stands in the README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers_matrix import KINDS, README, RESULTS, SAMPLE, examine, synced, table

FOUND = json.loads(RESULTS.read_text("utf-8"))


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
