"""The operations of step sessions: what is asked, and what comes back.

Each operation states the *whole* token sequence it wants to stand on. What the cache of its session already holds is reused,
what differs is rolled back, what is missing is read. So rolling back and forking cost nothing, the cache may be dropped at any
time, and a repeated operation gives the same result: the token ids are the truth, the cache is only a memory of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor

from moco_core.types import Sampling
from moco_toolkit_decoding.text import Vocabulary

__all__ = [
    "Draft",
    "DraftOp",
    "HeadGate",
    "InspectOp",
    "OpenOp",
    "Opened",
    "PeekOp",
    "RowHandle",
    "ScoreOp",
    "Seen",
    "StepOp",
    "TopGate",
    "Traced",
]

GREEDY = Sampling()


class RowHandle:
    """Ties a session to its cached row. ``parent`` is the session it was forked from; a closed handle frees its row."""

    __slots__ = ("__weakref__", "closed", "parent")
    by_identity: ClassVar[bool] = True

    def __init__(self, parent: RowHandle | None = None) -> None:
        self.closed = False
        self.parent = weakref.ref(parent) if parent is not None else None

    def __reduce__(self) -> tuple[Any, ...]:
        return RowHandle, (), (self.closed, self.parent() if self.parent is not None else None)

    def __setstate__(self, state: tuple[bool, RowHandle | None]) -> None:
        self.closed, parent = state
        self.parent = weakref.ref(parent) if parent is not None else None


@attrs.frozen
class TopGate:
    """Lets a greedy token pass while the model's largest probability is at least ``least``."""

    least: float


@attrs.frozen(eq=False)
class HeadGate:
    """Lets a token pass while sigmoid(g . h) <= the threshold of its position.

    ``head`` is float32 (H,), ``bias`` a number; h is the last layer's hidden state that the token is predicted from.
    ``thresholds[n]`` belongs to the n-th token of the reply, the last one to all later ones.
    """

    head: Tensor
    thresholds: tuple[float, ...]
    bias: float = 0.0

    def threshold(self, n: int) -> float:
        return self.thresholds[min(n, len(self.thresholds) - 1)]


@attrs.frozen(kw_only=True)
class Opened:
    """What a session knows of its model: the tokenizer's byte view, the rendered prompt, and sizes.

    ``tags`` mark reasoning in its replies; ``closing`` is the tag that ends a block which the prompt leaves open.
    """

    vocabulary: Vocabulary
    prompt: tuple[int, ...]
    context_length: int | None
    meta: Mapping[str, Any]
    tags: Sequence[tuple[str, str]] = ()
    closing: str = ""


@attrs.frozen(kw_only=True)
class Draft:
    """Tokens a model proposed.

    ``logprobs`` and ``tops`` are, per token, its log-probability and the largest one at its position (temperature 1).
    ``reason`` says why drafting stopped: ``length``, ``end`` (an end token), ``gate``, or ``word`` (the next token starts a
    word). ``refused`` is the token that was not taken in the last three cases, with its log-probability. ``gates`` are the
    values a :class:`HeadGate` saw, the refused one included. ``words`` counts the words begun, if words were asked for.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    tops: tuple[float, ...]
    reason: Literal["length", "end", "gate", "word"]
    refused: tuple[int, float] | None = None
    gates: tuple[float, ...] = ()
    words: int = 0
    state: Any = None


@attrs.frozen(kw_only=True)
class Traced:
    """Teacher-forced scores. Position t is what follows the first ``start + t`` tokens.

    ``top_ids`` and ``top_logprobs`` have one entry per position from ``start`` to the end of the sequence, the end included;
    ``logprobs`` one per token from ``start`` on. If asked for, ``full`` float16 (positions, V) and ``hidden`` float32
    (positions, H) are on the CPU.
    """

    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]
    logprobs: tuple[float, ...]
    full: Tensor | None = None
    hidden: Tensor | None = None


@attrs.frozen(kw_only=True)
class Seen:
    """The next-token distribution: the ``ids`` and log-probabilities asked for, best first; ``full`` float32 (V,) on the CPU;
    ``hidden`` float32 (H,)."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    full: Tensor | None = None
    hidden: Tensor | None = None


class StepOp:
    """Base of the operations."""


@attrs.frozen(kw_only=True, eq=False)
class OpenOp(StepOp):
    """Render a prompt: ``given`` as in a generate call."""

    given: Mapping[str, Any]
    reserve: int = 0


@attrs.frozen(kw_only=True, eq=False)
class PeekOp(StepOp):
    """Look at the next-token distribution after ``ids``: the ``k`` best, ``want`` ids, everything (``full``)."""

    handle: RowHandle
    ids: Sequence[int]
    k: int = 1
    want: tuple[int, ...] = ()
    full: bool = False
    hidden: bool = False


@attrs.frozen(kw_only=True, eq=False)
class DraftOp(StepOp):
    """Write up to ``n`` tokens after ``ids``.

    ``free`` tokens pass the ``gate`` unasked. ``words``: stop before the token that starts one word more than that; a word of
    ``word_tokens`` tokens is over. ``done`` is the number of reply tokens before this draft, for position-dependent gates.
    ``state`` is the row's generator state. ``size`` limits the choice to ids below it; ``ends`` replaces the end tokens.
    """

    handle: RowHandle
    ids: Sequence[int]
    n: int
    sampling: Sampling = GREEDY
    state: Any = None
    gate: TopGate | HeadGate | None = None
    free: int = 0
    words: int = 0
    word_tokens: int = 1 << 30
    done: int = 0
    size: int | None = None
    ends: frozenset[int] | None = None


@attrs.frozen(kw_only=True, eq=False)
class ScoreOp(StepOp):
    """Score the tokens of ``ids`` from index ``start`` (at least 1) on, teacher-forced."""

    handle: RowHandle
    ids: Sequence[int]
    start: int
    full: bool = False
    hidden: bool = False
    size: int | None = None


@attrs.frozen(kw_only=True, eq=False)
class InspectOp(StepOp):
    """Run a function of the loaded model, once: read a weight, say. It must not change anything."""

    function: Callable[[Any], Any]
