"""Extrapolate from a weaker model through a stronger one, with a strength chosen on dev."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_expo.method import Expo

    return Expo
