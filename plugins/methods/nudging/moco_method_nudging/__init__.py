"""Nudging: a base model writes; where it is unsure, a small aligned model inserts a few words."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_nudging.method import Nudging

    return Nudging
