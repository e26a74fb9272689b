"""The repository's own consistency: what sync rewrites, what check reports, and that this checkout is in step."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import attrs
import pytest

from moco_core.errors import ConfigError
from moco_core.options import option
from moco_toolkit_authoring.maintain import closure, main, problems_of, projects, read_project, synced_pyproject
from moco_toolkit_authoring.scaffold import render
from moco_toolkit_authoring.tables import marked, option_table, replace_marked


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small repository with one method and one metric."""
    (tmp_path / "moco_core").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "moco-core"\n', encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "# MoCo\n\n<!-- moco:methods -->\nold\n<!-- /moco:methods -->\n\ntext\n", encoding="utf-8"
    )
    render("method", "idea_one", tmp_path / "plugins" / "methods" / "idea_one", summary="First | of all.")
    render("metric", "idea_two", tmp_path / "plugins" / "metrics" / "idea_two")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_sync_writes_the_table_of_plugins_and_then_rests(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 1
    assert "run: python -m moco_toolkit_authoring.maintain sync" in capsys.readouterr().err
    assert main(["sync"]) == 0
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert "| [`idea_one`](plugins/methods/idea_one) | text | First \\| of all. |" in text
    assert text.endswith("\n\ntext\n")
    assert main(["check"]) == 0
    capsys.readouterr()
    assert main(["sync"]) == 0
    assert capsys.readouterr().out == "", "a second sync writes nothing"


def test_check_names_the_folder_and_the_repair(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sync"])
    project = repository / "plugins" / "metrics" / "idea_two"
    edit(project / "README.md", "`true`", "`false`")
    edit(project / "pyproject.toml", "moco-core>=0.1,<0.2", "moco-core>=0.0")
    capsys.readouterr()
    assert main(["check"]) == 1
    err = capsys.readouterr().err
    assert "out of step: plugins/metrics/idea_two/README.md" in err
    assert "run: python -m moco_toolkit_authoring.maintain sync plugins/metrics/idea_two\n" in err
    assert main(["sync", "plugins/metrics/idea_two"]) == 0
    assert main(["check"]) == 0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "moco-method-idea-one"', 'name = "idea"', "project.name is 'idea'"),
        ('"spec-1", ', "", 'keywords must begin with "moco", "spec-1"'),
        (', "level-text"', "", "keywords must hold one of"),
        ('"attrs>=23.2"', '"attrs==23.2"', "'attrs==23.2' is a pin"),
        ('version = "0.1.0"\n', "", "project.version is missing"),
        ('packages = ["moco_method_idea_one"]', 'packages = ["x"]', "expected packages"),
        ("[tool.hatch", '[project.urls]\nHome = "x"\n\n[tool.hatch', "project.urls"),
        ('idea_one = "moco_method_idea_one"', 'idea_one = "elsewhere"', "expected the single entry point"),
    ],
)
def test_what_a_person_must_repair_is_named(repository: Path, old: str, new: str, problem: str) -> None:
    folder = repository / "plugins" / "methods" / "idea_one"
    edit(folder / "pyproject.toml", old, new)
    found = list(problems_of(read_project(folder)))
    assert len(found) == 1 and problem in found[0]


def test_missing_files_are_named(repository: Path) -> None:
    folder = repository / "plugins" / "methods" / "idea_one"
    (folder / "moco_method_idea_one" / "py.typed").unlink()
    assert list(problems_of(read_project(folder))) == ["moco_method_idea_one/py.typed is missing"]


def test_an_unknown_package_of_this_repository_is_named(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository / "plugins" / "methods" / "idea_one"
    edit(folder / "pyproject.toml", '"attrs>=23.2"', '"attrs>=23.2", "moco-metric-idea-tow>=0.1,<0.2"')
    assert main(["check"]) == 1
    assert "requires moco-metric-idea-tow" in (err := capsys.readouterr().err)
    assert "did you mean 'moco-metric-idea-two'?" in err


def test_closure_brings_what_is_needed_and_nothing_else(repository: Path) -> None:
    folder = repository / "plugins" / "methods" / "idea_one"
    edit(folder / "pyproject.toml", '"attrs>=23.2"', '"attrs>=23.2", "moco-metric-idea-two>=0.1,<0.2"')
    everything = projects(repository)
    one, two = everything
    assert [p.label for p in closure([one], everything)] == ["method/idea_one", "metric/idea_two"]
    assert [p.label for p in closure([two], everything)] == ["metric/idea_two"]


def test_scripts_beside_a_package_are_checked_with_it(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = repository / "plugins" / "methods" / "idea_one"
    (folder / "training").mkdir()
    (folder / "training" / "train.py").touch()
    assert main(["packages", "method/idea_one"]) == 0
    where = "plugins/methods/idea_one"
    assert capsys.readouterr().out == f"moco_core {where}/moco_method_idea_one {where}/training\n"


def test_shared_parts_are_rewritten_and_the_rest_is_kept() -> None:
    before = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "moco-method-x"
version = "0.3.0"
description = "Text with moco-core>=9 inside."
requires-python = ">=3.9"
dependencies = [
    "moco-core",
    "moco-toolkit-voting[bleu]>=0.0,<9",  # kept
    "torch>=2.4",
]

[project.optional-dependencies]
more = ["moco-toolkit-merging~=0.1"]
"""
    after = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "moco-method-x"
version = "0.3.0"
description = "Text with moco-core>=9 inside."
readme = "README.md"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = [
    "moco-core>=0.1,<0.2",
    "moco-toolkit-voting[bleu]>=0.1,<0.2",  # kept
    "torch>=2.4",
]

[project.optional-dependencies]
more = ["moco-toolkit-merging>=0.1,<0.2"]
"""
    assert synced_pyproject(before) == after
    assert synced_pyproject(after) == after


@attrs.frozen(kw_only=True)
class _Options:
    rate: float = option(0.5, gt=0, le=1, help="how much | of it", paper="0.3")
    names: tuple[str, ...] = option(("a",), help="which")


def test_option_tables_show_ranges_defaults_and_the_paper() -> None:
    assert option_table(_Options) == (
        "| option | type | default | paper | what it does |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| `rate` | float > 0 and <= 1 | `0.5` | 0.3 | how much \\| of it |\n"
        '| `names` | list of str | `["a"]` | – | which |'
    )


def test_marked_parts_are_replaced_exactly() -> None:
    text = "a\n<!-- moco:x -->\nold \\1\n<!-- /moco:x -->\nb\n"
    assert marked(text, "x") == "old \\1"
    assert replace_marked(text, "x", "new \\2") == "a\n<!-- moco:x -->\nnew \\2\n<!-- /moco:x -->\nb\n"
    assert marked(text, "y") is None
    with pytest.raises(ConfigError, match="README: the markers <!-- moco:y -->"):
        replace_marked(text, "y", "", "README")


def test_a_dataset_without_its_default_metric_is_named(tmp_path: Path) -> None:
    pytest.importorskip("moco_dataset_gsm8k", reason="needs a dataset")
    root = Path(__file__).parents[4]
    folder = tmp_path / "datasets" / "gsm8k"
    shutil.copytree(root / "plugins" / "datasets" / "gsm8k", folder)
    assert list(problems_of(read_project(folder))) == []
    file = folder / "pyproject.toml"
    file.write_text(re.sub(r'"moco-metric-exact-match[^"]*", ', "", file.read_text()))
    assert ["moco-metric-exact-match" in problem for problem in problems_of(read_project(folder))] == [True]
