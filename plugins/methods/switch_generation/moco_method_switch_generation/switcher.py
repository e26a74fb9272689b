"""Who names the writer of the next patch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from moco_core import Context, Model, Question
from moco_method_switch_generation.prompts import conversation, labels_of
from moco_toolkit_decoding import DecodingSession, open_session

__all__ = ["ModelSwitcher", "RandomSwitcher", "Switcher"]


class Switcher(Protocol):
    """Chooses the writer of the next patch."""

    async def choose(self, patches: Sequence[tuple[int, str]]) -> int:
        """Return the index of the writer after these patches, each ``(writer, text)``. Raises PromptTooLong."""

    @property
    def tokens(self) -> tuple[int, int] | None:
        """The tokens read and written for its choices; None if no model makes them."""

    def close(self) -> None:
        """Give resources back."""


class ModelSwitcher:
    """A language model as the switcher, without training: the label with the highest probability speaks.

    The writers' labels are scored as continuations, with and without a space in front; equal scores give the last model.
    What a prompt has in common with the one before is read once: the request to choose comes after it.
    """

    def __init__(
        self, model: Model, writers: Sequence[Model], question: Question, context: Context, *, tags: bool = False
    ) -> None:
        self.model, self.question, self.context, self.tags = model, question, context, tags
        self.descriptions = [m.description or m.name for m in writers]
        self.session: DecodingSession | None = None

    async def choose(self, patches: Sequence[tuple[int, str]]) -> int:
        asked = conversation(self.question, self.descriptions, patches, tags=self.tags)
        if self.session is None:
            self.session = await open_session(self.context, self.model, asked)
        else:
            await self.session.reopen(asked)
        scores = await self.session.choice(labels_of(len(self.descriptions)))
        top = max(scores)
        return max(i for i, score in enumerate(scores) if score == top)

    @property
    def tokens(self) -> tuple[int, int] | None:
        counter = self.session.counter if self.session is not None else None
        return (counter.read, counter.written) if counter is not None else (0, 0)

    def close(self) -> None:
        if self.session is not None:
            self.session.close()


class RandomSwitcher:
    """Chance: every writer is as likely as the others, for every patch anew."""

    tokens = None

    def __init__(self, writers: int, generator: random.Random) -> None:
        self.writers, self.generator = writers, generator

    async def choose(self, patches: Sequence[tuple[int, str]]) -> int:
        return self.generator.randrange(self.writers)

    def close(self) -> None:
        pass
