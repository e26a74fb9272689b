"""Methods and systems: what a method plugin provides.

A method is written per question, as coroutines; batching, devices, retries and caching are somebody else's business::

    class ShortestSystem(System):
        async def respond(self, question, context):
            replies = await context.gather(context.generate(m, question) for m in self.pool)
            return Reply.of(min(replies, key=lambda r: len(r.text)))

    class Shortest(Method[NoOptions]):
        system = ShortestSystem

        async def fit(self, pool, dev, context):
            return ShortestSystem(pool, self.options)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import attrs

from moco_core.errors import PluginError
from moco_core.models import Model, Needs, Pool
from moco_core.options import NoOptions, plain
from moco_core.types import Example, Question, Reply, Sampling

if TYPE_CHECKING:
    from moco_core.context import Context

Level = Literal["api", "text", "logit", "weight"]
"""What the models of a method exchange: whole calls, text, next-token scores, or weights."""

OptionsT = TypeVar("OptionsT")


@attrs.frozen(kw_only=True)
class Cost:
    """Predicted model calls: ``fit`` in all, and ``respond`` per question (an upper bound if early exits exist).

    ``train_tokens`` are the tokens that fitting trains models on, every epoch counted; ``train_memory`` is the most that one
    training needs on its device, in bytes.
    """

    fit: float = 0
    respond: float = 1
    train_tokens: float = 0
    train_memory: float = 0


@attrs.define(eq=False, slots=False)
class System(ABC):
    """A fitted collaboration. It is asked question by question; it never sees a reference.

    ``pool`` is the pool it was fitted on, ``options`` are its method's. Further attrs fields (``threshold: float``) are what
    fitting learnt: JSON data, saved and restored without further code. A system keeps no state between questions.
    """

    pool: Pool
    options: Any

    @property
    def model(self) -> Model | None:
        """The one model that answers every question, where there is one (a merged or chosen model); else None.

        Scoring, serving and nesting use it to reach more than text.
        """
        return None

    @abstractmethod
    async def respond(self, question: Question, context: Context) -> Reply:
        """Answer one question."""

    def state(self) -> Mapping[str, Any]:
        """Return what fitting learnt, as JSON data: all that :meth:`Method.restore` needs besides pool and options.

        By default every attrs field after those two; a system inside of this one as its own state. Raises PluginError if a
        mapping among them has keys other than strings: they would come back as strings.
        """
        learnt = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))[2:]}
        return {name: v.state() if isinstance(v, System) else plain(v, _text) for name, v in learnt.items()}

    def save_files(self, folder: Path) -> None:
        """Write what does not fit JSON (tensors as safetensors) into an existing, empty folder."""


class Method(ABC, Generic[OptionsT]):
    """A collaboration algorithm with typed options.

    ``Options`` is a frozen attrs class; ``system`` is the class that ``fit`` returns; ``level`` is what the models exchange;
    ``title`` and ``paper`` are for people. The constructor only stores the options. ``fit`` and ``respond`` have one
    signature for all methods.
    """

    Options: ClassVar[type] = NoOptions
    system: ClassVar[type[System]]
    level: ClassVar[Level] = "text"
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def needs(self) -> Needs:
        """Return what these options need of a pool."""
        return Needs()

    def cost(self, models: int, dev: int) -> Cost:
        """Predict model calls for a pool of ``models`` and ``dev`` dev examples."""
        return Cost(respond=models)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        """Predict model calls on this very pool; shown by ``moco plan``. By default :meth:`cost`.

        Override it where capabilities or the length of replies decide: a model that cannot ``step`` is asked anew for every
        piece of text.
        """
        return self.cost(len(pool), dev)

    def learns(self) -> bool:
        """Return whether fitting learns from dev examples; a placebo is made of methods that do. By default, if calls on dev
        are predicted.

        A placebo is fitted on shuffled references and random scores. Whatever fitting learns about quality must come from
        dev's references and the context's ``grade`` and ``evaluate``; then it works without a line of the method's.
        """
        return self.cost(2, 8).fit > self.cost(2, 0).fit

    @abstractmethod
    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> System:
        """Fit on the dev split and return a system. Fitting twice gives equal systems and changes nothing else."""

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> System:
        """Rebuild a saved system from :meth:`System.state` and the files of :meth:`System.save_files`.

        By default ``self.system`` is made from pool, options and the state's entries.
        """
        if not hasattr(self, "system"):
            raise PluginError(f"{type(self).__name__} names no `system` class and has no `restore` of its own")
        return self.system(pool, self.options, **state)


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise PluginError(f"a system's state has the key {key!r}; the keys of JSON are texts, so store pairs instead")
    return key
