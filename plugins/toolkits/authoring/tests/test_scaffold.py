"""What `moco new` writes, and how it refuses."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from moco_core.errors import ConfigError, StoreError
from moco_toolkit_authoring.maintain import problems_of, read_project, synced_pyproject
from moco_toolkit_authoring.scaffold import MADE, render, template_folder


@pytest.mark.parametrize("kind", MADE)
def test_nothing_is_left_to_fill_in(kind: str, tmp_path: Path) -> None:
    written = render(kind, "two_words", tmp_path / "new")
    for file in written:
        text = file.read_text(encoding="utf-8")
        assert "{{" not in text.replace("${{", "") and "{{" not in str(file)
        if file.suffix == ".py":
            ast.parse(text)
            assert max(map(len, text.splitlines()), default=0) <= 120
    assert (tmp_path / "new" / f"moco_{kind}_two_words" / "py.typed") in written


@pytest.mark.parametrize("kind", MADE)
def test_a_new_plugin_has_the_shape_of_this_repository(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / f"{kind}s" / "two_words"
    render(kind, "two_words", folder)
    assert list(problems_of(read_project(folder))) == []
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    assert synced_pyproject(text) == text


def test_a_new_method_has_the_modules_of_the_others(tmp_path: Path) -> None:
    render("method", "two_words", tmp_path / "new")
    package = tmp_path / "new" / "moco_method_two_words"
    assert sorted(f.name for f in package.iterdir()) == ["__init__.py", "method.py", "options.py", "py.typed"]
    top = ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body
    assert [n.module for n in top if isinstance(n, ast.ImportFrom)] == ["typing", "moco_core"], "nothing is imported at once"


def test_a_summary_survives_quotes(tmp_path: Path) -> None:
    render("method", "quoted", tmp_path / "new", summary='Says "yes"\nto \\everything.')
    facts = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text(encoding="utf-8"))
    assert facts["project"]["description"] == "Says 'yes' to everything."
    module = ast.parse((tmp_path / "new" / "moco_method_quoted" / "__init__.py").read_text(encoding="utf-8"))
    assert (ast.get_docstring(module) or "").splitlines()[0] == facts["project"]["description"]


@pytest.mark.parametrize("name", ["", "My", "a-b", "1a", "a__b", "_a", "class", "a b", "../a"])
def test_impossible_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not usable"):
        render("method", name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(ConfigError, match="not an empty folder"):
        render("method", "mine", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no kind of plugin"):
        render("toolkit", "mine", tmp_path / "new")


def test_a_place_that_cannot_be_written_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot write"):
        render("method", "mine", tmp_path / "file" / "new")


def test_templates_of_a_checkout_are_the_ones_at_its_top() -> None:
    assert {*MADE, "runs"} <= {p.name for p in template_folder().iterdir()}
