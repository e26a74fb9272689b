"""The floors of the house: the contract imports no plumbing, plugins import the contract, and nothing imports in circles.

Every import counts: at the top of a module, inside a function, and for type checkers only; and the name of a module as a
text, by which importlib would find it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import moco_core
from moco_core.catalogue import Catalogue
from moco_toolkit_authoring.maintain import projects

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "moco_core"
CONTRACT = {file.stem for file in CORE.glob("*.py")} - {"__init__", "__main__", "api", "catalogue", "config"}
"""What lies on the ground floor and is no assembly of the floors above."""

AUTHORS = ("types", "models", "options", "context", "methods", "data", "events", "hookspecs", "errors")
"""The nine files that an author implements or is given."""

MACHINERY = {"building", "discovery"}
"""What builds options and finds plugins: it lies on the ground floor, since the contract stands on it."""

PROJECTS = projects(ROOT)
PACKAGES = {p.package: p for p in PROJECTS}
INSIDE = ("moco_core.runtime", "moco_core.runs", "moco_core.cli")
ABOVE = {"command", "executor"}
"""Kinds that are made of the rooms behind the contract; the authors' toolkit is another such thing."""


def modules(folder: Path, package: str) -> dict[str, Path]:
    """Return the modules of a package by their dotted name."""
    out = {}
    for file in sorted(folder.rglob("*.py")):
        if "_templates" in file.parts:
            continue
        parts = file.relative_to(folder).with_suffix("").parts
        out[".".join((package, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = file
    return out


def imports(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that a file imports, as far as they are among ``known`` or outside of its package."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative imports are not used here"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else str(node.module)


def texts(file: Path) -> Iterator[str]:
    """Yield the texts in a file that could be a module's name, for whatever finds and runs modules by name."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"\w+(\.\w+)*", node.value):
            yield node.value


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected groups of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def graph_of(folder: Path, package: str) -> dict[str, set[str]]:
    known = modules(folder, package)
    return {name: {i for i in imports(file, known) if i in known and i != name} for name, file in known.items()}


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]


def test_a_module_that_is_named_in_a_text_is_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('import importlib.util\n\n\ndef f():\n    return importlib.util.find_spec("moco_method_cascade.prompts")\n')
    assert list(texts(file)) == ["moco_method_cascade.prompts"]


@pytest.mark.parametrize("package", ["moco_core", *PACKAGES])
def test_nothing_imports_in_circles(package: str) -> None:
    folder = CORE if package == "moco_core" else PACKAGES[package].folder / package
    assert circles(graph_of(folder, package)) == []


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_the_contract_imports_no_plumbing(name: str) -> None:
    known = modules(CORE, "moco_core")
    ours = {i for i in imports(CORE / f"{name}.py", known) if i.split(".")[0] == "moco_core"}
    assert ours <= {f"moco_core.{c}" for c in CONTRACT}


@pytest.mark.parametrize("floor", ["runtime", "runs"])
def test_a_floor_imports_none_above_it(floor: str) -> None:
    above = {"runtime": ("moco_core.runs", "moco_core.cli", "moco_core.api"), "runs": ("moco_core.cli", "moco_core.api")}
    known = modules(CORE, "moco_core")
    for file in (CORE / floor).glob("*.py"):
        wrong = [i for i in imports(file, known) if i.startswith(above[floor])]
        assert not wrong, f"{file.relative_to(ROOT)}: {wrong}"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_plugin_imports_the_contract_and_toolkits_alone(package: str) -> None:
    project = PACKAGES[package]
    known = modules(project.folder / package, package)
    behind = project.kind in ABOVE or project.label == "toolkit/authoring"
    for file in known.values():
        for name in imports(file, known):
            top = name.split(".")[0]
            assert behind or not name.startswith(INSIDE), f"{file.relative_to(ROOT)} imports {name}"
            if top.startswith("moco_") and top not in ("moco_core", package):
                assert top in PACKAGES, f"{file.relative_to(ROOT)} imports {top}, which is not in this repository"
                assert PACKAGES[top].kind == "toolkit", f"{file.relative_to(ROOT)} imports the plugin {top}"
        for name in texts(file):
            top = name.split(".")[0]
            other = top in PACKAGES and top != package and PACKAGES[top].kind != "toolkit"
            assert not other and (behind or not name.startswith(INSIDE)), f"{file.relative_to(ROOT)} names {name}"


@pytest.mark.parametrize("package", [p.package for p in PROJECTS if p.kind == "method"])
def test_methods_take_the_public_names_from_the_top(package: str) -> None:
    """One dialect: ``from moco_core import ...`` for all that it offers, its modules for the rest."""
    public = set(moco_core.__all__)
    for file in modules(PACKAGES[package].folder / package, package).values():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("moco_core."):
                taken = [alias.name for alias in node.names if alias.name in public]
                assert not taken, f"{file.relative_to(ROOT)}: take {', '.join(taken)} from moco_core"


@pytest.mark.parametrize("package", [p.package for p in PROJECTS if p.kind == "method"])
def test_methods_have_one_layout(package: str) -> None:
    """What registers it in `__init__.py`, `options.py`, `method.py`; papers in one form, the README's ids among them."""
    project = PACKAGES[package]
    cls = Catalogue({}).load("method", project.name)
    assert len((project.folder / package / "__init__.py").read_text(encoding="utf-8").splitlines()) <= 12
    assert (cls.Options.__module__, cls.Options.__name__) == (f"{package}.options", "Options")
    assert cls.__module__ == f"{package}.method"
    assert re.match(rf"{package}\.(method|system)$|moco_toolkit_", cls.system.__module__)
    section = re.search(r"^## Paper\n+(.*?)\n\n## ", (project.folder / "README.md").read_text("utf-8"), re.M | re.S)
    assert section is not None
    if section[1] == "None.":
        assert cls.paper == ""
    else:
        assert re.fullmatch(r"arXiv \d{4}\.\d{5}(, \d{4}\.\d{5})*", cls.paper)
        assert not (unnamed := [i for i in re.findall(r"[\d.]{10}", cls.paper) if i not in section[1]]), unnamed


def lines(files: Iterable[Path]) -> int:
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def test_what_an_author_needs_is_read_in_twenty_minutes() -> None:
    assert lines(CORE / f"{name}.py" for name in AUTHORS) <= 1650
    assert lines(CORE / f"{name}.py" for name in CONTRACT - MACHINERY) <= 2100


def test_the_core_behind_the_command_line_grows_no_further() -> None:
    assert lines(set(CORE.rglob("*.py")) - set((CORE / "cli").rglob("*.py"))) <= 7432


def test_the_core_names_no_plugin() -> None:
    plugins = [p for p in PROJECTS if p.kind != "toolkit"]
    names = {p.package for p in plugins} | {p.package.replace("_", "-") for p in plugins}
    for file in CORE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert not (found := [name for name in names if name in text]), f"{file.relative_to(ROOT)}: {found}"


@pytest.mark.parametrize("package", ["moco_core", *PACKAGES])
def test_files_stay_small_enough_to_hold_in_the_head(package: str) -> None:
    folder = CORE if package == "moco_core" else PACKAGES[package].folder / package
    long = {f.name: n for f in modules(folder, package).values() if (n := len(f.read_text("utf-8").splitlines())) > 400}
    assert not long
