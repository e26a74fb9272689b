"""The README's commands for installing, as they stand there, in fresh environments; only the places are put in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moco_toolkit_authoring.maintain import projects
from moco_toolkit_authoring.wheels import build_wheels, extra_of

from .conftest import ROOT, Environment, uv

pytestmark = pytest.mark.packaging

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(part: str) -> str:
    """Return a marked part's commands as a script."""
    found = re.search(rf"<!-- install:{part} -->\n```bash\n(.*?)```\n<!-- /install:{part} -->", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel of every package."""
    target = tmp_path_factory.mktemp("dist")
    build_wheels([ROOT, *(p.folder for p in projects(ROOT))], target)
    return target


def shell(script: str, environment: Environment, cwd: Path, dist: Path) -> str:
    """Run a script in which pip and uv install into a fresh environment, offline, and ours from ``dist`` alone."""
    tools = cwd / "tools"
    tools.mkdir()
    pip = f'exec {sys.executable} -m pip --python {environment.python} --disable-pip-version-check "$@"'
    (tools / "pip").write_text(f"#!/bin/sh\n{pip}\n")
    (tools / "uv").write_text(f'#!/bin/sh\nVIRTUAL_ENV={environment.folder} exec {uv()} "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "PYTHON", "VIRTUAL_ENV"))}
    env |= {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(dist),
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads "no" as the opposite: hatchling is the running environment's
        "UV_NO_INDEX": "1",
        "UV_FIND_LINKS": str(dist),
        "UV_NO_DEPS": "1",  # third-party packages lie on the path, where uv does not look
        "GIT_CONFIG_COUNT": "1",  # the address that readers replace stands for this checkout
        "GIT_CONFIG_KEY_0": f"url.file://{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/you/moco",
    }
    done = subprocess.run(["sh", "-euc", script], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def ours(environment: Environment) -> set[str]:
    code = "from importlib.metadata import distributions as d; print(*{x.name for x in d() if x.name.startswith('moco')})"
    return set(environment.run("-c", code).split())


def test_what_an_index_serves_works_and_brings_nothing_else(
    dist: Path, environment: Environment, tmp_path: Path
) -> None:
    first, *_ = commands("index").splitlines()
    shell(first, environment, tmp_path, dist)
    installed = ours(environment)
    assert {"moco-core", "moco-pool-tiny", "moco-method-majority-vote", "moco-dataset-gsm8k"} <= installed
    assert not {n for n in installed if n.startswith("moco-method")} - {"moco-method-majority-vote"}
    assert "moco-toolkit-authoring" not in installed
    data = tmp_path / "gsm8k.jsonl"
    row = '{"question": "Tom has %d apples and buys 2. How many has he?", "answer": "He has %d.\\n#### %d"}\n'
    data.write_text("".join(row % (i, i + 2, i + 2) for i in range(8)))
    out = environment.moco(
        "run", "majority_vote", "-d", "gsm8k", "-o", f"dataset.path={data}", "-o", "dev=2", "-o", "test=2",
        "-o", "sampling.max_new_tokens=4", "-o", "pool.models=[facts, letters]", "--out", str(tmp_path / "runs"),
    )  # fmt: skip
    assert "majority_vote" in out


def test_the_extras_name_what_they_promise(dist: Path, environment: Environment, tmp_path: Path) -> None:
    _, demo, authoring = commands("index").splitlines()
    shell(f"{demo}\n{authoring}", environment, tmp_path, dist)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(extra_of(text, "demo")) <= ours(environment)
    assert "new" in environment.moco("--help")


def test_a_checkout_serves_itself(dist: Path, environment: Environment, tmp_path: Path) -> None:
    make, pip, uv_line = commands("checkout").splitlines()
    assert make.startswith("make wheels ")
    (tmp_path / "dist").symlink_to(dist)
    shell(f"{pip}\n{uv_line}", environment, tmp_path, dist)
    assert "majority_vote" in environment.moco("list", "method")


def test_a_git_repository_serves_its_subdirectories(dist: Path, environment: Environment, tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    environment.run("-c", "import hatchling")  # the build backend is at hand
    shell(commands("git"), environment, tmp_path, dist)
    assert "majority_vote" in environment.moco("list", "method")
