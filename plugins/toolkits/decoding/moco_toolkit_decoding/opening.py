"""Opening sessions, of the kind that a model allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moco_core.context import Context
from moco_core.models import Model
from moco_core.types import Prompt, as_messages
from moco_toolkit_decoding.ops import InspectOp, OpenOp
from moco_toolkit_decoding.session import DecodingSession
from moco_toolkit_decoding.step_session import StepSession, call
from moco_toolkit_decoding.text_session import TextSession

__all__ = ["inspect", "open_session", "open_step_session"]


async def open_session(
    context: Context, model: Model, prompt: Prompt, *, raw: bool = False, reserve: int = 0
) -> DecodingSession:
    """Open a session on a rendered prompt; ``raw`` takes text as it is, without the chat template.

    ``reserve`` is how many tokens the reply may take. A model that cannot ``step`` is asked for pieces of text. Raises
    PromptTooLong.
    """
    if model.can("step"):
        return await open_step_session(context, model, prompt, raw=raw, reserve=reserve)
    return TextSession(context, model, str(prompt) if raw else as_messages(prompt))


async def open_step_session(
    context: Context, model: Model, prompt: Prompt, *, raw: bool = False, reserve: int = 0
) -> StepSession:
    """Open a session of a model that can ``step``; raise CapabilityError if it cannot. See :func:`open_session`."""
    given: dict[str, Any]
    given = {"text": prompt} if raw else {"messages": [[m.role, m.content] for m in as_messages(prompt)]}
    return StepSession(context, model, await call(context, model, OpenOp(given=given, reserve=reserve)))


async def inspect(context: Context, model: Model, function: Callable[[Any], Any]) -> Any:
    """Return ``function(loaded)`` for the loaded model; it must change nothing."""
    return await call(context, model, InspectOp(function=function))
