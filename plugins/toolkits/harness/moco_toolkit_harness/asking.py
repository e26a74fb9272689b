"""Documents of a task as questions: its own prompt, few-shot examples included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moco_core import Example, Question
from moco_toolkit_harness.tasks import Place, docs_of

__all__ = ["choices_of", "example_of", "prompts"]


def prompts(task: Any, split: str, shots: int | None, seed: int) -> Iterator[tuple[int, Any, Any]]:
    """Yield index, document and prompt in the order in which lm-eval asks, so that the same few-shot examples are drawn.

    A prompt is a text, or a list of beginnings where the task compares those.
    """
    task.set_fewshot_seed(seed)
    count = task.config.num_fewshot or 0 if shots is None else shots
    for index, doc in enumerate(docs_of(task, split)):
        yield index, doc, task.fewshot_context(doc, num_fewshot=count, gen_prefix=task.doc_to_prefix(doc))


def choices_of(task: Any, doc: Any) -> tuple[str, ...]:
    """Return the texts that a document's answer is chosen among; none where the answer is written."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return ()
    choices = tuple(str(choice) for choice in task.doc_to_choice(doc))
    if task.multiple_input:  # beginnings are compared, each with the one ending
        return tuple(f"{choice}{task.config.target_delimiter}{task.doc_to_target(doc)}" for choice in choices)
    return choices


def example_of(task: Any, place: Place, doc: Any, prompt: Any) -> Example:
    """Return a document as an example. A choice that the prompt lists already is a label, any other is shown with a letter."""
    choices = choices_of(task, doc)
    meta = {"task": place.task, "include_path": place.include_path, "split": place.split, "index": place.index}
    shared: dict[str, Any] = {"id": f"{place.task}-{place.split}-{place.index}", "subset": place.task}
    if not choices:
        until = task.config.generation_kwargs.get("until") or []
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        question = Question(**shared, prompt=prompt, answer_kind="text", meta={"task": place.task, "until": stops})
        target = task.doc_to_target(doc)
        return Example(
            question=question,
            references=tuple(map(str, target)) if isinstance(target, list) else (str(target),),
            meta=meta,
        )
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    right = [
        choices.index(g) if isinstance(g, str) and g in choices else g
        for g in (gold if isinstance(gold, list) else [gold])
    ]
    known = [g for g in right if isinstance(g, int) and 0 <= g < len(choices)]
    if isinstance(prompt, list):
        prompt = "Which of these texts is right?"
    if len(set(choices)) == len(choices) and all(c.strip() and c in prompt for c in choices):
        kind: dict[str, Any] = {"answer_kind": "label", "labels": choices}
        kind["answer_format"] = f'End with "The answer is" followed by one of: {", ".join(choices)}.'
    else:
        kind = {"answer_kind": "choice", "choices": choices}
        kind["answer_format"] = 'End with "The answer is" followed by the letter of the correct option.'
    question = Question(**shared, prompt=prompt, **kind, meta={"task": place.task})
    index = known[0] if "choices" in kind and len(known) == 1 else None
    return Example(question=question, references=tuple(choices[g] for g in known), answer=index, meta=meta)
