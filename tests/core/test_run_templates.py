"""The run configurations to start from are valid for the plugins they name."""

from __future__ import annotations

from pathlib import Path

import pytest

from moco_core.catalogue import Catalogue
from moco_core.config import load_yaml, parse_settings
from moco_core.errors import UnknownPlugin
from moco_core.scaffold import template_folder

FILES = sorted((template_folder() / "runs").glob("*.yaml"))


def test_there_is_one_for_the_demonstration() -> None:
    assert "demo.yaml" in {f.name for f in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_it_is_valid(file: Path) -> None:
    data, lines = load_yaml(file)
    try:
        config = parse_settings(data, Catalogue({}), lines=lines, source=file.name)
    except UnknownPlugin as missing:
        pytest.skip(str(missing))
    assert config.methods and config.datasets
    assert file.read_text(encoding="utf-8").startswith("#"), "it says what it is for"
