"""Keeps what the packages of this repository share in step: ``python -m moco_toolkit_authoring.maintain sync`` or ``check``.

``sync`` rewrites the shared parts of every pyproject.toml (build system, Python range, licence, core range), the option
tables in the README of every plugin, and the tables of plugins in the README at the top. ``check`` changes nothing; it names
everything that is out of step and the command that repairs it, and exits 1. Both take folders to look at only those; outside
this repository they work on a plugin's own folder. ``editable`` and ``packages`` print what the Makefile installs and checks;
``demo`` stands for what the core's extra of that name holds. ``wheels FOLDER`` builds every package.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core.errors import ConfigError, MocoError, suggest
from moco_core.kinds import GROUPS, KINDS, SPEC
from moco_toolkit_authoring.tables import markdown_table, marked, option_table, replace_marked
from moco_toolkit_authoring.wheels import build_wheels, extra_of, synced_extra

__all__ = ["Project", "closure", "main", "problems_of", "projects", "sync_project"]

CORE_RANGE = ">=0.1,<0.2"
"""The range on the core, and on each other, that all packages of this repository state."""

_BUILD_SYSTEM = '[build-system]\nrequires = ["hatchling>=1.27"]\nbuild-backend = "hatchling.build"\n'
_SHARED_LINES = {"requires-python": '">=3.11"', "license": '"Apache-2.0"', "readme": '"README.md"'}
_ORDER = (*KINDS, "command", "toolkit")
_FOLDERS = {f"{kind}s": kind for kind in _ORDER}


@attrs.frozen(kw_only=True)
class Project:
    """One distribution of the repository: its folder and its parsed pyproject. ``kind`` may also be ``toolkit``."""

    folder: Path
    kind: str
    name: str
    data: dict[str, Any]

    @property
    def label(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def distribution(self) -> str:
        return f"moco-{self.kind}-{self.name}".replace("_", "-")

    @property
    def package(self) -> str:
        return f"moco_{self.kind}_{self.name}"

    @property
    def facts(self) -> dict[str, Any]:
        project: dict[str, Any] = self.data.get("project", {})
        return project

    @property
    def contributed(self) -> bool:
        """Whether it lies in ``contrib/``, whose packages stand in tables of their own."""
        return self.folder.parent.name == "contrib"

    @property
    def level(self) -> str:
        return next((k.removeprefix("level-") for k in self.facts.get("keywords", []) if k.startswith("level-")), "")

    def requires(self, extras: Iterable[str] = ()) -> list[str]:
        """Return the names of the distributions it depends on, normalised; with those of the extras it is asked for."""
        optional = self.facts.get("optional-dependencies", {})
        lists = [self.facts.get("dependencies", []), *(optional.get(e, []) for e in extras)]
        return [_normal(re.split(r"[^A-Za-z0-9._-]", r.strip(), maxsplit=1)[0]) for part in lists for r in part]


def root_of(start: Path) -> Path:
    """Return the top folder of the repository that holds ``start``. Raises ConfigError outside of one."""
    for folder in (start.resolve(), *start.resolve().parents):
        file = folder / "pyproject.toml"
        if file.is_file() and (folder / "moco_core").is_dir():
            return folder
    raise ConfigError(f"{start}: not inside the MoCo repository; give the folder of a plugin")


def projects(root: Path) -> list[Project]:
    """Return all distributions of the repository but the core, by kind and name."""
    folders = sorted(
        {p.parent for pattern in ("plugins/*/*", "contrib/*") for p in root.glob(f"{pattern}/pyproject.toml")}
    )
    return sorted((read_project(f) for f in folders), key=lambda p: (_ORDER.index(p.kind), p.name))


def read_project(folder: Path) -> Project:
    """Read one distribution; kind and name come from its entry point, or from its folder. Raises ConfigError."""
    file = folder / "pyproject.toml"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    points = data.get("project", {}).get("entry-points", {})
    for kind in _ORDER[:-1]:
        group = GROUPS[kind]
        if points.get(group) and folder.parent.name != "toolkits":  # a toolkit may bring commands
            return Project(folder=folder, kind=kind, name=next(iter(points[group])), data=data)
    kind = _FOLDERS.get(folder.parent.name, "toolkit")
    return Project(
        folder=folder, kind=kind, name=re.sub(r"^moco-toolkit-", "", folder.name).replace("-", "_"), data=data
    )


def closure(chosen: Iterable[Project], everything: Sequence[Project]) -> list[Project]:
    """Return ``chosen`` and all packages of the repository that they need, in a fixed order."""
    by_name = {_normal(p.distribution): p for p in everything}
    found: dict[str, Project] = {}
    todo = list(chosen)
    while todo:
        project = todo.pop()
        if project.label not in found:
            found[project.label] = project
            todo += [by_name[r] for r in project.requires() if r in by_name]
    return [p for p in everything if p.label in found]


# ---------------------------------------------------------------- what must hold


def _enters(project: Project, points: Mapping[str, str]) -> bool:
    """Whether the one entry point is the package, or for a command something in it."""
    value = points.get(project.name, "")
    if project.kind == "command":
        module, _, attribute = value.partition(":")
        value = module.partition(".")[0] if attribute else ""
    return set(points) == {project.name} and value == project.package


def problems_of(project: Project) -> Iterator[str]:
    """Yield what a person must repair in one distribution: what ``sync`` cannot decide."""
    facts, kind, name = project.facts, project.kind, project.name
    if facts.get("name") != project.distribution:
        yield f"project.name is {facts.get('name')!r}, expected {project.distribution!r}"
    if project.folder.parent.name in _FOLDERS and project.folder.name != name:
        yield f"the folder is called {project.folder.name!r}, expected {name!r} like the plugin"
    if kind != "toolkit" and not _enters(project, facts.get("entry-points", {}).get(GROUPS[kind], {})):
        value = f"{project.package}:COMMAND" if kind == "command" else project.package
        yield f'expected the single entry point {name} = "{value}" in the group {GROUPS[kind]}'
    for file in (f"{project.package}/__init__.py", f"{project.package}/py.typed", "README.md"):
        if not (project.folder / file).is_file():
            yield f"{file} is missing"
    if not list((project.folder / "tests").glob("test_*.py")):
        yield "tests/test_*.py is missing"
    if project.data.get("tool", {}).get("hatch", {}).get("build", {}).get("targets", {}).get("wheel", {}).get(
        "packages"
    ) != [project.package]:
        yield f'expected packages = ["{project.package}"] in [tool.hatch.build.targets.wheel]'
    keywords = facts.get("keywords", [])
    if keywords[:2] != ["moco", f"spec-{SPEC}"]:
        yield f'keywords must begin with "moco", "spec-{SPEC}"'
    if project.contributed != ("contrib" in keywords):
        yield f'keywords must {"" if project.contributed else "not "}hold "contrib"'
    if kind == "method" and project.level not in ("api", "text", "logit", "weight"):
        yield 'keywords must hold one of "level-api", "level-text", "level-logit", "level-weight"'
    if not str(facts.get("version", "")).strip():
        yield "project.version is missing"
    if "urls" in facts:
        yield "project.urls: packages of this repository state none"
    everything = [
        *facts.get("dependencies", []),
        *(r for e in facts.get("optional-dependencies", {}).values() for r in e),
    ]
    for requirement in everything:
        if "==" in requirement.split(";")[0]:
            yield f"the requirement {requirement!r} is a pin; give a range"
    if "moco-core" not in project.requires():
        yield f'dependencies lack "moco-core{CORE_RANGE}"'
    if kind == "dataset" and (metric := default_metric(project)) not in project.requires():
        yield f'dependencies lack "{metric}{CORE_RANGE}", the default metric: whoever installs the dataset can score it'


def default_metric(project: Project) -> str:
    """Return the distribution of a dataset's default metric."""
    return _normal(f"moco-metric-{_load(project).facts.metric}")


