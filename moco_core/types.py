"""The values that travel between datasets, methods, models and metrics. All of them are immutable."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain, islice, product
from typing import Any, Literal

import attrs

from moco_core.converters import anything, floats, ints, mapping, strings
from moco_core.options import option

FinishReason = Literal["eos", "stop", "length"]
"""Why a reply ended: an end-of-turn token, a stop string, or the token budget."""


ANSWER_KINDS = (
    "boolean",
    "choice",
    "code",
    "decimal",
    "integer",
    "label",
    "letter",
    "math",
    "open",
    "short",
    "text",
    "tokens",
)
"""The kinds of answers that metrics of this project read; others may know more."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: keys sorted, no spaces. Tuples become lists.

    Raises TypeError if the value holds anything JSON does not know.
    """
    return _ENCODER.encode(value)


def digest(*parts: Any) -> str:
    """Return the SHA-256 of the canonical JSON of ``parts``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(parts).encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=64)
def _letters(count: int) -> tuple[str, ...]:
    words = (map("".join, product(string.ascii_uppercase, repeat=size)) for size in range(1, count + 1))
    return tuple(islice(chain.from_iterable(words), count))


@attrs.frozen
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@attrs.frozen(kw_only=True)
class Question:
    """What a method may see of an item: never a reference.

    ``choices`` are texts without letters; letters are put in front of them only when the prompt is written.
    ``answer_kind`` tells a metric how to read an answer out of a reply (``choice``, ``text``, ``integer``, ``decimal``,
    ``math``, ``label``, ``letter``, ``boolean``, ``tokens``, ``short``, ``open``, ``code``, ...). ``labels`` are the
    letters shown before the choices, or the closed label set of ``answer_kind="label"``. ``answer_format`` is the
    sentence that tells the model how to answer. ``history`` are earlier turns of the conversation, between the system
    message and this question. ``meta`` is JSON data that is not a reference.
    """

    id: str
    prompt: str
    choices: tuple[str, ...] = attrs.field(default=(), converter=strings)
    labels: tuple[str, ...] = attrs.field(default=(), converter=strings)
    answer_kind: str = "text"
    answer_format: str = ""
    system: str = ""
    history: tuple[Message, ...] = attrs.field(default=(), converter=anything)
    subset: str = ""
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=mapping, hash=False)

    @property
    def letters(self) -> tuple[str, ...]:
        """The labels in front of the choices: the dataset's own, else A, B, C, ..., Z, AA, AB, ..."""
        if not self.choices:
            return ()
        return self.labels or _letters(len(self.choices))

    def text(self) -> str:
        """Return the whole user message: prompt, lettered choices, answer format."""
        parts = [self.prompt]
        if self.choices:
            parts.append("\n".join(f"{a}) {c}" for a, c in zip(self.letters, self.choices, strict=True)))
        if self.answer_format:
            parts.append(self.answer_format)
        return "\n".join(parts)

    def messages(self) -> tuple[Message, ...]:
        """Return the conversation that asks this question."""
        system = (Message("system", self.system),) if self.system else ()
        return (*system, *self.history, Message("user", self.text()))


@attrs.frozen(kw_only=True)
class Example:
    """A question plus its reference. Methods receive examples of the dev split only, and in ``fit`` only.

    ``references`` are the accepted texts; ``answer`` is the index of the right choice; ``group`` ties examples that are
    scored together; ``meta`` holds what only the metric needs (unit tests, entry points, ...).
    """

    question: Question
    references: tuple[str, ...] = attrs.field(default=(), converter=strings)
    answer: int | None = None
    group: str = ""
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=mapping, hash=False)

    @property
    def id(self) -> str:
        return self.question.id


@attrs.frozen(kw_only=True)
class Sampling:
    """How one reply is decoded: a run's setting for single models, and what methods use unless their options say otherwise."""

    temperature: float = option(0.0, ge=0, help="0 is greedy")
    top_p: float = option(1.0, gt=0, le=1, help="1 is off")
    top_k: int = option(0, ge=0, help="0 is off")
    min_p: float = option(0.0, ge=0, lt=1, help="0 is off")
    max_new_tokens: int = option(512, ge=1)
    stop: tuple[str, ...] = attrs.field(default=(), converter=strings)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def params(self) -> dict[str, Any]:
        """Return what decides the reply, as JSON data: filters that greedy decoding ignores are left out."""
        out: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature}
        if self.stop:
            out["stop"] = list(self.stop)
        if not self.greedy:
            out |= {"top_p": self.top_p, "top_k": self.top_k, "min_p": self.min_p}
        return out

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Sampling:
        """Invert :meth:`params`; other keys are ignored."""
        names = {a.name for a in attrs.fields(cls)}
        return cls(**{k: v for k, v in params.items() if k in names})


