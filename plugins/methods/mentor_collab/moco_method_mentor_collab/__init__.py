"""MentorCollab: a small model writes and now and then weighs a large mentor's next words against its own."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_mentor_collab.method import MentorCollab

    return MentorCollab
