"""One tiny model that is trained in this process: libraries are imported once, and no process is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    pytest.importorskip("moco_pool_transformers", reason="the engine is a plugin of its own")
    from training_lab import Lab

    return Lab(tmp_path_factory.mktemp("lab"))
