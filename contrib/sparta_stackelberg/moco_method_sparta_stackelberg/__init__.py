"""Sparta with a leader: a bandit commits to instructions, models duel on them, judge one another, and are trained."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_sparta_stackelberg.method import SpartaStackelberg

    return SpartaStackelberg
