"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

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
