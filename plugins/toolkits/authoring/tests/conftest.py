"""Installing made-up plugins: a package, its metadata and its entry point in a temporary folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest

from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import CheckResult, NotApplicable, elsewhere, run_checks
from moco_toolkit_authoring.scaffold import render

Edit = Callable[[str], str]


def failed(results: list[CheckResult]) -> list[str]:
    """Return the names of the checks that failed, with their messages for the reader of a failing test."""
    return [r.name for r in results if not r.ok]


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue({}, entry_points=[])


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Catalogue]]:
    """Scaffold a metric, edit some of its files, lay it out as installed, and return a catalogue that sees only it."""
    names: list[str] = []

    def make(name: str = "sample", *, kind: str = "metric", **edits: Edit) -> Catalogue:
        project = tmp_path / "project"
        render(kind, name, project)
        package = f"moco_{kind}_{name}"
        names.append(package)
        files = {
            "module": project / package / "__init__.py",
            "readme": project / "README.md",
            "metadata": tmp_path / "METADATA",
        }
        files["metadata"].write_text(_metadata(project, kind, name), encoding="utf-8")
        for part, edit in edits.items():
            files[part].write_text(edit(files[part].read_text(encoding="utf-8")), encoding="utf-8")
        info = project / f"{package}-0.1.0.dist-info"
        info.mkdir()
        text = files["metadata"].read_text(encoding="utf-8") + "\n" + files["readme"].read_text(encoding="utf-8")
        (info / "METADATA").write_text(text, encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[moco.{kind}]\n{name} = {package}\n", encoding="utf-8")
        monkeypatch.syspath_prepend(str(project))
        points = metadata.Distribution.at(info).entry_points
        return Catalogue({}, entry_points=list(points))

    yield make
    for package in names:
        sys.modules.pop(package, None)


def _metadata(project: Path, kind: str, name: str) -> str:
    import tomllib

    facts = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {facts['name']}",
        "Version: 0.1.0",
        f"Summary: {facts['description']}",
        f"Keywords: {','.join(facts['keywords'])}",
        "License-Expression: Apache-2.0",
        "Requires-Python: >=3.11",
        *(f"Requires-Dist: {r}" for r in facts["dependencies"]),
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the checks that start processes of their own: they take longer than all others together."""
    monkeypatch.setattr(elsewhere, "_told", mock.Mock(side_effect=NotApplicable("this test starts no process")))


@pytest.fixture
def failures(request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    """Run the checks of a plugin and return the names of those that fail; with ``processes``, those that start some too."""

    def run(kind: str, name: str, catalogue: Catalogue, *, processes: bool = False, **plan: object) -> list[str]:
        if not processes:
            request.getfixturevalue("no_processes")
        return failed(run_checks(kind, name, catalogue=catalogue, **plan))

    return run
