"""What ``moco doctor`` says about devices."""

from __future__ import annotations

from collections.abc import Iterator

from moco_toolkit_checkpoints.devices import devices

__all__ = ["findings"]


def findings() -> Iterator[tuple[str, str, str]]:
    """Yield the accelerators that models run on."""
    try:
        found = devices()
    except Exception as error:
        yield "problem", "devices", f"torch cannot tell: {type(error).__name__}: {error}; reinstall torch"
    else:
        none = found == ["cpu"]
        yield ("note", "devices", "no GPU; models run on the CPU") if none else ("ok", "devices", ", ".join(found))
