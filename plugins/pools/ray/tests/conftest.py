"""One cluster for all tests of a module: a head that runs nothing, and two nodes of one CPU each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moco_core.catalogue import installed
from moco_core.options import build
from moco_pool_ray.options import Options
from moco_pool_ray.pool import RayPool

MODELS = Path(__file__).parent / "ray_models.py"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    from moco_toolkit_ray.testing import Nodes

    with Nodes({"cpus": 1}, {"cpus": 1}) as running:
        yield running


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the scripted models known by name."""
    monkeypatch.setattr(installed(), "_registered", {})
    ((_, name),) = installed().register_file(MODELS)
    return name


@pytest.fixture
def cluster(nodes: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The cluster, which this process has left again at the end of the test."""
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    yield nodes
    import ray

    ray.shutdown()


@pytest.fixture
def source() -> Any:
    def make(pool: dict[str, Any], **options: Any) -> RayPool:
        # an actor of the scripted models needs next to nothing
        given = {"pool": pool, "memory": 0.25, **options}
        return RayPool(build(Options, given, plugins=installed()))

    return make
