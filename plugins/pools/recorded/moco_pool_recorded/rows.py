"""The rows of a recording, and the table that finds a reply by what is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from moco_core import ConfigError, Generation, Message, Question, Usage
from moco_core.types import canonical, digest

__all__ = ["Row", "Table", "as_seen"]


def as_seen(messages: Iterable[Message]) -> str:
    """Return the one text that stands for a conversation."""
    return canonical([[m.role, m.content] for m in messages])


@attrs.frozen(kw_only=True)
class Row:
    """One recorded reply. A question is known by what the model read (``seen``), by its ``prompt`` or by its ``id``; ``key`` is
    that of the very call, seed and settings included.

    ``cost`` is money, None if unknown; usage without tokens is unknown too.
    """

    model: str
    reply: str
    where: str
    key: str = ""
    id: str = ""
    prompt: str = ""
    seen: str = ""
    reasoning: str = ""
    finish: Any = "eos"
    usage: Usage = Usage()
    cost: float | None = None
    score: float | None = None
    reference: str = ""
    subset: str = ""
    settings: str = ""

    @property
    def name(self) -> str:
        """The question, as messages call it."""
        text = self.id or self.prompt or self.seen
        return repr(text if len(text) <= 60 else text[:57] + "...")

    def generation(self, *, priced: bool) -> Generation:
        """Return the reply as a model's; ``priced`` says that some calls of this model have a cost."""
        meta: dict[str, Any] = {"cost": self.cost} if priced else {}
        if self.score is not None:
            meta["score"] = self.score
        return Generation(
            text=self.reply, reasoning=self.reasoning, finish_reason=self.finish, usage=self.usage, meta=meta
        )


class Table:
    """The replies of one model. ``match`` says by what a question is found: ``auto`` uses an id only where there is no more."""

    def __init__(self, model: str, match: str) -> None:
        self.model, self.match = model, match
        self.priced = False
        self._keys: dict[str, Row] = {}
        self._seen: dict[str, Row] = {}
        self._prompts: dict[str, Row] = {}
        self._ids: dict[str, Row] = {}

    def add(self, row: Row) -> None:
        """Add a row. Raises ConfigError if there is another reply to its question already."""
        self.priced = self.priced or row.cost is not None
        if self.match == "key" and row.key:
            self._keys.setdefault(row.key, row)
            return
        by_id = self.match == "id" or not (row.prompt or row.seen)
        places = [(self._ids, row.id)] if by_id else [(self._seen, row.seen), (self._prompts, row.prompt)]
        for found, key in places:
            if not key:
                continue
            known = found.setdefault(key, row)
            if (known.reply, known.finish) != (row.reply, row.finish):
                raise ConfigError(
                    f"question {row.name}, model {row.model!r}: two replies ({known.where} and {row.where}); keep one"
                )

    def find(self, given: Mapping[str, Any], key: str) -> Row | None:
        """Return the reply to a call by its input and its key, None if it was not recorded."""
        if key in self._keys:
            return self._keys[key]
        if "question" in given:
            fields = dict(given["question"])
            question = Question(**{**fields, "history": tuple(Message(**turn) for turn in fields["history"])})
            plain = not (question.system or question.history)
            texts: tuple[str, ...] = (question.text(), question.prompt) if plain else ()
            return self._first(as_seen(question.messages()), texts, question.id)
        if "messages" in given:
            turns = [Message(role, content) for role, content in given["messages"]]
            texts = (turns[0].content,) if len(turns) == 1 and turns[0].role == "user" else ()
            return self._first(as_seen(turns), texts, "")
        return self._seen.get(canonical(given))

    def _first(self, seen: str, texts: tuple[str, ...], name: str) -> Row | None:
        found = self._seen.get(seen)
        for text in texts:
            found = found or self._prompts.get(text)
        return found or self._ids.get(name)

    @property
    def fingerprint(self) -> str:
        """A digest of everything that the table answers."""
        found = [(key, r) for table in (self._seen, self._prompts, self._ids) for key, r in sorted(table.items())]
        said = [[key, r.reply, r.finish, r.reasoning, r.cost, attrs.astuple(r.usage)] for key, r in found]
        return digest("recorded", said)
