"""Puts the tests' helper module on the path, whatever import mode pytest runs in; machines that tests pretend to have."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with two devices."""
    from moco_pool_transformers import placement
    from moco_pool_transformers.placement import Room

    devices = ["cpu:0", "cpu:1"]
    monkeypatch.setattr(placement, "devices", lambda: devices)
    monkeypatch.setattr(placement, "rooms", lambda names, memory: {d: Room(bytes=1 << 30) for d in names})
    return devices
