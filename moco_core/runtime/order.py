"""The order in which a program makes its calls, whatever the order in which they are answered.

Coroutines that are gathered are numbered, and so is what each of them does: the place of a call is the path to it, such as
"the second thing in the third coroutine of the first gathering". Places compare as the program reads.
"""

from __future__ import annotations

from contextvars import ContextVar

Place = tuple[int, ...]


class _Counter:
    __slots__ = ("count", "path")

    def __init__(self, path: Place) -> None:
        self.path = path
        self.count = 0


_HERE: ContextVar[_Counter | None] = ContextVar("moco_place", default=None)


def next_place() -> Place:
    """Return the place of what this coroutine does next."""
    here = _HERE.get()
    if here is None:
        _HERE.set(here := _Counter(()))
    here.count += 1
    return (*here.path, here.count)


def enter(place: Place, number: int) -> None:
    """Number what this task does from now on below a place, as coroutine ``number`` of those that were gathered there."""
    _HERE.set(_Counter((*place, number)))