def cross_problems(everything: Sequence[Project], root: Path) -> Iterator[str]:
    """Yield what is wrong between packages: repeated test names, unknown packages of this repository."""
    names: dict[str, Path] = {}
    for file in sorted([*root.glob("plugins/*/*/tests/test_*.py"), *root.glob("contrib/*/tests/test_*.py")]):
        first = names.setdefault(file.name, file)
        if first is not file:
            yield f"{file.relative_to(root)}: {first.relative_to(root)} has the same name; rename one"
    known = {_normal(p.distribution) for p in everything} | {"moco-core", "moco-toolkit-authoring"}
    for project in everything:
        for requirement in project.requires(extras=project.facts.get("optional-dependencies", {})):
            if requirement.startswith("moco-") and requirement not in known:
                near = suggest(requirement, known)
                yield f"{project.folder.relative_to(root)}: requires {requirement}, which is not in this repository{near}"


# ---------------------------------------------------------------- what sync writes


def synced_pyproject(text: str) -> str:
    """Return a plugin's pyproject.toml with the shared parts as they should be; the rest is left alone."""
    table = re.compile(r"^\[build-system\]\n(?:(?!\[).*\n)*?(?=\n*^\[|\Z)", re.MULTILINE)
    text = table.sub(lambda m: _BUILD_SYSTEM, text, count=1) if table.search(text) else f"{_BUILD_SYSTEM}\n{text}"
    for key, value in _SHARED_LINES.items():
        line = re.compile(rf"^{key} *=.*$", re.MULTILINE)
        if line.search(text):
            text = line.sub(f"{key} = {value}", text, count=1)
        else:
            text = re.sub(r"^(description *=.*)$", rf"\1\n{key} = {value}", text, count=1, flags=re.MULTILINE)
    # every package of this repository states one range on the core and on the others; extras are kept
    return re.sub(r'"(moco-[a-z0-9-]+)(\[[^\]"]*\])?[^"\[\]]*"(?=\s*[,\]\n])', _ranged, text)


