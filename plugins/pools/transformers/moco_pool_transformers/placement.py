"""Which model runs on which device."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["devices", "missing", "spread"]


def devices() -> list[str]:
    """Return the accelerators of this machine, or ``["cpu"]``. Imports torch only where there may be one."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    if sys.platform == "linux" and not any(Path(d).exists() for d in drivers):
        return ["cpu"]
    import torch

    if torch.cuda.is_available():
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def missing(device: str) -> str | None:
    """Return what is wrong with an option ``device`` on this machine, or None."""
    kind, _, number = device.partition(":")
    if device in ("", "auto", "cpu"):
        return None
    if kind not in ("cuda", "mps") or not (number.isdecimal() or device == kind):
        return f"expected cpu, cuda, cuda:N, mps or auto, got {device!r}"
    found = devices()
    if (f"{kind}:{number or 0}" if kind == "cuda" else kind) in found:
        return None
    return f"{device!r} is not on this machine; it has {', '.join(found)}"


def spread(models: Sequence[tuple[str, str, int]], wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    """Return a device per model.

    ``models`` are (base, fingerprint, bytes). Models with a wanted device keep it. Of the others the largest goes first, to
    the device with the fewest bytes so far; an adapter goes where its base is; a copy of a model goes to a device that has
    none of it yet (a replica, so that both work at once), and shares memory with the first where every device has one.
    """
    out = list(wanted)
    if "cuda" in out:
        first = next((d for d in available if d.startswith("cuda")), "cuda:0")
        out = [first if d == "cuda" else d for d in out]
    devices = list(available) or ["cpu"]
    load: dict[str, int] = dict.fromkeys(devices, 0)
    homes: dict[str, list[str]] = {}  # base -> devices that hold it
    seen: dict[tuple[str, str], int] = {}  # (fingerprint, device) -> copies there
    order = sorted(range(len(models)), key=lambda i: (out[i] == "", -models[i][2], i))
    for i in order:
        base, fingerprint, size = models[i]
        device = out[i]
        if not device:
            held = homes.get(base, [])
            fresh = [d for d in devices if d not in held]
            copied = any((fingerprint, d) in seen for d in held)
            if held and not (copied and fresh):
                device = min(held, key=lambda d: (seen.get((fingerprint, d), 0), load.get(d, 0)))
            else:
                device = min(fresh or devices, key=lambda d: (load[d], devices.index(d)))
            out[i] = device
        if device not in homes.setdefault(base, []):
            homes[base].append(device)
            load[device] = load.get(device, 0) + size
        seen[fingerprint, device] = seen.get((fingerprint, device), 0) + 1
    return out
