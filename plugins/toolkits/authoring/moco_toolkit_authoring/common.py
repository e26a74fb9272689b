"""Checks of every plugin, whatever its kind: entry point, import, options, documentation, metadata."""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

import attrs

from moco_core.cli.describing import describe
from moco_core.errors import ConfigError
from moco_core.kinds import SPEC
from moco_core.options import build, plain
from moco_toolkit_authoring.suite import Case, Check, NotApplicable, check, require
from moco_toolkit_authoring.tables import marked, option_table

__all__ = ["CHECKS", "HEADINGS", "HEAVY", "project_folder"]

HEAVY = (
    "accelerate",
    "datasets",
    "flax",
    "jax",
    "matplotlib",
    "pandas",
    "peft",
    "ray",
    "scipy",
    "sklearn",
    "statsmodels",
    "sympy",
    "tensorflow",
    "tokenizers",
    "torch",
    "transformers",
    "vllm",
)
"""Packages that importing a plugin must not import: they are imported when they are used."""

_USUAL = ("what it does", "usage", "options", "limits")
HEADINGS = {
    "pool": _USUAL,
    "method": ("what it does", "paper", "needs", "usage", "options", "cost", "departures", "limits", "citation"),
    "dataset": _USUAL,
    "metric": _USUAL,
    "observer": _USUAL,
    "executor": _USUAL,
    "command": _USUAL,
}
"""How the headings of a plugin's README begin, by kind, in any order."""


def _packaged(case: Case) -> bool:
    return bool(case.info.distribution)


def distribution(case: Case) -> metadata.Distribution:
    """Return the distribution of an installed plugin; NotApplicable for one that was registered by hand."""
    if not case.info.distribution:
        raise NotApplicable("the plugin is not packaged")
    for point in metadata.entry_points(group=f"moco.{case.kind}"):
        if point.name == case.name and point.dist is not None:
            return point.dist
    return metadata.distribution(case.info.distribution)


def project_folder(dist: metadata.Distribution) -> Path | None:
    """Return the source folder of an editable installation, else None."""
    text = dist.read_text("direct_url.json")
    if not text:
        return None
    facts = json.loads(text)
    if not facts.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlparse(facts["url"]).path))


def _readme(dist: metadata.Distribution) -> str:
    folder = project_folder(dist)
    if folder is not None and (folder / "README.md").is_file():
        return (folder / "README.md").read_text(encoding="utf-8")
    facts = email.message_from_string(dist.read_text("METADATA") or "")
    return str(facts.get_payload() or facts["Description"] or "")


