"""What travels between the run and an actor: models by name, and objects that live on both sides by number.

A pickle alone would send a model's engine along, and make of every row of a session a new one. Classes whose objects mean
something only as themselves (the handle of a session's cached row, say) say so by the class attribute ``by_identity``: such an
object is made once on the other side, and stands for itself from then on.
"""

from __future__ import annotations

import io
import itertools
import pickle
import weakref
from collections.abc import Callable
from typing import Any

from moco_core import Model

__all__ = ["Reader", "Writer"]


class Writer:
    """Pickles for one other side. ``name`` gives what a model is called there; it raises CapabilityError for one that is not.

    With ``once`` an object with an identity is sent when it is first met and named from then on; else its state goes along
    each time. ``dropped`` are the numbers of those that are gone here.
    """

    def __init__(self, name: Callable[[Model], str], *, once: bool = False) -> None:
        self.dropped: list[int] = []
        self._name = name
        self._once = once
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._next = itertools.count()

    def dumps(self, value: Any) -> bytes:
        from ray import cloudpickle

        writer = self
        base: Any = cloudpickle.CloudPickler

        class Pickler(base):  # type: ignore[misc]
            def persistent_id(self, obj: Any) -> Any:
                if isinstance(obj, Model):
                    return "model", writer._name(obj)
                if getattr(type(obj), "by_identity", False):
                    return "one", *writer._one(obj)
                return None

        buffer = io.BytesIO()
        Pickler(buffer, protocol=5).dump(value)
        return buffer.getvalue()

    def _one(self, obj: Any) -> tuple[int, Any]:
        number = self._numbers.get(obj)
        if number is not None and self._once:
            return number, None
        if number is None:
            number = self._numbers[obj] = next(self._next)
            weakref.finalize(obj, self.dropped.append, number)
        return number, obj.__reduce_ex__(4)


class Reader:
    """Unpickles what the other side's :class:`Writer` has made. ``find`` returns the model of a name."""

    def __init__(self, find: Callable[[str], Model]) -> None:
        self._find = find
        self._known: dict[int, Any] = {}

    def loads(self, data: bytes) -> Any:
        reader = self

        class Unpickler(pickle.Unpickler):
            def persistent_load(self, pid: Any) -> Any:
                kind, *rest = pid
                return reader._find(rest[0]) if kind == "model" else reader._one(*rest)

        return Unpickler(io.BytesIO(data)).load()

    def _one(self, number: int, made: tuple[Any, ...] | None) -> Any:
        obj = self._known.get(number)
        if made is None:
            return obj
        make, given, *more = made
        if obj is None:
            obj = self._known[number] = make(*given)
        if more and more[0] is not None:
            _set(obj, more[0])
        return obj

    def forget(self, numbers: list[int]) -> None:
        """Let go of objects that the other side has let go of."""
        for number in numbers:
            self._known.pop(number, None)


def _set(obj: Any, state: Any) -> None:
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(state)
        return
    fields, slots = state if isinstance(state, tuple) else (state, None)
    for part in (fields or {}), (slots or {}):
        for name, value in part.items():
            object.__setattr__(obj, name, value)
