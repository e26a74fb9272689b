"""Every distribution stands alone: its wheel, the core, and what it declares are enough to import, show and check it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from moco_toolkit_authoring.maintain import Project, projects, read_project
from moco_toolkit_authoring.scaffold import MADE, render

from .conftest import ROOT, Environment, Wheels, build

pytestmark = pytest.mark.packaging

_PROJECTS = projects(ROOT)
_PLUGINS = [p for p in _PROJECTS if p.kind not in ("toolkit", "command")]
_COMMANDS = [p for p in _PROJECTS if p.kind == "command"]
_TOOLKITS = [p for p in _PROJECTS if p.kind == "toolkit"]
_PYTEST = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib")


def _label(project: Project) -> str:
    return project.label


def _files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_templates_travel_with_the_authors_toolkit(wheels: Wheels) -> None:
    files = _files(wheels.authoring)
    assert {f"moco_toolkit_authoring/_templates/{kind}/pyproject.toml" for kind in MADE} <= files


def test_the_core_is_whole_without_the_authors_toolkit(wheels: Wheels, environment: Environment) -> None:
    files = _files(wheels.core)
    assert "moco_core/py.typed" in files
    assert not [f for f in files if f.startswith(("tests/", "plugins/"))]
    environment.install([wheels.core])
    assert "moco" in environment.moco("--version")
    assert "methods (0)" in environment.moco("list")


@pytest.mark.parametrize("project", _PROJECTS, ids=_label)
def test_wheel_holds_its_package_alone(project: Project, wheels: Wheels) -> None:
    files = _files(wheels.of(project.folder))
    assert {f"{project.package}/__init__.py", f"{project.package}/py.typed"} <= files
    tops = {f.partition("/")[0] for f in files}
    assert all(t == project.package or t.endswith(".dist-info") for t in tops), tops


@pytest.mark.parametrize("project", _PLUGINS, ids=_label)
def test_plugin_works_alone(project: Project, wheels: Wheels, environment: Environment, tmp_path: Path) -> None:
    """It imports, shows its options, and passes the conformance part of its own suite, or `moco check` without one."""
    environment.install(wheels.needed(project))
    environment.run("-c", f"import {project.package}")
    assert project.name in environment.moco("show", project.kind, project.name)
    suite = [f for f in (project.folder / "tests").glob("test_*.py") if "_checks(" in f.read_text(encoding="utf-8")]
    if not suite:
        environment.install([wheels.authoring])
        environment.moco("check", project.kind, project.name)
        return
    environment.install([*wheels.needed(project, extra="test"), wheels.authoring])
    tests = tmp_path / "tests"  # a copy: beside the sources, the package would be found without its wheel
    shutil.copytree(project.folder / "tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(project.folder / "README.md", tmp_path)
    chosen = [tests / f.name for f in suite]
    if project.label == "pool/vllm":
        return  # its conformance needs gigabytes that are not installed once more; it runs in the suite itself
    out = environment.run(
        "-m", "pytest", *_PYTEST, "-k", "conformance", *chosen, cwd=tests, path=ROOT / "tests" / "helpers"
    )
    assert re.search(r"\b[1-9]\d* passed", out), out


@pytest.mark.parametrize("project", _COMMANDS, ids=_label)
def test_command_shows_its_help_alone(project: Project, wheels: Wheels, environment: Environment) -> None:
    environment.install(wheels.needed(project))
    environment.run("-c", f"import {project.package}")
    assert re.search(rf"^ +{project.name} ", environment.moco("--help"), re.MULTILINE)
    shown = environment.moco(project.name, "--help")  # its own, or that of a program to which it hands its arguments
    assert f" {project.name} [OPTIONS]" in shown or shown.startswith("usage: ")
    environment.install([wheels.authoring])
    environment.moco("check", "command", project.name)


@pytest.mark.parametrize("project", _TOOLKITS, ids=_label)
def test_toolkit_imports_alone(project: Project, wheels: Wheels, environment: Environment) -> None:
    environment.install(wheels.needed(project))
    environment.run("-c", f"import {project.package}")


@pytest.mark.parametrize("project", _PROJECTS, ids=_label)
def test_requirements_can_be_met_together(project: Project) -> None:
    """Ranges admit the versions of this repository: what is built here can be installed side by side."""
    versions = {p.distribution: p.facts["version"] for p in _PROJECTS}
    for text in project.facts["dependencies"]:
        requirement = Requirement(text)
        if requirement.name in versions:
            assert requirement.specifier.contains(versions[requirement.name]), text


@pytest.mark.parametrize("kind", MADE)
def test_a_scaffolded_plugin_passes_out_of_tree(
    kind: str, wheels: Wheels, environment: Environment, tmp_path: Path
) -> None:
    """What `moco new` writes, built and installed like anybody's package, passes its tests and `moco check`."""
    environment.install([wheels.core, wheels.authoring])
    project = tmp_path / "project"
    environment.moco("new", kind, "my_idea", "--in", str(project))
    wanted = read_project(project).requires()
    for needed in (p for p in _PROJECTS if p.distribution in wanted):
        environment.install(wheels.needed(needed))
    environment.install([build(project, tmp_path / "built")])
    assert "my_idea" in environment.moco("list", kind)
    environment.moco("check", kind, "my_idea")
    out = environment.run("-m", "pytest", *_PYTEST, project / "tests", cwd=project / "tests")
    assert "passed" in out


def test_a_wheel_is_checked_in_a_fresh_environment(wheels: Wheels, third_party: Path, tmp_path: Path) -> None:
    """`moco check --wheel` finds a dependency that is not declared, which an editable installation hides."""
    dist = tmp_path / "dist"
    dist.mkdir()
    for wheel in (wheels.core, wheels.authoring):
        shutil.copy(wheel, dist)
    render("method", "my_idea", tmp_path / "good")
    render("method", "my_idea", tmp_path / "bad")
    module = tmp_path / "bad" / "moco_method_my_idea" / "method.py"
    module.write_text(module.read_text(encoding="utf-8").replace("import attrs", "import attrs\nimport moco_toolkit_voting"))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MOCO_", "PIP_"))}
    env |= {"PYTHONPATH": str(third_party), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(dist)}

    def check(folder: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from moco_toolkit_authoring.wheels import check_wheel; from pathlib import Path\n"
        code += f"sys.exit(check_wheel(Path({str(tmp_path / folder)!r}), print))"
        return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)

    good = check("good")
    assert good.returncode == 0 and "checks hold" in good.stdout, good.stdout + good.stderr
    bad = check("bad")
    assert bad.returncode and "it does not work with what it declares alone" in bad.stderr
    assert "moco_toolkit_voting" in bad.stderr
