"""Datasets and metrics: what those two kinds of plugin provide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import attrs

from moco_core.options import NoOptions
from moco_core.types import Answer, Example, Question, Reply, Score, Unit

if TYPE_CHECKING:
    from moco_core.context import Context

Split = Literal["dev", "test"]
OptionsT = TypeVar("OptionsT")


@attrs.frozen(kw_only=True)
class DatasetFacts:
    """What a person wants to know before using a dataset.

    ``source`` is a Hub id or an address, ``sizes`` dev and test, ``fields`` what is read of a row of the source.
    """

    title: str
    metric: str
    paper: str = ""
    licence: str = ""
    source: str = ""
    revision: str = ""
    gated: bool = False
    sizes: tuple[int, int] | None = None
    fields: str = ""
    prompt_version: int = 1
    notes: str = ""


class Dataset(ABC, Generic[OptionsT]):
    """A source of examples, in two disjoint splits. ``facts`` names the default metric.

    The class states the facts; an instance whose options change them (a variant, a table of one's own) sets its own.
    """

    Options: ClassVar[type] = NoOptions
    facts: DatasetFacts

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @abstractmethod
    def examples(self, split: Split) -> Iterator[Example]:
        """Yield the examples of a split in a fixed order; ids are unique and stable. Stream them; hold nothing.

        Raises DatasetError naming file, row and field.
        """

    @classmethod
    def sample(cls) -> Mapping[str, Any]:
        """Return options under which a few bundled records are read without a network; empty if the defaults do.

        The conformance checks read a dataset this way.
        """
        return {}

    def notes(self) -> Mapping[str, Any]:
        """Return what the run record should say about reading the data: duplicates, the revision, and so on.

        ``dropped``, if it is there, has one form that runs show to people: ``{split: {reason: number of rows}}``.
        """
        return {}


@attrs.frozen(kw_only=True)
class Scored:
    """One example, the reply it got and its score."""

    example: Example
    reply: Reply
    score: Score


class Metric(ABC, Generic[OptionsT]):
    """Reads the answer out of a reply and scores it.

    Reading uses the question only, so a method may read answers too (to vote on them, say) without seeing a reference.
    ``binary`` tells that every score is 0 or 1. ``higher_is_better`` is always true. A metric that scores with
    models has an option for their pool (``pool: Plugin | None = plugin_option("pool", None)``) and asks the models of
    ``options.pool.instance.pool``; their engines are opened and closed with the run's.
    """

    Options: ClassVar[type] = NoOptions
    binary: ClassVar[bool] = True

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    def check(self) -> Sequence[str]:
        """Return what keeps this metric from scoring (no judge, no sandbox), one sentence each, with what to do about it.

        Called by ``moco plan`` and before any model is asked; ConfigError and CapabilityError may be raised as well. By
        default nothing does.
        """
        return ()

    @abstractmethod
    def read(self, question: Question, text: str) -> Answer:
        """Read the answer out of a reply. Never raises on any text."""

    @abstractmethod
    def score(self, example: Example, reply: Reply, context: Context) -> Score | Awaitable[Score]:
        """Score one reply; a coroutine if it takes model calls. Never raises on any text."""

    def utility(self, question: Question, a: Answer, b: Answer) -> float:
        """Return how much answer ``b`` supports answer ``a``, in [0, 1]; by default 1 if they are the same."""
        return float(a.key is not None and a.key == b.key)

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        """Return the units that statistics count; a run's score is the mean over them. By default one unit per question."""
        return [Unit(r.example.id, r.score.value, r.example.question.subset) for r in rows if r.score.value is not None]

    def extra_metrics(self, rows: Sequence[Scored]) -> Mapping[str, float]:
        """Return extra metrics of a run by name (macro F1, a rate, a mean length), shown beside the score.

        They are stored in the run record and the report; no statistics are made of them. A name may be absent where it
        means nothing for these rows. By default none.
        """
        return {}