@attrs.frozen
class Usage:
    """Tokens read and written by one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


@attrs.frozen
class Span:
    """A piece of a reply and the model that wrote it."""

    model: str
    text: str
    tokens: int = 0


@attrs.frozen(kw_only=True)
class Generation:
    """What a model wrote.

    ``text`` is the answer without its reasoning block, which stands in ``reasoning``. ``token_ids`` and
    ``token_logprobs`` have one entry per emitted token, the end token included if it was emitted; log-probabilities are
    natural logarithms taken from the raw logits (before temperature and filters) and empty if the engine has none.
    ``meta`` is JSON data of the engine. Some of its keys mean something to everybody: ``cost`` is the call's money where the
    engine knows it better than the model's prices (None: it has a price that is unknown), ``seconds`` its model time where an
    engine that batches by itself knows it better than the clock (None: unknown), ``warning`` a sentence that a run tells its
    user once, ``reasoning_tokens`` how many of the tokens written were thoughts, ``cached_tokens`` how many of those read an
    engine had read before.
    """

    text: str
    reasoning: str = ""
    finish_reason: FinishReason = "eos"
    token_ids: tuple[int, ...] = attrs.field(default=(), converter=ints)
    token_logprobs: tuple[float, ...] = attrs.field(default=(), converter=floats)
    usage: Usage = Usage()
    spans: tuple[Span, ...] = attrs.field(default=(), converter=anything)
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=mapping, hash=False)


@attrs.frozen(kw_only=True)
class ContinuationScore:
    """Teacher-forced log-probabilities of one given continuation, one entry per token (natural logarithm).

    ``prompt_tokens`` is what was read before it; a call that reads one prompt for several continuations says so once.
    """

    token_ids: tuple[int, ...] = attrs.field(converter=ints)
    token_logprobs: tuple[float, ...] = attrs.field(converter=floats)
    prompt_tokens: int = attrs.field(default=0, eq=False)

    @property
    def logprob(self) -> float:
        """The log-probability of the whole continuation."""
        return float(sum(self.token_logprobs))


@attrs.frozen(kw_only=True)
class Reply:
    """A system's answer to one question. ``meta`` is JSON data for the record: votes, the chosen model, fallbacks.

    ``abstained`` says that the system declines to answer, whatever ``text`` says: a run counts such replies apart and tells
    how much it answered, and how well it did on that.
    """

    text: str
    finish_reason: FinishReason = "eos"
    spans: tuple[Span, ...] = attrs.field(default=(), converter=anything)
    abstained: bool = False
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=mapping, hash=False)

    @classmethod
    def of(cls, generation: Generation, **meta: Any) -> Reply:
        """Return a model's generation as the system's reply."""
        return cls(text=generation.text, finish_reason=generation.finish_reason, spans=generation.spans, meta=meta)


@attrs.frozen(kw_only=True)
class Answer:
    """What was read out of a reply.

    Two replies give the same answer exactly if their ``key`` is equal; ``key`` is None unless ``status`` is
    ``parsed``. ``text`` is the answer as a person would write it.
    """

    key: str | None = None
    text: str = ""
    status: Literal["parsed", "unparsed", "ambiguous", "cut", "invalid"] = "unparsed"
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=mapping, hash=False)

    @property
    def parsed(self) -> bool:
        return self.key is not None


@attrs.frozen(kw_only=True)
class Score:
    """The score of one reply, in [0, 1] unless the metric says otherwise; None if the metric does not score."""

    value: float | None
    answer: Answer = attrs.field(factory=Answer)
    meta: Mapping[str, Any] = attrs.field(factory=dict, converter=mapping, hash=False)


@attrs.frozen
class Unit:
    """What statistics count: one question, or one group of questions that score together."""

    id: str
    score: float
    subset: str = ""


@attrs.frozen(kw_only=True)
class CallRecord:
    """One finished model call, as run records show it. ``request`` is what the model read, ``response`` what came back.

    ``cached`` tells that it was made before; ``seconds`` is the model time it took then, None if unknown.
    """

    model: str
    kind: str
    phase: str
    key: str = ""
    cached: bool = False
    usage: Usage = Usage()
    seconds: float | None = None
    request: Any = None
    response: Any = None


@attrs.frozen(kw_only=True)
class Evaluation:
    """Dev scores: ``scores[i][j]`` is model i on example j (None if the metric does not score), ``replies`` likewise."""

    names: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    replies: tuple[tuple[Generation, ...], ...]

    def means(self) -> tuple[float, ...]:
        """Return the mean score of each model; 0 for a model without any score."""
        out = []
        for row in self.scores:
            known = [s for s in row if s is not None]
            out.append(sum(known) / len(known) if known else 0.0)
        return tuple(out)

    def best(self) -> int:
        """Return the index of the best model; ties go to the lowest index."""
        means = self.means()
        return max(range(len(means)), key=lambda i: (means[i], -i))


Prompt = str | Question | Message | Sequence[Message]
"""What a model may be asked with: plain user text, a question, or a conversation."""


def as_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Return any prompt as a conversation."""
    if isinstance(prompt, Question):
        return prompt.messages()
    if isinstance(prompt, str):
        return (Message("user", prompt),)
    if isinstance(prompt, Message):
        return (prompt,)
    return tuple(prompt)
