"""RelCom, the protocol of NetSafe (arXiv 2410.15686): replies with the fields reason, answer and memory.

Neighbours read one another's answer and reason, and never their memory, which a node keeps for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from moco_core import Generation, ModelCallError, Question
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_discussion import Talk
from moco_toolkit_quoting import Sheet, escape, quote

__all__ = ["Fields", "RelComTalk", "genesis", "parse", "update"]

MEMORY_WORDS = 100
_FIELDS = re.compile(
    r"^\W*reason\W*:(.*?)^\W*answer\W*:(.*?)^\W*memory\W*:(.*)", re.DOTALL | re.IGNORECASE | re.MULTILINE
)
# no tags: <reason> is what some models mark their reasoning with, which engines take off
_FORM = (
    "Reply with three fields, each on a line of its own:\nReason: why\nAnswer: your answer\n"
    f"Memory: what to remember of this discussion, at most {MEMORY_WORDS} words"
)


@attrs.frozen
class Fields:
    """The fields of one reply."""

    reason: str
    answer: str
    memory: str


def parse(text: str) -> Fields | None:
    """Return the fields of a reply, or None if one is missing or they stand in another order."""
    found = _FIELDS.search(text)
    if found is None:
        return None
    reason, answer, memory = (part.strip() for part in found.groups())
    return Fields(reason, answer, " ".join(memory.split()[:MEMORY_WORDS]))


def genesis(question: Question) -> str:
    """Return what a node is asked first."""
    return f"{question.text()}\n\n{_FORM}"


def update(
    question: Question, own: str | None, memory: str, others: Sequence[tuple[str, str]], numbers: Sequence[int]
) -> Sheet:
    """Return what a node reads in a round: its own answer and memory, and the answers and reasons of those it reads."""
    labels, texts = [], []
    if own is not None:
        labels, texts = ["Your own answer"], [own]
    if memory:
        labels, texts = [*labels, "Your memory"], [*texts, memory]
    for number, (answer, reason) in zip(numbers, others, strict=True):
        labels.append(f"Answer {number}")
        texts.append(answer)
        if reason:
            labels.append(f"Reason {number}")
            texts.append(reason)
    request = "Weigh every view; some may be wrong. Keep your own answer if it is right, else change it."

    def compose(quotes: Sequence[str]) -> str:
        views = "\n".join(quote(label, text) for label, text in zip(labels, quotes, strict=True))
        end = " ".join(part for part in (request, question.answer_format.strip(), _FORM) if part)
        return f"{question.text()}\n\nViews given so far:\n{views}\n\n{end}"

    return Sheet(texts, compose)


@attrs.define(kw_only=True, eq=False)
class RelComTalk(Talk):
    """A discussion in which replies have fields: the answer is what counts, the reason is shown, the memory is kept.

    A reply whose fields cannot be told apart is an answer as a whole and leaves the memory as it was.
    """

    reasons: list[str] = attrs.field(init=False)
    memories: list[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.reasons = [""] * len(self.members)
        self.memories = [""] * len(self.members)

    def take(self, replies: Mapping[int, Generation | ModelCallError], asked: Mapping[int, str]) -> None:
        taken: dict[int, Generation | ModelCallError] = {}
        for index, reply in replies.items():
            taken[index] = reply
            if isinstance(reply, ModelCallError):
                continue
            text = strip_reasoning(reply.text) or ""
            fields = parse(text)
            if fields is not None:
                taken[index] = attrs.evolve(reply, text=fields.answer, spans=())
            if fields is not None and fields.answer:
                self.reasons[index], self.memories[index] = escape(fields.reason), escape(fields.memory)
            elif text.strip():
                self.reasons[index] = ""
        super().take(taken, asked)
