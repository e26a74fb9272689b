"""Majority voting: ask every model, return the answer with the most support."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_majority_vote.method import MajorityVote

    return MajorityVote