def _ranged(found: re.Match[str]) -> str:
    inside_dependencies = found.string.rfind("=", 0, found.start())
    key = found.string[found.string.rfind("\n", 0, inside_dependencies) + 1 : inside_dependencies].strip()
    if key in ("name", "description") or found.string.rfind("[", inside_dependencies, found.start()) < 0:
        return found[0]
    return f'"{found[1]}{found[2] or ""}{CORE_RANGE}"'


def synced_readme(project: Project, text: str) -> str:
    """Return a plugin's README with its option table as it should be. Markers are added below a heading "Options".

    Raises ConfigError if there is neither, or if the plugin cannot be imported.
    """
    if project.kind in ("toolkit", "command"):  # a command shows its options with --help
        return text
    where = str(project.folder / "README.md")
    if marked(text, "options") is None:
        heading = re.search(r"^#{2,4} +Options[^\n]*\n", text, flags=re.MULTILINE)
        if heading is None:
            raise ConfigError(f'{where}: the heading "## Options" is missing')
        rest = text[heading.end() :]
        rest = re.sub(r"\A\s*(\|[^\n]*\n)+", "\n", rest)  # the table that stood there by hand
        text = f"{text[: heading.end()]}\n<!-- moco:options -->\n<!-- /moco:options -->\n{rest}"
    return replace_marked(text, "options", option_table(_load(project).Options), where)


def _load(project: Project) -> type[Any]:
    """Import a plugin from its folder, installed or not."""
    folder = str(project.folder)
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(project.package)
        cls: type[Any] = getattr(module, f"moco_{project.kind}")()
    except Exception as error:
        raise ConfigError(f"{project.folder}: cannot be imported: {type(error).__name__}: {error}") from None
    finally:
        sys.path.remove(folder)
    return cls


def synced_index(root: Path, text: str, everything: Sequence[Project]) -> str:
    """Return the README at the top with its tables of plugins; a table without markers is left out."""
    for kind in _ORDER:
        rows = []
        for project in (p for p in everything if p.kind == kind and not p.contributed):
            link = f"[`{project.name}`]({project.folder.relative_to(root).as_posix()})"
            description = str(project.facts.get("description", ""))
            rows.append([link, project.level, description] if kind == "method" else [link, description])
        header = ["method", "level", "what it does"] if kind == "method" else [kind, "what it does"]
        if marked(text, f"{kind}s") is not None:
            text = replace_marked(text, f"{kind}s", markdown_table(header, rows))
    if marked(text, "contrib") is not None:
        rows = [
            [f"[`{p.name}`]({p.folder.relative_to(root).as_posix()})", p.kind, str(p.facts.get("description", ""))]
            for p in everything
            if p.contributed
        ]
        text = replace_marked(text, "contrib", markdown_table(["package", "kind", "what it does"], rows))
    return text


