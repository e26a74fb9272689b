from pathlib import Path

import pytest

from moco_core import cli
from moco_core.catalogue import installed

TOYS = Path(__file__).parent / "toy_plugins.py"


@pytest.fixture
def toys() -> Path:
    return TOYS


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@pytest.fixture
def moco(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder with the toy plugins and a cache of its own; the core prints its own tables."""
    installed().plugins("report")
    monkeypatch.setitem(installed()._plugins, "report", {})
    monkeypatch.setattr(installed(), "_registered", {})  # whatever other tests registered in this process
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "cache" / "calls.sqlite"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "served.log"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str, toys: bool = True) -> Outcome:
        full = list(args)
        if toys and args and args[0] in ("run", "bench", "plan", "ask", "list", "show", "check"):
            full += ["--plugin", str(TOYS)]
        code = cli._run(full)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    run.folder = tmp_path
    return run


@pytest.fixture
def served(tmp_path):
    """The calls that toy engines answered so far, as ``model<TAB>prompt`` lines."""

    def read() -> list[str]:
        path = tmp_path / "served.log"
        return path.read_text().splitlines() if path.exists() else []

    return read


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that can be imported, and return its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = iter(range(100))

    def make(text):
        name = f"plug_{tmp_path.name.replace('-', '_')}_{next(count)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return make
