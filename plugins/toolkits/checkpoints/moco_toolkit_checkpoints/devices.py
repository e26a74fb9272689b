"""The devices of this machine."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["devices"]


def devices() -> list[str]:
    """Return the accelerators of this machine, or ``["cpu"]``. Imports torch only where there may be one."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if sys.platform == "linux" and not any(Path(d).exists() for d in drivers):
        return ["cpu"]
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]
