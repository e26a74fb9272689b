"""What jobs are trained on: conversations, never strings, so that training renders them as asking does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from moco_core.converters import ints
from moco_core.errors import ConfigError
from moco_core.types import Message, Prompt, as_messages

__all__ = ["Completion", "Demonstration", "Duel", "Labelled", "Preference", "Task", "pairing"]


def _conversation(prompt: Prompt | Sequence[Message]) -> tuple[Message, ...]:
    return as_messages(prompt)


def _label(value: int | Iterable[float]) -> int | tuple[float, ...]:
    return value if isinstance(value, int) else tuple(value)


@attrs.frozen(kw_only=True)
class Demonstration:
    """A conversation to imitate. ``trained`` are the indices of the assistant turns that are learnt; by default the last."""

    messages: tuple[Message, ...] = attrs.field(converter=_conversation)
    trained: tuple[int, ...] = attrs.field(default=(), converter=ints)

    @classmethod
    def of(cls, prompt: Prompt, completion: str) -> Demonstration:
        """Return the demonstration that ``completion`` answers ``prompt``."""
        return cls(messages=(*as_messages(prompt), Message("assistant", completion)))

    @property
    def turns(self) -> tuple[int, ...]:
        """The indices of the trained turns. Raises ConfigError if one of them is not the assistant's."""
        turns = self.trained or (len(self.messages) - 1,)
        for turn in turns:
            if not 0 <= turn < len(self.messages) or self.messages[turn].role != "assistant":
                raise ConfigError(f"a demonstration trains on turn {turn}, which is not one of the assistant's")
        return tuple(sorted(set(turns)))


@attrs.frozen(kw_only=True)
class Preference:
    """Two replies to one prompt, the better one first (dpo, reward)."""

    prompt: tuple[Message, ...] = attrs.field(converter=_conversation)
    chosen: str
    rejected: str


@attrs.frozen(kw_only=True)
class Task:
    """A prompt to practise on (grpo); ``extra`` is JSON data for whoever gives the reward."""

    prompt: tuple[Message, ...] = attrs.field(converter=_conversation)
    extra: Mapping[str, Any] = attrs.field(factory=dict, hash=False)


@attrs.frozen(kw_only=True)
class Completion:
    """What a model wrote for a task while it practised."""

    task: Task
    text: str


@attrs.frozen(kw_only=True)
class Labelled:
    """A conversation (or a text, which is a user's turn) and its class: an index, or a probability per class (classify)."""

    messages: tuple[Message, ...] = attrs.field(converter=_conversation)
    label: int | tuple[float, ...] = attrs.field(converter=_label)

    def probabilities(self, classes: int) -> tuple[float, ...]:
        """Return the label as one probability per class. Raises ConfigError if it is none."""
        if isinstance(self.label, int):
            if not 0 <= self.label < classes:
                raise ConfigError(f"the label {self.label} is none of {classes} classes (0 to {classes - 1})")
            return tuple(float(i == self.label) for i in range(classes))
        if len(self.label) != classes or not math.isclose(sum(self.label), 1, abs_tol=1e-6) or min(self.label) < 0:
            raise ConfigError(f"the soft label {self.label} is no distribution over {classes} classes")
        return tuple(float(p) for p in self.label)


@attrs.frozen(kw_only=True)
class Duel:
    """Two candidates for one query, and the probability that the first is the better one (rank)."""

    query: str
    a: str
    b: str
    label: float = attrs.field(validator=[attrs.validators.ge(0), attrs.validators.le(1)])


def pairing(query: str, a: str, b: str) -> tuple[Message, ...]:
    """Return the conversation a trained ranker reads: the query, and the candidates in this order."""
    return (Message("user", f"{query}\n\nFirst reply:\n{a}\n\nSecond reply:\n{b}"),)


def listed(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return rows as a tuple."""
    return tuple(values)
