"""Settings and generators that the whole process shares: where they are, whether they moved, and putting them back."""

from __future__ import annotations

import contextlib
import decimal
import gc
import locale
import logging
import os
import random
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

__all__ = ["Generators", "Settings", "settings_as_they_were"]

_PYTESTS = "PYTEST_CURRENT_TEST"


@attrs.frozen
class _Setting:
    """One setting that the whole process shares. ``read`` gives None where there is nothing to read: no torch, say.

    ``initial`` gives what it is then as soon as there is.
    """

    what: str
    instead: str
    read: Callable[[], Any]
    put_back: Callable[[Any], object]
    initial: Callable[[], Any] = lambda: None


def _of(module: str, name: str) -> Callable[..., Any]:
    """Return a function of a module that may not be imported; it gives None then, and imports nothing."""

    def call(*args: Any) -> Any:
        function = getattr(sys.modules.get(module), name, None)
        return None if function is None else function(*args)

    return call


def _folder() -> str | None:
    with contextlib.suppress(OSError):
        return os.getcwd()
    return None


def _put_filters_back(filters: list[Any]) -> None:
    warnings.resetwarnings()  # which also tells the modules that the filters changed
    warnings.filters[:] = filters  # type: ignore[index]


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _decimal() -> tuple[int, str]:
    context = decimal.getcontext()
    return context.prec, context.rounding


def _put_decimal_back(before: tuple[int, str]) -> None:
    decimal.getcontext().prec, decimal.getcontext().rounding = before


def _logging() -> Any:
    return [*logging.root.handlers], logging.root.level, logging.root.manager.disable


def _put_logging_back(before: Any) -> None:
    handlers, level, disabled = before
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.disable(disabled)


_SETTINGS = (
    _Setting("the working directory", "use whole paths", _folder, os.chdir),
    _Setting(
        "the locale",
        "read and write numbers and dates without it",
        lambda: locale.setlocale(locale.LC_ALL),
        lambda before: locale.setlocale(locale.LC_ALL, before),
    ),
    _Setting(
        "the filters of warnings",
        "use `with warnings.catch_warnings():` around what warns",
        lambda: [*warnings.filters],
        _put_filters_back,
    ),
    _Setting("the root logger", "use logging.getLogger(__name__), and no handler", _logging, _put_logging_back),
    _Setting(
        "the time limit of all sockets",
        "give each connection its own",
        lambda: (socket.getdefaulttimeout(),),
        lambda before: socket.setdefaulttimeout(*before),
    ),
    _Setting("the recursion limit", "write a loop", sys.getrecursionlimit, sys.setrecursionlimit),
    _Setting("the longest int that is read", "bound what you read", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    _Setting("the context of decimals", "use `with decimal.localcontext():`", _decimal, _put_decimal_back),
    _Setting("the collection of garbage", "put it back after use", gc.isenabled, lambda on: (gc.disable, gc.enable)[on]()),
    _Setting("the mask of new files' rights", "give each file its own", _umask, os.umask),
    # what a library added as it was imported stays: it finds its modules there
    _Setting("sys.path", "install what you import", lambda: [*sys.path], lambda before: None),
    _Setting(
        "torch's default dtype",
        "give each tensor its dtype",
        _of("torch", "get_default_dtype"),
        _of("torch", "set_default_dtype"),
        lambda: getattr(sys.modules.get("torch"), "float32", None),
    ),
    _Setting(
        "torch's number of threads",
        "set it in the thread that computes",
        _of("torch", "get_num_threads"),
        _of("torch", "set_num_threads"),
    ),
    _Setting(
        "torch's choice of deterministic algorithms",
        "put it back after use",
        _of("torch", "are_deterministic_algorithms_enabled"),
        _of("torch", "use_deterministic_algorithms"),
        lambda: False,
    ),
    _Setting(
        "torch's precision of products",
        "put it back after use",
        _of("torch", "get_float32_matmul_precision"),
        _of("torch", "set_float32_matmul_precision"),
        lambda: "highest",
    ),
)


@attrs.frozen
class Settings:
    """The settings and the environment of the process, as they were at one time."""

    values: tuple[Any, ...] = attrs.field(factory=lambda: tuple(s.read() for s in _SETTINGS))
    environment: Mapping[str, str] = attrs.field(factory=lambda: dict(os.environ))

    def moved(self) -> Iterator[tuple[_Setting, Any]]:
        """Yield what has changed since, with what it was."""
        for setting, value in zip(_SETTINGS, self.values, strict=True):
            now, before = setting.read(), setting.initial() if value is None else value
            if before is not None and now is not None and now != before:
                yield setting, before

    def variables(self) -> list[str]:
        """Return the names of the variables of the environment that have changed since."""
        now = dict(os.environ)
        names = sorted({*now, *self.environment} - {_PYTESTS})
        return [n for n in names if now.get(n) != self.environment.get(n)]

    def put_back(self, variables: list[str]) -> None:
        """Put the settings back, and those variables."""
        for setting, before in self.moved():
            setting.put_back(before)
        for name in variables:
            os.environ.pop(name, None)
            if name in self.environment:
                os.environ[name] = self.environment[name]


def _of_a_library(variable: str) -> bool:
    """Return whether a variable is how an imported library is set up: its first word is the library's name."""
    word = variable.partition("_")[0].lower()
    return word in sys.modules and word not in sys.stdlib_module_names


@contextlib.contextmanager
def settings_as_they_were() -> Iterator[None]:
    """Put the settings of the process back afterwards, and its environment but for what libraries are set up with.

    A plugin that sets the same thing in every call is seen to do so by the check that looks, whatever ran before.
    """
    before = Settings()
    try:
        yield
    finally:
        before.put_back([name for name in before.variables() if not _of_a_library(name)])


# ---------------------------------------------------------------- generators that everybody shares


@attrs.frozen
class Generators:
    """The process's generators, moved to a place that nobody comes to by seeding; ``before`` is where they were."""

    before: tuple[Any, ...]
    moved: tuple[Any, ...]

    @staticmethod
    def _state() -> tuple[Any, ...]:
        numpy = _of("numpy.random", "get_state")()
        torch = _of("torch", "get_rng_state")()
        return random.getstate(), numpy, torch

    @staticmethod
    def _seen() -> tuple[Any, ...]:
        """Return what tells whether they were used. torch's may be drawn from, its layers do; it may not be seeded."""
        numpy = _of("numpy.random", "get_state")()
        place = None if numpy is None else (numpy[1].tobytes(), *numpy[2:])
        return random.getstate(), place, _of("torch", "initial_seed")()

    @classmethod
    def move(cls) -> Generators:
        before = cls._state()
        random.seed()
        if before[1] is not None:
            sys.modules["numpy.random"].seed()
        if before[2] is not None:
            sys.modules["torch"].default_generator.seed()
        return cls(before, cls._seen())

    def used(self) -> list[str]:
        """Return the names of those that were seeded, or drawn from, since."""
        names = ("random, the module,", "numpy.random", "torch's generator")
        both = zip(names, self.moved, self._seen(), strict=True)
        return [name for name, then, now in both if then is not None and now is not None and then != now]

    def put_back(self) -> None:
        mine, numpy, torch = self.before
        random.setstate(mine)
        if numpy is not None:
            sys.modules["numpy.random"].set_state(numpy)
        if torch is not None:
            sys.modules["torch"].set_rng_state(torch)
