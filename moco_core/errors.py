"""Every error a user can meet.

The command line prints ``str(error)`` on one line and exits with ``error.exit_code``; a traceback appears only with
``--debug``. A message says what is wrong, where, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class MocoError(Exception):
    """Base of all errors that are meant for people."""

    exit_code = 1


class ConfigError(MocoError):
    """One or more things are wrong with a configuration; ``problems`` holds one line for each."""

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class PoolError(ConfigError):
    """A pool cannot be opened: no server there, a refused key, a model it does not have.

    Raise it from ``Engine.start``: everything ends with it, before any question is asked.
    """


class PluginError(MocoError):
    """A plugin cannot be used."""

    exit_code = 2


class UnknownPlugin(PluginError):
    """No installed plugin has that name."""


class PluginConflict(PluginError):
    """Two distributions provide a plugin of the same kind and name."""


class BrokenPlugin(PluginError):
    """A plugin is installed but cannot be imported or registers nothing usable."""


class IncompatiblePlugin(PluginError):
    """A plugin was made for another version of the hook specification."""


class CapabilityError(MocoError):
    """A pool cannot serve a method; raised before any weight is loaded."""

    exit_code = 2


class DatasetError(MocoError):
    """A dataset cannot be read; the message names file, row and field."""

    exit_code = 2


class StoreError(MocoError):
    """The call cache or a run folder cannot be read or written."""


class ModelCallError(MocoError):
    """One call to one model failed."""


class PromptTooLong(ModelCallError):
    """The rendered prompt plus the reply budget does not fit the model's context."""


class EngineOutOfMemory(ModelCallError):
    """A batch did not fit in memory. Raise it from ``Engine.serve``: the calls are retried in smaller batches."""


class BudgetReached(MocoError):
    """The budget is spent; everything stops, and what was answered is kept."""


class RunFailed(MocoError):
    """A run finished, but some of its questions failed."""


def error_line(error: BaseException) -> str:
    """Return an error as one line, with its type if it is not one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, MocoError) else f"{type(error).__name__}: {text}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the nearest known word, or the empty string if nothing is near."""
    import difflib  # rarely needed, and not quick to import

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]!r}?" if near else ""
