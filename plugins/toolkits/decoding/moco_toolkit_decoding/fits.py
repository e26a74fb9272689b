"""What methods that fit token by token share: results kept for good, texts to learn from, and how well a score ranks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from moco_core import Context, Example, Model, Reply, Usage

__all__ = ["Spent", "auroc", "fit_once", "gold_text"]


class Spent:
    """What the sessions of a fit read and wrote, per model: kept beside the result, counted again where it is reused."""

    def __init__(self, models: Sequence[Model], data: Sequence[Sequence[int]] = ()) -> None:
        self.models = list(models)
        self._rows = [list(row) for row in data] or [[0, 0, 0] for _ in self.models]

    def add(self, scope: Context) -> None:
        """Add the calls of a question's context, and what its sessions have counted, one session per model."""
        for call in scope.calls:
            row = self._rows[next(i for i, model in enumerate(self.models) if model.name == call.model)]
            work = (call.usage.prompt_tokens, call.usage.completion_tokens, 1)
            row[:] = [a + b for a, b in zip(row, work, strict=True)]

    def data(self) -> list[list[int]]:
        """Return the work as JSON data: tokens read, tokens written, and calls or sessions of each model."""
        return self._rows

    def count(self, context: Context) -> None:
        """Count it as work that was done before."""
        for model, (read, written, calls) in zip(self.models, self._rows, strict=True):
            if calls:
                context.count(model, Usage(read, written), calls=calls, cached=True)


async def fit_once(
    context: Context, what: Mapping[str, Any], models: Sequence[Model], compute: Callable[[Spent], Awaitable[Any]]
) -> Any:
    """Return the JSON result of a fit by steps of ``models``, computed at most once ever and counted every time.

    ``what`` is as in :meth:`Context.once`, the models' fingerprints aside. ``compute`` gets a :class:`Spent`, to which it adds
    the contexts of its questions.
    """
    fresh = False

    async def work() -> dict[str, Any]:
        nonlocal fresh
        fresh = True
        spent = Spent(models)
        return {"result": await compute(spent), "spent": spent.data()}

    found = await context.once({**what, "models": [m.fingerprint for m in models]}, work)
    if not fresh:  # sessions count themselves
        Spent(models, found["spent"]).count(context)
    return found["result"]


async def gold_text(example: Example, context: Context) -> str | None:
    """Return a reply that says the reference answer, None if the example has none.

    That is the first reference, or for a choice the first wording that the run's metric takes for right.
    """
    if example.references and example.references[0]:
        return example.references[0]
    question, answer = example.question, example.answer
    if answer is None or not 0 <= answer < len(question.choices):
        return None
    letter = question.letters[answer]
    for text in (f"The answer is {letter}.", letter, question.choices[answer]):
        if ((await context.grade(example, Reply(text=text))).value or 0.0) >= 0.5:
            return text
    return None


def auroc(values: Sequence[float], wanted: Sequence[bool]) -> float | None:
    """Return the area under the ROC curve: how likely a value that is ``wanted`` is larger than one that is not.

    Ties count half; None if all are of one kind.
    """
    yes, no = (sorted(v for v, w in zip(values, wanted, strict=True) if bool(w) is kind) for kind in (True, False))
    if not yes or not no:
        return None
    return sum(bisect_left(no, v) + bisect_right(no, v) for v in yes) / (2 * len(yes) * len(no))
