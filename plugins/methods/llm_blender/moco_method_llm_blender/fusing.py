"""Fusing: what a fuser is asked with, in fit and respond alike, and what a trained one is to write."""

from __future__ import annotations

from collections.abc import Sequence

from moco_core import Context, Example, Message, Model, Question, Reply
from moco_method_llm_blender.prompts import fusion
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN, Sheet, fit_quotes

__all__ = ["fused_sheet", "gold"]

_FULL = 1 - 1e-9


def fused_sheet(model: Model, question: Question, texts: Sequence[str], max_new_tokens: int) -> Sheet:
    """Return the fuser's sheet with replies cut to equal shares of its context; their ends are kept, the question is whole."""
    fixed = [*(turn.content for turn in question.messages()[:-1]), fusion(question, [""] * len(texts)).whole]
    cut = fit_quotes(
        texts,
        context_length=model.context_length,
        max_new_tokens=max_new_tokens,
        fixed="\n".join(fixed),
        ratio=CHARACTERS_PER_TOKEN,
    )
    return fusion(question, cut)


def messages(question: Question, sheet: Sheet) -> tuple[Message, ...]:
    """Return the conversation that asks for the fused reply."""
    return (*question.messages()[:-1], Message("user", sheet.whole))


async def gold(example: Example, context: Context) -> str | None:
    """Return the right answer in a form in which the run's metric gives it the full score; None if there is none."""
    question, answers = example.question, list(example.references)
    if example.answer is not None and question.choices:
        answers.insert(0, question.letters[example.answer])
    forms = [form.format(answer) for form in ("The answer is {}.", "\\boxed{{{}}}", "{}") for answer in answers]
    for form in forms:
        value = (await context.grade(example, Reply(text=form))).value
        if value is not None and value >= _FULL:
            return form
    return None
