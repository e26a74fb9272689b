"""One tiny model that is trained in this process: libraries are imported once, and no process is started."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    pytest.importorskip("moco_pool_transformers", reason="the engine is a plugin of its own")
    from training_lab import Lab

    return Lab(tmp_path_factory.mktemp("lab"))