def sync_project(project: Project) -> dict[Path, str]:
    """Return the files of one distribution that are out of step, with the text they should have."""
    out = {}
    for file, synced in (
        (project.folder / "pyproject.toml", synced_pyproject),
        (project.folder / "README.md", lambda text: synced_readme(project, text)),
    ):
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            if (wanted := synced(text)) != text:
                out[file] = wanted
    return out


# ---------------------------------------------------------------- commands


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    command, *rest = [*arguments] or ["--help"]
    try:
        if command in ("sync", "check"):
            return _sync_or_check(command, [Path(r) for r in rest])
        if command == "editable":
            print(*(f"-e {p.folder.relative_to(Path.cwd())}" for p in _named(rest)))
            return 0
        if command == "packages":
            code = {f.parent for p in _named(rest) for f in p.folder.glob("*/*.py")}  # scripts beside a package too
            print("moco_core", *sorted(f.relative_to(Path.cwd()) for f in code if f.name != "tests"))
            return 0
        if command == "wheels" and len(rest) == 1:
            root = root_of(Path.cwd())
            wheels = build_wheels([root, *(p.folder for p in projects(root))], Path(rest[0]))
            print(f"{len(wheels)} wheels in {rest[0]}")
            return 0
    except MocoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(__doc__, file=sys.stderr)
    return 0 if command in ("--help", "-h") else 2


def _named(labels: Sequence[str]) -> list[Project]:
    """Return the projects of labels such as ``method/cascade`` with all they need; all projects without labels."""
    everything = projects(root_of(Path.cwd()))
    if not labels:
        return everything
    known = {p.label: p for p in everything}
    if "demo" in labels:
        wanted = extra_of((root_of(Path.cwd()) / "pyproject.toml").read_text(encoding="utf-8"), "demo")
        labels = [*(x for x in labels if x != "demo"), *(p.label for p in everything if p.distribution in wanted)]
    for label in labels:
        if label not in known:
            raise ConfigError(f"no package {label!r} in this repository{suggest(label, known)}")
    return closure([known[label] for label in labels], everything)


def _sync_or_check(command: str, folders: Sequence[Path]) -> int:
    problems: list[str] = []
    stale: dict[Path, str] = {}
    try:
        root = root_of(folders[0] if folders else Path.cwd())
        everything = projects(root)
    except ConfigError:
        if not folders:
            raise
        root, everything = Path.cwd(), []
    chosen = [read_project(f.resolve()) for f in folders] if folders else everything
    for project in chosen:
        where = _shown(project.folder, root)
        if everything:
            problems += [f"{where}: {p}" for p in problems_of(project)]
        try:
            stale |= sync_project(project)
        except ConfigError as error:
            problems.append(str(error))
    if everything and not folders:
        problems += cross_problems(everything, root)
        index = root / "README.md"
        text = index.read_text(encoding="utf-8") if index.is_file() else ""
        if (wanted := synced_index(root, text, everything)) != text:
            stale[index] = wanted
        core = root / "pyproject.toml"
        text = core.read_text(encoding="utf-8")
        if (wanted := synced_extra(text, "all", sorted(p.distribution for p in everything), CORE_RANGE)) != text:
            stale[core] = wanted
    return _report(command, root, stale, problems)


def _report(command: str, root: Path, stale: dict[Path, str], problems: Sequence[str]) -> int:
    for problem in problems:
        print(f"repair by hand: {problem}", file=sys.stderr)
    for file, text in stale.items():
        if command == "sync":
            file.write_text(text, encoding="utf-8")
            print(f"wrote {_shown(file, root)}")
        else:
            print(f"out of step: {_shown(file, root)}", file=sys.stderr)
    if command == "check" and stale:
        folders = sorted({_shown(f.parent, root) for f in stale})
        few = len(folders) <= 3 and "." not in folders  # more are repaired together
        print(
            f"run: python -m moco_toolkit_authoring.maintain sync{' ' + ' '.join(folders) if few else ''}",
            file=sys.stderr,
        )
    return 1 if problems or (command == "check" and stale) else 0


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
