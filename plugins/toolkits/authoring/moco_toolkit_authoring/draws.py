"""Which seeds the code of a plugin hands to generators, as far as Python lets one see it."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import attrs

__all__ = ["Draws", "seeds_watched"]

_LIBRARIES = {"random", "numpy", "torch", __name__.partition(".")[0]}
"""Whose frames lie between a generator and the code that seeds it."""


@attrs.define
class Draws:
    """The seeds with which something was drawn, by the line of code that gave them: ``found`` once the watch is over."""

    package: str
    found: dict[str, set[str]] = attrs.field(factory=dict, init=False)
    _seen: list[tuple[str, str, Callable[[], Any] | None, Any]] = attrs.field(factory=list, init=False)

    def note(self, seed: Any, state: Callable[[], Any] | None = None) -> None:
        """Note a seed that the package gave, or a toolkit that it called; ``state`` tells whether anything is drawn with it."""
        frames = [(frame, _top(frame)) for frame in _frames() if _top(frame) not in _LIBRARIES]
        if seed is None or not frames or self.package not in (top for _, top in frames):
            return
        frame, top = frames[0]
        if top == self.package or top.startswith("moco_toolkit_"):
            file = Path(frame.f_code.co_filename)
            where = f"{file.parent.name}/{file.name}:{frame.f_lineno}"
            self._seen.append((where, repr(seed), state, state() if state is not None else None))

    def close(self) -> None:
        """Keep what was drawn with; a seed of all draws of a library (no ``state``) is always taken to be."""
        for where, seed, state, before in self._seen:
            if state is None or state() != before:
                self.found.setdefault(where, set()).add(seed)
        self._seen.clear()


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


@contextlib.contextmanager
def seeds_watched(package: str) -> Iterator[Draws]:
    """Note what seeds the package, and toolkits that it calls, give to generators of ``random``, numpy and torch.

    The libraries must have been imported. What was taken from numpy or torch by name before (``from torch import Generator``)
    is not seen, nor what a toolkit does in a thread or task of its own.
    """
    draws = Draws(package)
    with contextlib.ExitStack() as stack:
        stack.callback(draws.close)
        stack.enter_context(mock.patch.object(random.Random, "seed", _seed_of_random(draws)))
        if "numpy.random" in sys.modules:
            for name, instead in _of_numpy(sys.modules["numpy.random"], draws).items():
                stack.enter_context(mock.patch.object(sys.modules["numpy.random"], name, instead))
        if "torch" in sys.modules:
            for name, instead in _of_torch(sys.modules["torch"], draws).items():
                stack.enter_context(mock.patch.object(sys.modules["torch"], name, instead))
        yield draws


def _seed_of_random(draws: Draws) -> Callable[..., None]:
    real = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        real(self, a, version)
        draws.note(a, self.getstate)

    return seed


def _standing_in(real: Any) -> Any:
    """Return the type of a class that stands in for ``real``: what that made before is an instance, too."""

    class AsBefore(type(real)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real)

    return AsBefore


def _of_numpy(numpy: Any, draws: Draws) -> dict[str, Any]:
    real, seed_all = numpy.default_rng, numpy.seed

    class RandomState(numpy.RandomState, metaclass=_standing_in(numpy.RandomState)):  # type: ignore[metaclass, misc]
        def __init__(self, seed: Any = None) -> None:
            super().__init__(seed)
            draws.note(_plain(seed), lambda: repr(self.get_state(legacy=False)))

    def default_rng(seed: Any = None) -> Any:
        made = real(seed)
        draws.note(_plain(seed), lambda: repr(made.bit_generator.state))
        return made

    def seed(seed: Any = None) -> None:
        seed_all(seed)
        draws.note(_plain(seed))

    return {"RandomState": RandomState, "default_rng": default_rng, "seed": seed}


def _plain(seed: Any) -> Any:
    return getattr(seed, "state", seed) if type(seed).__name__ == "SeedSequence" else seed


def _of_torch(torch: Any, draws: Draws) -> dict[str, Any]:
    seed_all = torch.manual_seed

    class Generator(torch.Generator, metaclass=_standing_in(torch.Generator)):  # type: ignore[metaclass, misc]
        def manual_seed(self, seed: int) -> Generator:
            super().manual_seed(seed)
            draws.note(seed, lambda: self.get_state().numpy().tobytes())
            return self

    def manual_seed(seed: int) -> Any:
        made = seed_all(seed)
        draws.note(seed)
        return made

    return {"Generator": Generator, "manual_seed": manual_seed}
