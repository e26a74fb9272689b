"""The test phase of a run: every question answered, scored and recorded."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core.context import Context
from moco_core.data import Scored
from moco_core.errors import BudgetReached, PluginError, PoolError, PromptTooLong, StoreError, error_line
from moco_core.events import QuestionAnswered
from moco_core.methods import System
from moco_core.runs.folder import RunFolder
from moco_core.runs.observe import Observers
from moco_core.runtime.contexts import RunState
from moco_core.types import CallRecord, Example, Reply, Score


@attrs.define(kw_only=True, eq=False)
class Answers:
    """Answers and scores the test questions of one run, and records each as it is done.

    ``rows`` are the answered questions and ``failures`` the errors of the others, each by its place in the dataset.
    """

    label: str
    state: RunState
    folder: RunFolder
    observers: Observers
    run_id: str
    failures: dict[int, tuple[str, Exception]] = attrs.field(factory=dict, init=False)
    _done: dict[int, Scored] = attrs.field(factory=dict, init=False)

    @property
    def rows(self) -> list[Scored]:
        return [self._done[index] for index in sorted(self._done)]

    @property
    def failure(self) -> tuple[str, Exception | None]:
        """The first failed question's error, as a line and as it is; an empty line and None if none failed."""
        return self.failures[min(self.failures)] if self.failures else ("", None)

    async def answer(self, system: System, examples: Sequence[Example], allowed: frozenset[str]) -> None:
        """Ask every question; one that fails is recorded with its error and does not lose the others."""
        places = {example.id: index for index, example in enumerate(examples)}

        async def one(example: Example, context: Context) -> None:
            started = time.monotonic()
            index = places[example.id]
            row = _asked(index, example)
            try:
                reply = await self._reply(system, example, context)
                score = _checked(await context.grade(example, reply))
            except (StoreError, PoolError, BudgetReached, asyncio.CancelledError):
                raise
            except Exception as error:
                line = error_line(error)
                self.failures[index] = (f"question {example.id}: {line}", error)
                row |= {"score": None, "error": line}
                told: dict[str, Any] = {"status": "failed"}
            else:
                self._done[index] = Scored(example=example, reply=reply, score=score)
                row |= _answered(reply, score)
                told = {"status": score.answer.status, "reply": reply.text, "answer": score.answer.text}
            row["calls"] = [_call_row(c) for c in context.calls]
            row["seconds"] = round(time.monotonic() - started, 4)
            self.folder.record(row)
            told |= {key: row[key] for key in ("index", "question", "score", "error")}
            event = QuestionAnswered(run_id=self.run_id, question_id=example.id, **told)
            self.observers.tell("moco_question_answered", event)

        await self.state.context("respond", allowed=allowed).each(examples, one, label=f"test {self.label}")

    async def _reply(self, system: System, example: Example, context: Context) -> Reply:
        """Ask the system. A question too long for it counts as an empty reply, as on dev: no further attempt helps."""
        try:
            return await system.respond(example.question, context)
        except PromptTooLong as error:
            context.warn(f"{self.label}: test questions that are too long for it count as empty replies")
            return Reply(text="", finish_reason="length", meta={"too_long": error_line(error)})


def _asked(index: int, example: Example) -> dict[str, Any]:
    """Return what was asked and what is right, as a record has it; ``choice`` is the index of the right choice."""
    question = example.question
    row: dict[str, Any] = {
        "index": index,  # first: readers put the lines in order by it
        "id": example.id,
        "subset": question.subset,
        "question": question.text(),
        "references": list(example.references),
        "choice": example.answer,
    }
    if question.system:
        row["system"] = question.system
    if question.history:
        row["history"] = [[m.role, m.content] for m in question.history]
    return row


def _checked(score: Score) -> Score:
    """Return a score whose value is a float or None. Raises PluginError for any other."""
    value = score.value
    if value is None or (type(value) is float and math.isfinite(value)):
        return score
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise PluginError(f"the metric's score is {value!r}, expected a finite number or None")
    return attrs.evolve(score, value=number)


def _answered(reply: Reply, score: Score) -> dict[str, Any]:
    return {
        "reply": {
            "text": reply.text,
            "finish": reply.finish_reason,
            "spans": [[s.model, s.text, s.tokens] for s in reply.spans],
            "abstained": reply.abstained,
            "meta": dict(reply.meta),
        },
        "answer": {"text": score.answer.text, "key": score.answer.key, "status": score.answer.status},
        "score": score.value,
        "score_meta": dict(score.meta),
        "error": "",
    }


def _call_row(call: CallRecord) -> Mapping[str, Any]:
    return {
        "model": call.model,
        "kind": call.kind,
        "key": call.key,
        "cached": call.cached,
        "prompt_tokens": call.usage.prompt_tokens,
        "completion_tokens": call.usage.completion_tokens,
        "seen": call.request,
        "said": call.response,
    }
