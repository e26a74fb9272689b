"""Building wheels, checking what was built where nothing else is, and the extras of the core that name packages."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from moco_core.errors import ConfigError, PluginError, StoreError
from moco_core.kinds import GROUPS

__all__ = ["build_wheels", "check_wheel", "extra_of", "synced_extra"]


def build_wheels(folders: Sequence[Path], target: Path) -> list[Path]:
    """Build one wheel for each folder into ``target``, in this process, and return their paths.

    Raises ConfigError without hatchling, StoreError if one cannot be built.
    """
    try:
        from hatchling.builders.wheel import WheelBuilder
    except ModuleNotFoundError:
        raise ConfigError("building wheels needs hatchling: pip install hatchling") from None
    out = []
    for folder in folders:
        try:
            (wheel,) = WheelBuilder(str(folder)).build(directory=str(target.resolve()), versions=["standard"])
        except (OSError, ValueError) as error:
            raise StoreError(f"{folder}: its wheel cannot be built: {error}") from None
        out.append(Path(wheel))
    return out


def check_wheel(path: Path, say: Callable[[str], None]) -> int:
    """Install a wheel (or what is built from a plugin's folder) in a fresh environment and check it there.

    First with nothing beside it but what it declares: the plugin must import and show its options. Then the conformance
    checks are installed and run; their exit code is returned. pip's own variables (an index, local wheels) hold as usual.
    Raises ConfigError or PluginError.
    """
    with tempfile.TemporaryDirectory(prefix="moco-wheel-") as temporary:
        folder = Path(temporary)
        wheel = path if path.suffix == ".whl" else _built(path, folder)
        kind, name = _plugin_of(wheel)
        say(f"{wheel.name}: {kind} {name}")
        python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        _run([sys.executable, "-m", "venv", str(folder / "env")], "a fresh environment cannot be made")
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        _run([*pip, str(wheel)], "it cannot be installed")
        say("installed with what it declares")
        moco = [str(python), "-m", "moco_core"]
        _run([*moco, "show", kind, name], "it does not work with what it declares alone")
        say("imports and shows its options")
        _run([*pip, "moco-toolkit-authoring"], "the conformance checks cannot be installed")
        return subprocess.run([*moco, "check", kind, name], cwd=folder, check=False).returncode


def _built(folder: Path, target: Path) -> Path:
    if not (folder / "pyproject.toml").is_file():
        raise ConfigError(f"{folder}: neither a wheel nor a folder with a pyproject.toml")
    (wheel,) = build_wheels([folder], target)
    return wheel


def _plugin_of(wheel: Path) -> tuple[str, str]:
    """Return kind and name of the plugin in a wheel, from its entry points."""
    points = configparser.ConfigParser()
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in archive.namelist():
                if file.endswith(".dist-info/entry_points.txt"):
                    points.read_string(archive.read(file).decode("utf-8"))
    except (OSError, zipfile.BadZipFile, configparser.Error) as error:
        raise ConfigError(f"{wheel}: not a readable wheel: {error}") from None
    for kind, group in GROUPS.items():
        if points.has_section(group):
            return kind, next(iter(points[group]))
    raise PluginError(f"{wheel.name}: it has no entry point in {', '.join(GROUPS.values())}")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise PluginError(f"{what}: {lines[-1].removeprefix('error: ').removeprefix('ERROR: ')}")


def _pattern(extra: str) -> re.Pattern[str]:
    return re.compile(rf"^{extra} = \[(?P<body>[^\]]*(?:\[[^\]]*\][^\]]*)*)\]", re.MULTILINE)


def extra_of(text: str, extra: str) -> list[str]:
    """Return the distributions that an extra of a pyproject.toml names, without their ranges. Raises ConfigError."""
    found = _pattern(extra).search(text)
    if found is None:
        raise ConfigError(f"pyproject.toml: the extra {extra!r} is missing")
    return [re.split(r"[^a-z0-9-]", r, maxsplit=1)[0] for r in re.findall(r'"([^"]+)"', found["body"])]


def synced_extra(text: str, extra: str, distributions: Sequence[str], versions: str) -> str:
    """Return a pyproject.toml whose ``extra`` names these distributions; one without the extra is left alone."""
    lines = "".join(f'    "{name}{versions}",\n' for name in distributions)
    return _pattern(extra).sub(lambda _: f"{extra} = [\n{lines}]", text, count=1)
