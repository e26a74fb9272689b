"""Building every distribution once, and giving each test a fresh environment with few of them installed.

Third-party packages are not installed again: a fresh environment sees those of the running one through a folder of links
that leaves out everything of this repository, so that an import which a package does not declare still fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from hatchling.builders.wheel import WheelBuilder

from moco_toolkit_authoring.maintain import Project, closure, projects

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Run a command and return its output; a failure shows all of it."""
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))} exited {done.returncode}:\n{done.stdout}", pytrace=False)
    return done.stdout


def uv() -> str:
    """Return the uv program beside this interpreter, or on the path."""
    found = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if found is None:
        pytest.fail("uv is missing; run the packaging test through `make packaging`", pytrace=False)
    return found


def build(folder: Path, target: Path) -> Path:
    """Build one wheel into ``target`` and return it. In this process: starting one for each takes longer than building."""
    (wheel,) = WheelBuilder(str(folder)).build(directory=str(target), versions=["standard"])
    return Path(wheel)


@attrs.frozen(kw_only=True)
class Wheels:
    """The wheels of the repository, each built when it is first asked for."""

    folder: Path
    everything: list[Project] = attrs.field(factory=lambda: projects(ROOT))
    _built: dict[Path, Path] = attrs.field(factory=dict)

    def of(self, source: Path) -> Path:
        if source not in self._built:
            self._built[source] = build(source, self.folder / str(len(self._built)))
        return self._built[source]

    @property
    def core(self) -> Path:
        return self.of(ROOT)

    @property
    def authoring(self) -> Path:
        return self.of(ROOT / "plugins" / "toolkits" / "authoring")

    def needed(self, project: Project, *, extra: str | None = None) -> list[Path]:
        """Return the wheels of a package and of all it declares to need, for one of its extras too."""
        wanted = set(project.requires([extra])) if extra else set()
        chosen = [project, *(p for p in self.everything if p.distribution in wanted)]
        return [self.core, *(self.of(p.folder) for p in closure(chosen, self.everything))]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    return Wheels(folder=tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of links to the third-party packages of the running environment, and to nothing of this repository."""
    links = tmp_path_factory.mktemp("third-party")
    for source in {Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))}:
        for entry in source.iterdir():
            ours = entry.name.startswith(("moco_", "moco-", "_moco", "__editable__", "_editable"))
            if not ours and entry.suffix != ".pth" and not (links / entry.name).exists():
                (links / entry.name).symlink_to(entry)
    return links


@attrs.frozen
class Environment:
    """A fresh virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(self, *arguments: str | Path, cwd: Path | None = None, path: Path | None = None) -> str:
        """Run Python in this environment, away from the checkout, offline; ``path`` is added to its PYTHONPATH."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MOCO_", "PYTHON", "VIRTUAL_ENV"))}
        env = {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "MOCO_CACHE": str(self.folder / "calls.sqlite")}
        if path is not None:
            env["PYTHONPATH"] = str(path)
        return run(self.python, *arguments, cwd=cwd or self.folder, env=env)

    def moco(self, *arguments: str) -> str:
        code = "import sys; from moco_core.cli import main; main(sys.argv[1:])"
        return self.run("-c", code, *arguments)

    def install(self, wheels: Sequence[Path]) -> None:
        run(uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", self.python, *wheels)


@pytest.fixture
def environment(tmp_path: Path, third_party: Path) -> Iterator[Environment]:
    """Return a fresh environment with third-party packages only; removed after the test."""
    folder = tmp_path / "env"
    run(uv(), "venv", "--quiet", "--python", sys.executable, folder)
    (site,) = folder.glob("lib/python*/site-packages") if os.name != "nt" else folder.glob("Lib/site-packages")
    (site / "third_party.pth").write_text(f"{third_party}\n", encoding="utf-8")
    yield Environment(folder)
    shutil.rmtree(folder)