@check(per_setting=False)
def entry_point_resolves(case: Case) -> None:
    """The entry point imports, and its hook returns a class of the declared kind."""
    require(case.cls.Options is not None, f"{case.cls.__name__}.Options is missing")
    require(re.fullmatch(r"[a-z][a-z0-9_]*", case.name), f"the name {case.name!r} is not snake case")


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def import_is_light(case: Case) -> None:
    """Importing the plugin imports neither torch nor any other heavy library."""
    module = case.info.module
    code = (
        "import importlib, sys\n"
        f"importlib.import_module({module!r})\n"
        f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    require(done.returncode == 0, f"importing {module} in a fresh interpreter fails: {last}")
    require(not done.stdout.split(), f"importing {module} imports {', '.join(done.stdout.split())}; import them in use")


@check(per_setting=False, after=["entry_point_resolves"])
def options_have_defaults(case: Case) -> None:
    """Options are a frozen attrs class that can be made without arguments (a pool may have to be told its models)."""
    cls = case.cls.Options
    require(attrs.has(cls), f"{cls.__name__} is not an attrs class")
    missing = [i.name for i in describe(cls) if i.required]
    if missing and not case.given and case.kind == "pool":
        raise NotApplicable(f"the pool needs to be told: {', '.join(missing)}")
    if missing and not case.given:
        raise AssertionError(f"options without a default: {', '.join(missing)}")
    frozen = False
    instance = build(cls, case.given, plugins=case.catalogue)
    fields = [f.name for f in attrs.fields(cls)]
    if not fields:
        return
    try:
        setattr(instance, fields[0], getattr(instance, fields[0]))
    except attrs.exceptions.FrozenInstanceError:
        frozen = True
    require(frozen, f"{cls.__name__} is not frozen; use @attrs.frozen(kw_only=True)")


@check(per_setting=False, after=["entry_point_resolves"])
def options_are_documented(case: Case) -> None:
    """Every option has help."""
    bare = [i.name for i in describe(case.cls.Options) if not i.help.strip()]
    require(not bare, f"options without help: {', '.join(bare)}")


@check(per_setting=False, after=["options_have_defaults"])
def options_are_strict(case: Case) -> None:
    """Unknown options are refused, and so are values of an impossible type."""
    cls = case.cls.Options
    try:
        build(cls, {**case.given, "no_such_option": 1}, plugins=case.catalogue)
    except ConfigError:
        pass
    else:
        raise AssertionError("an unknown option is accepted")
    loose = []
    for info in describe(cls):
        try:
            build(cls, {**case.given, info.name: object()}, plugins=case.catalogue)
        except ConfigError:
            continue
        if info.type not in ("Any", "object"):
            loose.append(info.name)
    require(not loose, f"options that accept anything: {', '.join(loose)}; give them a type")


@check(after=["options_have_defaults"])
def options_round_trip(case: Case) -> None:
    """Options written as plain data and read again are equal, and the data is JSON."""
    options = case.options()
    data = plain(options)
    again = build(case.cls.Options, json.loads(json.dumps(data)), plugins=case.catalogue)
    require(again == options, f"options change on a round trip: {options} became {again}")


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def summary_is_the_docstring(case: Case) -> None:
    """The distribution's description is the first line of the module's or the class's docstring."""
    summary = case.info.summary.strip()
    module = sys.modules[case.info.module]
    lines = [(d or "").strip().splitlines()[0].strip() for d in (module.__doc__, case.cls.__doc__) if (d or "").strip()]
    require(lines, f"neither {module.__name__} nor {case.cls.__name__} has a docstring")
    require(
        summary in lines,
        f"the description {summary!r} is neither the module's nor the class's first docstring line ({lines[0]!r}); "
        "after a change of pyproject.toml install again",
    )


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def keywords_match_the_class(case: Case) -> None:
    """The keywords state the hook specification and, for a method, its level."""
    info = case.info
    require(info.spec == SPEC, f"keywords must contain 'spec-{SPEC}'; they are {', '.join(info.keywords) or 'empty'}")
    if case.kind == "method":
        require(
            info.level == case.cls.level,
            f"the keyword level-{info.level or '...'} and the class's level {case.cls.level!r} differ",
        )


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def distribution_follows_conventions(case: Case) -> None:
    """Name, licence, Python range and the range on the core are stated as in the templates; nothing is pinned."""
    facts = distribution(case).metadata
    require(facts["Requires-Python"], "requires-python is missing")
    require(facts["License-Expression"] or facts["License"], "license is missing")
    requires = facts.get_all("Requires-Dist") or []
    core = [r for r in requires if re.match(r"moco[-_]core\b", r)]
    require(core and re.search(r">=.*<|<.*>=", core[0]), "depend on the core by a range, such as moco-core>=0.1,<0.2")
    pinned = [r for r in requires if "==" in r.split(";")[0]]
    require(not pinned, f"exact pins: {', '.join(pinned)}; give ranges")


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def package_is_typed(case: Case) -> None:
    """The package carries py.typed."""
    module = sys.modules[case.info.module]
    top = sys.modules[case.info.module.partition(".")[0]]
    paths = [Path(p) for p in getattr(top, "__path__", [])] or [Path(str(module.__file__)).parent]
    require(any((p / "py.typed").is_file() for p in paths), f"{paths[0].name}/py.typed is missing")


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def readme_has_its_headings(case: Case) -> None:
    """The README has the headings that readers look for."""
    text = _readme(distribution(case))
    require(text.strip(), "there is no README")
    found = [h.strip().lower() for h in re.findall(r"^#{2,4} +(.+)$", text, flags=re.MULTILINE)]
    missing = [h for h in HEADINGS[case.kind] if not any(f.startswith(h) for f in found)]
    require(not missing, f"README.md lacks the headings: {', '.join(m.capitalize() for m in missing)}")


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def readme_option_table_is_current(case: Case) -> None:
    """The option table of the README is the one generated from the class."""
    shown = marked(_readme(distribution(case)), "options")
    require(shown is not None, "README.md lacks the markers <!-- moco:options --> and <!-- /moco:options -->")
    repair = "run: python -m moco_toolkit_authoring.maintain sync FOLDER"
    require(shown == option_table(case.cls.Options), f"the option table of README.md is not current; {repair}")


@check(per_setting=False, after=["entry_point_resolves"], applies=_packaged)
def installed_metadata_is_current(case: Case) -> None:
    """An editable installation shows what its pyproject.toml says now."""
    folder = project_folder(distribution(case))
    if folder is None or not (folder / "pyproject.toml").is_file():
        raise NotApplicable("not an editable installation")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    require(
        project.get("description", "") == case.info.summary
        and sorted(project.get("keywords", [])) == sorted(case.info.keywords),
        f"pyproject.toml has changed since it was installed; run: pip install -e {folder.name}",
    )


CHECKS: tuple[Check, ...] = (
    entry_point_resolves,
    import_is_light,
    options_have_defaults,
    options_are_documented,
    options_are_strict,
    options_round_trip,
    summary_is_the_docstring,
    keywords_match_the_class,
    distribution_follows_conventions,
    package_is_typed,
    readme_has_its_headings,
    readme_option_table_is_current,
    installed_metadata_is_current,
)
