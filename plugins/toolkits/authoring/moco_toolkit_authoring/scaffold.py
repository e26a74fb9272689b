"""``moco new``: complete plugins and run configurations made from the templates that ship with this package.

A template is a folder of files in which ``{{name}}`` and its like stand for what differs, in contents and in paths. The
plugins of this repository were made from the same templates.
"""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from moco_core.errors import ConfigError, StoreError, suggest

__all__ = ["MADE", "copy_run", "render", "run_templates", "template_folder"]

_TITLES = {
    "pool": "models that shuffle the words they are given.",
    "method": "asks every model and returns the answer that most of them give.",
    "dataset": "short word problems with whole-number answers.",
    "metric": "scores whether the last line of a reply equals a reference.",
    "observer": "writes a line of JSON for every run.",
}

MADE = tuple(_TITLES)
"""The kinds of plugins that there are templates of."""


def template_folder() -> Path:
    """Return where the templates lie: inside this package (in a checkout, a link to the folder at its top)."""
    folder = Path(__file__).resolve().parent / "_templates"
    if not folder.is_dir():
        raise StoreError(f"the templates are missing from {folder.parent}; reinstall moco-toolkit-authoring")
    return folder


def run_templates() -> dict[str, str]:
    """Return the run configurations to start from: name to what the first line of the file says."""
    files = sorted((template_folder() / "runs").glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}


def copy_run(name: str, target: Path) -> None:
    """Copy the run configuration ``name`` to the file ``target``.

    Raises ConfigError for an unknown name or a file that exists, StoreError if it cannot be written.
    """
    names = run_templates()
    if name not in names:
        raise ConfigError(
            f"no run configuration is called {name!r}{suggest(name, names)}; there are {', '.join(names)}"
        )
    text = (template_folder() / "runs" / f"{name}.yaml").read_text(encoding="utf-8")
    text = text.replace(f"templates/runs/{name}.yaml", str(target))
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{target} exists; choose another with --in") from None
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from None


def render(kind: str, name: str, folder: Path, *, summary: str = "") -> list[Path]:
    """Write a complete plugin of ``kind`` called ``name`` into ``folder`` and return the files, sorted.

    The plugin works as it is: it passes its own tests and ``moco check``. ``summary`` is its one-line description.
    Raises ConfigError for an impossible kind or name or a folder that is not empty, StoreError if it cannot be written.
    """
    if kind not in MADE:
        raise ConfigError(f"{kind!r} is no kind of plugin; the kinds are {', '.join(MADE)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ConfigError(f"the name {name!r} is not usable; take lower-case words joined by _, such as my_{kind}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; choose another with --in")
    values = _values(kind, name, summary)
    written = []
    try:
        for template in (template_folder() / "shared", template_folder() / kind):
            for source in sorted(p for p in template.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
                target = folder / _fill(str(source.relative_to(template)), values)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(_fill(source.read_text(encoding="utf-8"), values), encoding="utf-8")
                written.append(target)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from None
    return sorted(written)


def _values(kind: str, name: str, summary: str) -> dict[str, str]:
    title = name.replace("_", " ").capitalize()
    text = " ".join(summary.split()) or f"{title}: {_TITLES[kind]}"
    return {
        "kind": kind,
        "name": name,
        "distribution": f"moco-{kind}-{name}".replace("_", "-"),
        "package": f"moco_{kind}_{name}",
        "Class": "".join(word.capitalize() for word in name.split("_")),
        "title": title,
        "summary": text.replace("\\", "").replace('"', "'"),  # it stands inside quotes in TOML and in Python
    }


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda m: values.get(m[1], m[0]), text)
