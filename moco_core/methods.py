"""Methods and systems: what a method plugin provides.

A method is written per question, as coroutines; batching, devices, retries and caching are somebody else's business::

    class Shortest(Method[NoOptions]):
        async def fit(self, pool, dev, context):
            return ShortestSystem(pool)

    class ShortestSystem(System):
        async def respond(self, question, context):
            replies = await context.gather(context.generate(m, question) for m in self.pool)
            return Reply.of(min(replies, key=lambda r: len(r.text)))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import attrs

from moco_core.models import Needs, Pool
from moco_core.options import NoOptions
from moco_core.types import Example, Question, Reply

if TYPE_CHECKING:
    from moco_core.context import Context

__all__ = ["Cost", "Level", "Method", "System"]

Level = Literal["api", "text", "logit", "weight"]
"""What the models of a method exchange: whole calls, text, next-token scores, or weights."""

OptionsT = TypeVar("OptionsT")


@attrs.frozen(kw_only=True)
class Cost:
    """Predicted model calls: ``fit`` in all, and ``respond`` per question (an upper bound if early exits exist)."""

    fit: float = 0
    respond: float = 1


class System(ABC):
    """A fitted collaboration. It is asked question by question; it never sees a reference.

    ``pool`` is the pool it was fitted on. A system keeps no state between questions.
    """

    pool: Pool

    @abstractmethod
    async def respond(self, question: Question, context: Context) -> Reply:
        """Answer one question."""

    def state(self) -> Mapping[str, Any]:
        """Return what fitting learnt, as JSON data: all that :meth:`Method.restore` needs beside the options."""
        return {}

    def save_files(self, folder: Path) -> None:
        """Write what does not fit JSON (tensors as safetensors) into an existing, empty folder."""


class Method(ABC, Generic[OptionsT]):
    """A collaboration algorithm with typed options.

    ``Options`` is a frozen attrs class; ``level`` is what the models exchange; ``title`` and ``paper`` are for people. The
    constructor only stores the options. ``fit`` and ``respond`` have one signature for all methods.
    """

    Options: ClassVar[type] = NoOptions
    level: ClassVar[Level] = "text"
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def needs(self) -> Needs:
        """Return what these options need of a pool."""
        return Needs()

    def cost(self, models: int, dev: int) -> Cost:
        """Predict model calls for a pool of ``models`` and ``dev`` dev examples; shown by ``moco plan``."""
        return Cost(respond=models)

    @abstractmethod
    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> System:
        """Fit on the dev split and return a system. Fitting twice gives equal systems and changes nothing else."""

    @abstractmethod
    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> System:
        """Rebuild a saved system from :meth:`System.state` and the files of :meth:`System.save_files`."""
