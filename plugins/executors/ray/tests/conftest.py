"""One cluster for all tests of a module, and grids on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from moco_core import cli
from moco_core.catalogue import installed


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    from moco_toolkit_ray.testing import Nodes

    with Nodes({"cpus": 1}, {"cpus": 1}) as running:
        yield running


@attrs.frozen
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def bench(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Iterator[Callable[..., Done]]:
    """Run a grid of two seeds, with its own cache and its own folder of runs, on the cluster or (``here``) in this process.

    ``address`` is that of another cluster, ``given`` the command's arguments in place of the usual ones.
    """
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    from grid_helpers import arguments, environment

    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)

    def run(
        name: str,
        here: bool = False,
        more: tuple[str, ...] = (),
        address: str = "",
        given: list[str] | None = None,
        **pool: Any,
    ) -> Done:
        at = "" if here else address or request.getfixturevalue("nodes").address
        monkeypatch.setattr(installed(), "_registered", {})
        capfd.readouterr()
        code = cli._run(["bench", *(given or arguments(name, at, pool)), *more])
        out, err = capfd.readouterr()
        if address:
            ray.shutdown()  # the next grid is on another cluster
        return Done(code, out, err)

    import ray

    yield run
    ray.shutdown()
