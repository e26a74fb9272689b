"""What became of a process of the cluster, in words."""

from __future__ import annotations

__all__ = ["cause_of", "out_of_memory"]

_CAUSES = (
    ("running low on memory", "its machine ran out of memory, and Ray ended it"),
    ("node_out_of_memory", "its machine ran out of memory, and Ray ended it"),
    ("its node has died", "its machine left the cluster"),
    ("the node has died", "its machine left the cluster"),
    ("node was terminated", "its machine left the cluster"),
    ("node is removed", "its machine left the cluster"),
    ("placement group was removed", "its place was taken from it"),
    ("ray.kill", "it was ended by somebody else"),
    ("end of file", "its process was killed"),
    ("sigkill", "its process was killed"),
    ("the worker died unexpectedly", "its process was killed"),
)


def out_of_memory(error: BaseException) -> bool:
    """Return whether Ray ended a process because its machine was running out of memory."""
    import ray

    said = str(error).lower()
    return isinstance(error, ray.exceptions.OutOfMemoryError) or any(text in said for text, _ in _CAUSES[:2])


def cause_of(error: BaseException) -> str:
    """Return why a process of the cluster is gone, as one clause."""
    said = " ".join(str(error).split())
    found = next((words for text, words in _CAUSES if text in said.lower()), "")
    return found or said[:200] or type(error).__name__
