"""Writing one answer patch by patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from moco_core import Context, Model, Question
from moco_core.types import Message
from moco_toolkit_decoding import Answering, StepSession, open_session

if TYPE_CHECKING:
    from moco_method_switch_generation import SwitchGenerationOptions

__all__ = ["ModelSwitcher", "Patch", "Switcher", "trace", "write"]

REQUEST = """Several language models write a response together, one part at a time.
Name the model that writes the next part best.

Models:
{models}

Question: {question}

Response so far:
{response}"""
CHOICE = "\n\nAnswer with the number of the model that goes on, nothing else."


@attrs.frozen
class Patch:
    """A committed piece: the writer's index, its text, and why it wrote (``switcher``, ``first``, ``last``)."""

    writer: int
    text: str
    reason: str


class Switcher(Protocol):
    """Chooses the writer of the next patch."""

    @property
    def cost(self) -> tuple[int, int]:
        """Tokens read and written for its choices."""

    async def choose(self, patches: Sequence[Patch]) -> int:
        """Return the index of the writer after these patches."""

    def close(self) -> None:
        """Give resources back."""


def trace(question: Question, descriptions: Sequence[str], patches: Sequence[Patch]) -> str:
    """Return what a switcher reads: the models, the question, and the attributed patches so far."""
    models = "\n".join(f"{i}: {text}" for i, text in enumerate(descriptions))
    response = "\n".join(f"[{p.writer}] {p.text.strip()}" for p in patches) or "(nothing yet)"
    return REQUEST.format(models=models, question=question.text(), response=response)


class ModelSwitcher:
    """A language model as the switcher, without training: the label with the highest probability speaks.

    The labels are the writers' numbers, scored as continuations of the trace, with and without a space in front; equal
    scores give the last model. What the trace has in common with the one before is read once: the
    request to choose comes after it.
    """

    def __init__(self, model: Model, writers: Sequence[Model], question: Question, context: Context) -> None:
        self.model, self.question, self.context = model, question, context
        self.descriptions = [m.description or m.name for m in writers]
        self.session: StepSession | None = None
        self.choices = 0

    async def choose(self, patches: Sequence[Patch]) -> int:
        text = trace(self.question, self.descriptions, patches) + CHOICE
        if self.session is None:
            self.session = await open_session(self.context, self.model, Message("user", text))
        else:
            await self.session.reopen(Message("user", text))
        self.choices += 1
        scores = await self.session.choice([str(i) for i in range(len(self.descriptions))])
        top = max(scores)
        return max(i for i, s in enumerate(scores) if s == top)

    @property
    def cost(self) -> tuple[int, int]:
        counter = self.session.counter if self.session is not None else None
        return (counter.read, counter.written) if counter is not None else (0, 0)

    def close(self) -> None:
        if self.session is not None:
            self.session.close()


async def write(
    writers: Sequence[Model],
    question: Question,
    options: SwitchGenerationOptions,
    shared: bool,
    switcher: Switcher,
    context: Context,
) -> dict[str, Any]:
    """Write one answer; ``shared`` tells that all writers have one tokenizer. See ``Answering.result`` for what comes back."""
    sampling = context.sampling
    limit = sampling.max_new_tokens
    sessions = await context.gather(open_session(context, m, question, reserve=limit) for m in writers)
    answer = Answering(sessions, shared=shared, stops=sampling.stop)
    generator = context.rng("switch_generation")
    last = len(writers) - 1
    ends = len(writers) == 3 if options.force_ends is None else options.force_ends
    patches: list[Patch] = []
    used = waits = 0
    try:
        while answer.finish is None:
            room = limit - used
            if room <= 0:
                answer.finish = "length"
                break
            final = room <= options.patch_size
            if ends and (final or not patches):
                who, reason = last, "last" if final and patches else "first"
            else:
                who, reason = await switcher.choose(patches), "switcher"
            if final and options.answer_cue:
                before = sum(p.tokens for p in answer.pieces)
                answer.commit_text(who, options.answer_cue.encode())
                used += sum(p.tokens for p in answer.pieces) - before
                room = limit - used
                if answer.finish is not None or room <= 0:
                    continue
            session = answer.turn(who)
            draft = await session.draft(min(options.patch_size, room), sampling=sampling, generator=generator)
            ended = draft.reason == "end"
            over = ended or session.weigh(draft.ids) >= room
            ids = list(draft.ids)
            if not over:
                ids = answer.whole(who, ids, words=True) or await answer.completed(
                    who, ids, room - session.weigh(ids), sampling=sampling, generator=generator
                )
            text = answer.drafted(who, ids).decode("utf-8", "replace")
            answer.commit(who, ids)
            used += session.weigh(ids)
            patches.append(Patch(who, text, reason))
            if not ids and not ended and answer.finish is None:
                answer.finish = "eos"  # nothing was written, and asking again would give nothing again
            elif ended and answer.finish is None:
                if options.wait and waits < options.max_waits and used < limit:
                    waits += 1
                    before = sum(p.tokens for p in answer.pieces)
                    answer.commit_text(who, options.wait_cue.encode())
                    used += max(1, sum(p.tokens for p in answer.pieces) - before)
                else:
                    answer.finish = "eos"
        place, told = 0, []
        for patch in patches:
            told.append([patch.writer, patch.reason, place, place + len(patch.text)])
            place += len(patch.text)
        result = answer.result(patches=told, waits=waits)
        for name, tokens in zip(("read", "written"), switcher.cost, strict=True):
            result[name].append(tokens)
        return result
    finally:
        switcher.close()
        answer.close()
