"""The cache of a grid stands for any other, whatever caches come to have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from moco_core.runtime.cache import Cache
from moco_executor_ray.keeper import KeptCache


class Said:
    """What a remote call returns."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def future(self) -> Said:
        return self

    def result(self) -> Any:
        return self._value


def test_the_cache_of_a_grid_has_all_that_a_cache_has() -> None:
    keeper = SimpleNamespace(read_only=SimpleNamespace(remote=lambda: Said(True)))
    plain, kept = Cache(None), KeptCache(None, keeper)
    assert {name for name in vars(plain) if not name.startswith("_")} <= set(vars(kept))
    assert kept.read_only and not plain.read_only
    plain.close()
