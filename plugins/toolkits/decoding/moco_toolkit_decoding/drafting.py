"""One draft as it grows: which tokens it takes, and when it is over."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import torch

from moco_toolkit_decoding.ops import Draft, DraftOp, HeadGate, TopGate
from moco_toolkit_decoding.text import Vocabulary, starts_word, valid_prefix

__all__ = ["DraftInProgress", "generator_of", "head_values"]


@attrs.define(eq=False)
class DraftInProgress:
    """A draft and what it has so far. ``line`` is the cached row it stands on."""

    op: DraftOp
    line: Any
    generator: random.Random | None
    ids: list[int] = attrs.field(factory=list)
    logprobs: list[float] = attrs.field(factory=list)
    tops: list[float] = attrs.field(factory=list)
    gates: list[float] = attrs.field(factory=list)
    text: bytes = b""
    words: int = 0
    length: int = 0

    def finished(
        self, reason: Literal["length", "end", "gate", "word"], refused: tuple[int, float] | None = None
    ) -> Draft:
        return Draft(
            ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            tops=tuple(self.tops),
            gates=tuple(self.gates),
            reason=reason,
            refused=refused,
            words=self.words if reason == "word" else self.words + bool(self.length),
            state=self.generator.getstate() if self.generator is not None else None,
        )

    def take(
        self, vocabulary: Vocabulary, token: int, logprob: float, top: float, gate: float | None = None
    ) -> Draft | None:
        """Take or refuse the next token; return the draft if it is over.

        ``top`` is the largest log-probability at this place, ``gate`` the value of the draft's head, if it has one.
        """
        op, refused = self.op, (token, logprob)
        if gate is not None and isinstance(op.gate, HeadGate):
            self.gates.append(gate)
            if gate > op.gate.threshold(op.done + len(self.ids)) and len(self.ids) >= op.free:
                return self.finished("gate", refused)
        elif isinstance(op.gate, TopGate) and len(self.ids) >= op.free and math.exp(top) < op.gate.least:
            return self.finished("gate", refused)
        if token in (vocabulary.ends if op.ends is None else op.ends):
            return self.finished("end", refused)
        piece = vocabulary.piece(token)
        if op.words and self.ids and (self._overlong() or starts_word(self.text, piece)):
            self.words += 1
            if self.words >= op.words:
                return self.finished("word", refused)
            self.text, self.length = b"", 0
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.tops.append(top)
        self.text += piece
        self.length += 1
        return self.finished("length") if len(self.ids) >= op.n else None

    def _overlong(self) -> bool:
        """Whether the word has all the tokens that a word may have; it is never cut inside a character."""
        return self.length >= self.op.word_tokens and valid_prefix(self.text) == self.text


def head_values(drafts: Sequence[DraftInProgress], states: Any) -> list[float | None]:
    """Return sigmoid(g . h) for every draft with a head, None for the others."""
    out: list[float | None] = [None] * len(drafts)
    heads: dict[int, list[int]] = {}
    for n, d in enumerate(drafts):
        if isinstance(d.op.gate, HeadGate):
            heads.setdefault(id(d.op.gate.head), []).append(n)
    for members in heads.values():
        gate = drafts[members[0]].op.gate
        assert isinstance(gate, HeadGate)
        head = gate.head.to(states.device)
        values = (states[torch.tensor(members, device=states.device)].float() @ head + gate.bias).sigmoid().tolist()
        for n, value in zip(members, values, strict=True):
            out[n] = value
    return out


def generator_of(op: DraftOp) -> random.Random | None:
    """Return the row's generator at the state the operation carries, so that a repeated run draws the same numbers."""
    if op.state is None:
        return None
    generator = random.Random()
    generator.setstate(op.state)
    return generator
