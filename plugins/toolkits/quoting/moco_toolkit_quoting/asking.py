"""Asking a model with quotes that fit its context: each gets an equal share, question and instruction are never cut."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import attrs

from moco_core import Context, Generation, Message, Model, PromptTooLong, Sampling
from moco_core.converters import strings
from moco_toolkit_quoting.budget import CHARACTERS_PER_TOKEN, LEAST, fit_quotes

__all__ = ["Asked", "Sheet", "ask", "send"]

T = TypeVar("T")


@attrs.frozen
class Sheet:
    """What a model is to read: the texts quoted in it, which may be cut, and how the prompt is made of them."""

    quotes: tuple[str, ...] = attrs.field(converter=strings)
    compose: Callable[[Sequence[str]], str]

    @property
    def whole(self) -> str:
        """The prompt with every quote in full."""
        return self.compose(self.quotes)


@attrs.frozen
class Asked(Generic[T]):
    """What a model was asked in the end, what came back, and whether a quote had to be cut for it."""

    prompt: str
    reply: T
    cut: bool


async def ask(
    context: Context,
    model: Model,
    sheet: Sheet,
    sampling: Sampling,
    *,
    before: Sequence[Message] = (),
    turns: Sequence[tuple[Message, Message]] = (),
    ratio: float = CHARACTERS_PER_TOKEN,
    sample: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> Asked[Generation]:
    """Have a model write with quotes cut to its context; see :func:`send`, which it is with ``context.generate``."""

    def call(messages: Sequence[Message]) -> Awaitable[Generation]:
        return context.generate(model, messages, sampling, sample=sample, tell=tell)

    return await send(call, model, sheet, sampling.max_new_tokens, before=before, turns=turns, ratio=ratio)


async def send(
    call: Callable[[Sequence[Message]], Awaitable[T]],
    model: Model,
    sheet: Sheet,
    max_new_tokens: int,
    *,
    before: Sequence[Message] = (),
    turns: Sequence[tuple[Message, Message]] = (),
    ratio: float = CHARACTERS_PER_TOKEN,
) -> Asked[T]:
    """Make any call with quotes cut to the model's context; with smaller ones if that was too much.

    ``before`` are messages that stay (system prompt, the question's conversation), ``turns`` earlier exchanges with this
    model, of which the oldest are forgotten while they fill more than half of the room. ``ratio`` is the model's characters
    per token. Raises PromptTooLong, with the numbers, where fewer than :data:`LEAST` tokens are left for a quote that has
    more; ModelCallError as the call does.
    """
    shrink, forgotten = 0, 0
    refused: PromptTooLong | None = None
    room = None if model.context_length is None else model.context_length - max_new_tokens
    while True:
        past = [message for turn in turns[forgotten:] for message in turn]
        fixed = "\n".join([*(m.content for m in (*before, *past)), sheet.compose([""] * len(sheet.quotes))])
        if past and room is not None and len(fixed) / ratio > room / 2:
            forgotten += 1
            continue
        cut = fit_quotes(
            sheet.quotes,
            context_length=model.context_length,
            max_new_tokens=max_new_tokens,
            fixed=fixed,
            ratio=ratio,
            shrink=shrink,
        )
        least = math.floor(LEAST * ratio)
        if any(len(kept) < min(len(text.strip()), least) for kept, text in zip(cut, sheet.quotes, strict=True)):
            if past:
                forgotten, shrink = len(turns), 0
                continue
            raise refused or _no_room(model, max_new_tokens, math.ceil(len(fixed) / ratio), len(sheet.quotes))
        prompt = sheet.compose(cut)
        try:
            reply = await call([*before, *past, Message("user", prompt)])
        except PromptTooLong as error:
            refused = error
            if any(cut):
                shrink += 1
            elif past:
                forgotten, shrink = len(turns), 0
            else:
                raise
            continue
        return Asked(prompt, reply, list(cut) != list(sheet.quotes))


def _no_room(model: Model, reply: int, fixed: int, quotes: int) -> PromptTooLong:
    left = max(0, (model.context_length or 0) - reply - fixed)
    return PromptTooLong(
        f"{model.name}: no room to quote in: of its context of {model.context_length} tokens, {reply} "
        f"are for the reply and about {fixed} for question and instruction, which leaves {left} for {quotes} quotes "
        f"(at least {LEAST} each); lower max_new_tokens or choose a model with a longer context"
    )
