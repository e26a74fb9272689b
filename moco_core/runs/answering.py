"""The test phase of a run: every question answered, scored and recorded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from moco_core.context import Context
from moco_core.data import Scored
from moco_core.errors import MocoError, PoolError, StoreError
from moco_core.events import QuestionAnswered
from moco_core.methods import System
from moco_core.runs.observe import Observers
from moco_core.runs.records import RunFolder
from moco_core.runtime.contexts import RunState
from moco_core.types import Example, Score

__all__ = ["Answers", "error_line"]


class Answers:
    """Answers and scores the test questions of one run, and records each as it is done.

    ``rows`` are the answered questions in their order; ``failed`` counts the others, with the first one's error.
    """

    def __init__(self, *, label: str, session: RunState, folder: RunFolder, observers: Observers, run_id: str) -> None:
        self.label = label
        self.session = session
        self.folder = folder
        self.observers = observers
        self.run_id = run_id
        self.rows: list[Scored] = []
        self.failed = 0
        self.first_error = ""
        self.cause: Exception | None = None

    async def answer(self, system: System, examples: Sequence[Example], allowed: frozenset[str]) -> None:
        """Ask every question; one that fails is recorded with its error and does not lose the others."""
        root = self.session.context("respond", allowed=allowed)
        done: dict[str, Scored] = {}

        async def one(example: Example, context: Context) -> None:
            started = time.monotonic()
            row: dict[str, Any] = {"id": example.id, "subset": example.question.subset}
            try:
                reply = await system.respond(example.question, context)
                score: Score = await context.grade(example, reply)
            except (StoreError, PoolError, asyncio.CancelledError):
                raise
            except Exception as error:
                self.failed += 1
                self.first_error = self.first_error or f"question {example.id}: {error_line(error)}"
                self.cause = self.cause or error
                row |= {"score": None, "error": error_line(error)}
                event = QuestionAnswered(
                    run_id=self.run_id, question_id=example.id, score=None, status="failed", error=error_line(error)
                )
            else:
                done[example.id] = Scored(example=example, reply=reply, score=score)
                row |= {
                    "reply": {
                        "text": reply.text,
                        "finish": reply.finish_reason,
                        "spans": [[s.model, s.text, s.tokens] for s in reply.spans],
                        "meta": dict(reply.meta),
                    },
                    "answer": {"text": score.answer.text, "key": score.answer.key, "status": score.answer.status},
                    "score": score.value,
                    "score_meta": dict(score.meta),
                    "error": "",
                }
                event = QuestionAnswered(
                    run_id=self.run_id, question_id=example.id, score=score.value, status=score.answer.status
                )
            row["calls"] = [_call_row(c) for c in context.calls]
            row["seconds"] = round(time.monotonic() - started, 4)
            self.folder.record(row)
            self.observers.tell("moco_question_answered", event)

        await root.each(examples, one, label=f"test {self.label}")
        self.rows = [done[e.id] for e in examples if e.id in done]


def _call_row(call: Any) -> dict[str, Any]:
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


def error_line(error: BaseException) -> str:
    """Return an error as one line, with its type if it is not one of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, MocoError) else f"{type(error).__name__}: {text}"
