"""The run configurations to start from are valid for the plugins they name."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from moco_core.catalogue import Catalogue
from moco_core.cli import cli
from moco_core.cli.reading import load_yaml
from moco_core.config import parse_settings
from moco_core.errors import ConfigError, UnknownPlugin
from moco_toolkit_authoring.scaffold import copy_run, run_templates, template_folder

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


def test_new_copies_one_and_its_comment_names_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["new", "run", "demo"], catch_exceptions=False)
    assert "moco bench demo.yaml" in done.output
    copy, source = Path("demo.yaml"), template_folder() / "runs" / "demo.yaml"
    assert load_yaml(copy)[0] == load_yaml(source)[0]
    assert "moco bench demo.yaml" in copy.read_text(encoding="utf-8")


def test_every_one_is_named_in_the_help() -> None:
    text = CliRunner().invoke(cli, ["new", "--help"]).output
    assert all(name in text for name in run_templates())


def test_a_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("keep", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists"):
        copy_run("demo", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text(encoding="utf-8") == "keep"
    with pytest.raises(ConfigError, match=r"'dmo'.*demo.*there are bad_members, demo, everything"):
        copy_run("dmo", tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()
