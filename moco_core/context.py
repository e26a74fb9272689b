"""What a method works with: every model call, every random number and every note goes through its context."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from moco_core.models import Model
from moco_core.training import TrainingJob
from moco_core.types import (
    Answer,
    CallRecord,
    ContinuationScore,
    Evaluation,
    Example,
    Generation,
    Message,
    Prompt,
    Question,
    Reply,
    Sampling,
    Score,
    Usage,
)

T = TypeVar("T")


class Judge(Protocol):
    """What a method may know of the run's metric beyond :meth:`Context.read` and :meth:`Context.grade`."""

    @property
    def binary(self) -> bool:
        """True if every score is 0 or 1."""

    def utility(self, question: Question, a: Answer, b: Answer) -> float:
        """Return how much answer ``b`` supports answer ``a``, in [0, 1]."""


class Context(ABC):
    """The one argument that ``fit`` and ``respond`` take besides their data.

    A context belongs to one question, or to fitting as a whole (``question`` is None there; :meth:`each` and :meth:`on`
    give contexts of single questions). ``phase`` is ``fit``, ``respond`` or ``metric``; ``calls`` are the calls this
    context has made. ``seed`` is the run's; sampling seeds are derived from it, the question and the call itself.
    ``sampling`` are the run's decoding settings: what a single model of the pool is asked with. ``metric`` is the run's, for
    its ``utility`` and ``binary``; use :meth:`read` to read answers.
    """

    phase: str
    question: Question | None
    calls: list[CallRecord]
    seed: int
    sampling: Sampling
    metric: Judge

    @abstractmethod
    def on(self, question: Question) -> Context:
        """Return a fresh context for one question, in the same phase."""

    @abstractmethod
    def role(self, name: str) -> Context:
        """Return this context with its calls counted under a role, to tell a model's cost as a judge from that as a writer.

        Work in the role ``reference`` is not part of the system's cost (a control uses it to learn a budget).
        """

    @abstractmethod
    def rng(self, *parts: Any) -> random.Random:
        """Return a generator that depends on the run's seed, the question and ``parts`` only."""

    @abstractmethod
    async def generate(
        self,
        model: Model,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        sample: int | None = None,
        raw: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> Generation:
        """Have ``model`` write a reply.

        ``prompt`` is a question, user text or a conversation; a conversation that ends with an assistant message is
        continued. ``raw`` sends text as it is, without the chat template. ``sampling`` defaults to the run's.
        ``sample`` numbers independent samples of one call; without it, the n-th identical call of this context gets the
        number n. ``tell`` is :meth:`tell` where the system's reply is what the model writes. Raises ModelCallError.
        """

    @abstractmethod
    async def score(
        self, model: Model, prompt: Prompt, continuations: Sequence[str], *, raw: bool = False
    ) -> tuple[ContinuationScore, ...]:
        """Return the log-probabilities of given continuations of a rendered prompt, teacher-forced."""

    @abstractmethod
    async def embed(self, model: Model, texts: Sequence[str]) -> tuple[tuple[float, ...], ...]:
        """Return one embedding vector per text."""

    @abstractmethod
    async def reward(self, model: Model, messages: Sequence[Message]) -> tuple[float, ...]:
        """Return the sequence-classification logits of a conversation (one number for a reward model)."""

    @abstractmethod
    async def call(
        self,
        model: Model,
        kind: str,
        given: Any,
        params: Mapping[str, Any],
        *,
        seed: int | None = None,
        payload: Any = None,
        cached: bool = True,
        requires: str | None = None,
    ) -> Any:
        """Make a call of any kind; the methods above are this with the kinds every engine knows.

        ``requires`` is the capability it needs (by default ``kind``). With ``cached=False`` the call is stateful: it
        goes to the engine with its live ``payload`` and is neither stored nor recorded; see :meth:`count`.
        """

    @abstractmethod
    def count(self, model: Model, usage: Usage, *, calls: int = 1, cached: bool = False) -> None:
        """Count work by ``model`` that no call above shows, such as the steps of a session.

        It is reported with the tokens of the calls, and stands in the question's record as one line of the kind ``step``.
        ``cached`` says that it was done before and is only reused.
        """

    @abstractmethod
    async def once(self, what: Mapping[str, Any], compute: Callable[[], Awaitable[Any]]) -> Any:
        """Return the stored JSON result of a computation described by ``what``, computing it at most once ever.

        ``what`` must hold everything the result depends on: model fingerprints, inputs, settings, seeds.
        """

    @abstractmethod
    async def artifact(
        self, what: Mapping[str, Any], build: Callable[[Path], Awaitable[None]], *, resume: bool = False
    ) -> Path:
        """Return the folder of files that ``what`` describes, building it at most once ever.

        ``build`` fills an empty folder; one builder per ``what`` does, in whichever process comes first, and nobody sees the
        folder before it is whole. With ``resume`` it may hold what a killed builder left. The result is shared: never write
        to it. ``what`` is JSON data with all that the files depend on, and a ``kind`` by which people recognise it.
        """

    @abstractmethod
    async def train(self, model: Model, job: TrainingJob, *, name: str = "") -> Model:
        """Return the model that ``job`` makes of ``model``, trained at most once ever.

        It answers, scores, steps and gives its weights as its engine lets it, and can be trained further. ``name`` is its
        name in records. A job that has nothing to train on returns ``model``, with a warning. The run's seed and the model
        are part of what decides the result: a job's own ``seed`` is for replicates within a run.
        """

    @abstractmethod
    async def gather(
        self, aws: Iterable[Awaitable[T]], *, tolerate: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> list[Any]:
        """Await all at once; return results in order, errors of types ``tolerate`` among them. Any other cancels the rest."""

    @abstractmethod
    async def each(
        self,
        examples: Sequence[Example] | Sequence[Question],
        work: Callable[[Any, Context], Awaitable[T]],
        *,
        label: str = "",
    ) -> list[T]:
        """Run ``work(item, context_of_that_question)`` for every item, a bounded number at a time; return results in order."""

    @abstractmethod
    async def evaluate(
        self,
        models: Sequence[Model],
        examples: Sequence[Example],
        sampling: Sampling | None = None,
        *,
        label: str = "dev",
    ) -> Evaluation:
        """Ask every model every question alone and score the replies with the run's metric.

        Calls are shared with the baselines and with every other method through the cache. A question too long for a
        model counts as an empty answer, with a warning, since the same happens in the test.
        """

    @abstractmethod
    def read(self, question: Question, text: str) -> Answer:
        """Read the answer out of a reply, as the run's metric does."""

    @abstractmethod
    async def grade(self, example: Example, reply: Reply) -> Score:
        """Score a reply with the run's metric (dev examples in ``fit``)."""

    @abstractmethod
    def warn(self, text: str) -> None:
        """Warn the user, once per run; the warning is kept in the run record, too."""

    @abstractmethod
    def note(self, **data: Any) -> None:
        """Add a line of JSON data to the run's fit log (a step of a search, a chosen threshold)."""

    @abstractmethod
    def tell(self, text: str) -> None:
        """Say how the reply begins, to whoever reads along; from any thread. What is told is not taken back."""

    @abstractmethod
    def progress(self, what: str, done: int, total: int | None = None, note: str = "") -> None:
        """Update the live progress of a phase."""
