"""A checkpoint in a folder, and a machine that tests pretend to have."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from transformers_tiny import checkpoint

    return Path(checkpoint(tmp_path / "model"))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine with two devices."""
    from moco_pool_transformers import placement
    from moco_pool_transformers.placement import Room

    devices = ["cpu:0", "cpu:1"]
    monkeypatch.setattr(placement, "devices", lambda: devices)
    monkeypatch.setattr(placement, "rooms", lambda names, memory: {d: Room(bytes=1 << 30) for d in names})
    return devices
