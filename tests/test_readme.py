"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from moco_core.cli import cli
from moco_core.context import Context

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_method_is_compared_with_every_model_of_the_pool(tmp_path, monkeypatch) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Longest(" in block)
    (tmp_path / "longest.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    (line,) = (x.split() for x in re.findall(r"`moco (run longest [^`]*)`", README))
    toys = ["-p", "toy_pool", "-d", "toys", "--plugin", str(ROOT / "tests" / "core" / "toy_plugins.py")]
    line = [word for word in line if word not in ("-d", "skills")]
    got = CliRunner().invoke(cli, [*line, *toys], catch_exceptions=False, standalone_mode=False)
    assert got.exit_code == 0, got.output
    assert re.search(r"^longest +[01]\.\d", got.output, re.MULTILINE), got.output


def test_the_page_of_the_contract_names_everything_that_context_offers() -> None:
    page = (ROOT / "moco_core" / "README.md").read_text(encoding="utf-8")
    table = page.split("## What `context` offers")[1].split("## What a system saves")[0]
    named = set(re.findall(r"\b([a-z_]+)\b", table))
    offered = {n for n in (*vars(Context), *Context.__annotations__) if not n.startswith("_")}
    assert offered <= named, offered - named


FEW = "test=6, dev=6"
PYTHON = next(b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "moco.run(" in b)
COMMANDS = README.split("## Ten minutes with the command line")[1].split("```bash\n")[1].split("```")[0]


@pytest.fixture
def beginner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like a fresh checkout with an empty cache; what the commands and the code need is installed."""
    for name in ("moco_pool_tiny", "moco_dataset_skills", "moco_method_cascade", "moco_method_majority_vote"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    (tmp_path / "templates").symlink_to(ROOT / "templates")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    return tmp_path


def typed_lines(block: str) -> list[list[str]]:
    return [words[1:] for words in _statements(block) if words[0] == "moco"]


def _statements(block: str) -> list[list[str]]:
    """Split a block of shell into statements; a quoted text may span lines."""
    out, held = [], ""
    for line in block.splitlines():
        held += line + "\n"
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quotation that is still open
            continue
        out += [words] if words else []
        held = ""
    assert not held
    return out


def test_every_command_of_the_first_ten_minutes_works_in_the_order_it_stands(beginner: Path) -> None:
    """The grids are cut down to six questions; all else is typed as printed."""
    lines = typed_lines(COMMANDS)
    assert {line[0] for line in lines} >= {"list", "show", "plan", "run", "bench", "new", "ask", "cache", "doctor"}
    for line in lines:
        few = ["-o", "test=6", "-o", "dev=6"] if line[0] in ("run", "bench") else []
        got = CliRunner().invoke(cli, [*line, *few], catch_exceptions=False, standalone_mode=False)
        assert got.exit_code == 0 and got.output.strip(), (line, got.output)


def test_the_example_in_python_works_in_a_notebook_where_an_event_loop_runs_already(beginner: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    client = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    code = PYTHON.replace("test=200", FEW)
    assert code != PYTHON
    loop = "import asyncio\nassert asyncio.get_running_loop().is_running()"
    inside = (
        "async with moco.open(results['cascade'].folder) as opened:\n"
        "    both = [(await opened.ask(question)).text, moco.load(results['cascade'].folder).ask(question).text]\n"
        "print(both[0] == both[1])"
    )
    cells = [nbformat.v4.new_code_cell(c) for c in (loop, code, inside)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    said = ["".join(o.get("text", "") for o in c.outputs if o.get("name") == "stdout") for c in notebook.cells]
    assert "best single" in said[1] and "majority_vote" in said[1]
    assert said[2].strip() == "True"
