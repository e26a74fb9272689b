"""The application that is built into a page, and what reporting imports."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import moco_command_report

FRONTEND = Path(__file__).parents[1] / "frontend"
ASSET = Path(moco_command_report.__file__).parent / "asset"


def test_the_built_application_is_that_of_its_sources() -> None:
    listed = dict(reversed(line.split("  ")) for line in (ASSET / "sha256.txt").read_text().splitlines())
    sources = {"build.mjs", "package.json", "package-lock.json", "tsconfig.json"}
    sources |= {f"src/{file.name}" for file in (FRONTEND / "src").iterdir()}
    built = {f"asset/{name}" for name in ("report.js", "report.css", "licences.txt")}
    assert listed.keys() == sources | built
    for name, found in listed.items():
        file = ASSET.parent / name if name in built else FRONTEND / name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == found, (
            f"{name} changed: npm ci && npm run build in {FRONTEND}"
        )


def test_what_is_bundled_comes_with_its_licence() -> None:
    text = (ASSET / "licences.txt").read_text()
    for name in json.loads((FRONTEND / "package.json").read_text())["dependencies"]:
        assert re.search(rf"^{name} \d", text, re.M)
    assert "MIT License" in text or "The MIT License" in text


@pytest.mark.skipif(
    not (FRONTEND / "node_modules").is_dir() or not shutil.which("node"), reason="npm ci was not run here"
)
def test_building_again_makes_the_same_bytes(tmp_path: Path) -> None:
    copy = tmp_path / "frontend"
    shutil.copytree(FRONTEND, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(FRONTEND / "node_modules")
    (tmp_path / "moco_command_report" / "asset").mkdir(parents=True)
    subprocess.run(["node", "build.mjs"], cwd=copy, check=True, capture_output=True)
    for file in ASSET.iterdir():
        assert (tmp_path / "moco_command_report" / "asset" / file.name).read_bytes() == file.read_bytes()


def test_reporting_imports_no_engine_and_help_not_even_numpy(grid: Path, tmp_path: Path) -> None:
    for args, heavy in (
        (["report", str(grid), "-o", str(tmp_path / "r.html")], "'torch', 'transformers', 'pandas', 'scipy'"),
        (["report", "--help"], "'torch', 'numpy', 'rich', 'yaml'"),
    ):
        code = (
            "import sys\n"
            "from moco_core.cli import _run\n"
            f"assert _run({args!r}) == 0\n"
            f"bad = [m for m in sys.modules if m.split('.')[0] in ({heavy})"
            " or m.startswith(('moco_method_', 'moco_pool_', 'moco_dataset_', 'moco_metric_'))]\n"
            "assert not bad, bad\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
