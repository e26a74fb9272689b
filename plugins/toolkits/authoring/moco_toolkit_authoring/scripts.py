"""What scripted models say: calls as a script sees them, scripts, and what training makes of a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from moco_core.errors import ModelCallError
from moco_core.models import Call
from moco_core.types import Generation, Message

__all__ = ["Learn", "Said", "Scores", "Script", "ScriptedCall", "Taught", "memorise", "reply"]


@attrs.frozen(kw_only=True)
class ScriptedCall:
    """One call as a script sees it. ``messages`` is empty for raw calls, whose prompt is ``text``."""

    model: str
    fingerprint: str
    kind: str
    messages: tuple[Message, ...]
    text: str
    given: Mapping[str, Any]
    params: Mapping[str, Any]
    seed: int | None

    @property
    def prompt(self) -> str:
        """What was asked last: the last message's content, or the raw text."""
        return self.messages[-1].content if self.messages else self.text

    @property
    def transcript(self) -> str:
        """Everything the model reads, one message after the other."""
        return "\n".join(m.content for m in self.messages) if self.messages else self.text

    @classmethod
    def of(cls, call: Call) -> ScriptedCall:
        given = call.input if isinstance(call.input, Mapping) else {}
        return cls(
            model=call.model.name,
            fingerprint=call.model.fingerprint,
            kind=call.kind,
            messages=tuple(Message(role, content) for role, content in given.get("messages", ())),
            text=str(given.get("text", "")),
            given=given,
            params=call.params,
            seed=call.seed,
        )


Said = str | Generation | Exception | tuple[float, ...]
Script = str | Sequence[Said] | Callable[[ScriptedCall], Said]
"""What a model says: always the same text, a queue of replies, or a function of the call. An exception is raised. A function
may answer calls of the kind ``reward`` with numbers."""

Scores = Callable[[ScriptedCall], Sequence[Sequence[float]]]
"""The log-probabilities of the tokens of each continuation that a call of the kind ``score`` asks about."""

Taught = Mapping[str, Any]
"""What a scripted model was trained on: ``model``, ``service`` and ``rows`` of the job, as JSON data; for a job that keeps
several stages also the number of the ``stage``, from 1.
"""

Learn = Callable[[Taught, Script], Script]
"""Returns what a trained model says, given what it was taught and what the model said before."""


def reply(script: Script, call: ScriptedCall) -> Said:
    """Return what a script says to a call. Raises ModelCallError for a queue, which only its model can take from."""
    if isinstance(script, str):
        return script
    if callable(script):
        return script(call)
    raise ModelCallError(f"{call.model}: a queue of replies serves one model alone; give a function")


def memorise(taught: Taught, before: Script) -> Script:
    """Have a model trained on demonstrations answer their prompts as they do; all else stays as it was."""
    if taught["service"] != "sft":
        return before
    turns = [[(m["role"], m["content"]) for m in row["messages"]] for row in taught["rows"]]
    known = {tuple(t[:-1]): t[-1][1] for t in turns}

    def say(call: ScriptedCall) -> Said:
        asked = tuple((m.role, m.content) for m in call.messages)
        if asked in known:
            return str(known[asked])
        return reply(before, call)

    return say
