"""Separating what a model thinks aloud from what it answers: the core's, since every engine needs it."""

from moco_core.reasoning import DEFAULT_TAGS, left_open, split

__all__ = ["DEFAULT_TAGS", "left_open", "split"]
