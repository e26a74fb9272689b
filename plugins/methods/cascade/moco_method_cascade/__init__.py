"""Cascade: ask models from weak to strong and stop at the first confident reply."""

from moco_core import hookimpl
from moco_method_cascade.method import Cascade, CascadeOptions, CascadeSystem

__all__ = ["Cascade", "CascadeOptions", "CascadeSystem"]


@hookimpl
def moco_method() -> type[Cascade]:
    return Cascade
