"""The engine: a call becomes a question that the system answers, on the runtime that the call came from."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from moco_core import Call, CapabilityError, Engine, Generation, Message, ModelCallError, Question, Reply, Sampling
from moco_core.types import digest
from moco_pool_systems.member import Member

__all__ = ["SystemsEngine"]


class SystemsEngine(Engine):
    """Asks systems. Their models' calls pass the cache and the scheduler of whoever asks them.

    ``max_in_flight`` bounds nothing of its own: a waiting system holds no device, and its models are bounded where they live.
    """

    batches_itself: ClassVar[bool] = True
    gives_up: ClassVar[bool] = True  # what its models have said is kept: asking again asks only for the rest
    max_in_flight = 1 << 16

    def __init__(self) -> None:
        self._runtime: Any = None
        self._systems: dict[Member, asyncio.Task[Any]] = {}

    async def start(self, runtime: Any) -> None:
        self._runtime = runtime

    async def close(self) -> None:
        tasks, self._systems = list(self._systems.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, call: Call) -> Generation:
        if call.kind != "generate":
            raise CapabilityError(f"{call.model.name}: a system writes replies; it cannot {call.kind}")
        member: Member = call.model.info["member"]
        question, parts = _question(call), member.parts
        system = await self._system(member)
        state = self._runtime.state(
            parts.metric,
            seed=parts.seed if call.seed is None else call.seed,
            sampling=Sampling.from_params(call.params),
            on_reply=call.tell,
        )
        reply = await system.respond(question, state.context("respond", question, allowed=parts.allowed))
        return _generation(reply, state)

    async def _system(self, member: Member) -> Any:
        """Restore or fit a system once. It is not done in ``start``: engines start together, and fitting asks others."""
        if member not in self._systems:
            parts = member.parts
            state = self._runtime.state(parts.metric, seed=parts.seed, sampling=parts.sampling)
            context = state.context("fit", allowed=parts.allowed)
            self._systems[member] = asyncio.create_task(parts.make(context))
        return await asyncio.shield(self._systems[member])


def _question(call: Call) -> Question:
    """Return what a call asks. Text that no question stands behind is named by its content."""
    given = call.input
    if "question" in given:
        fields = dict(given["question"])
        return Question(**{**fields, "history": tuple(Message(**turn) for turn in fields["history"])})
    if "messages" not in given:
        raise ModelCallError(f"{call.model.name}: a system answers questions; it does not continue raw text")
    turns = [Message(role, content) for role, content in given["messages"]]
    system = turns.pop(0).content if turns and turns[0].role == "system" else ""
    if not turns or turns[-1].role != "user":
        raise ModelCallError(f"{call.model.name}: a system answers questions; it does not continue a begun reply")
    last = turns.pop()
    return Question(id=f"asked-{digest(given)[:16]}", prompt=last.content, system=system, history=tuple(turns))


def _generation(reply: Reply, state: Any) -> Generation:
    """Return a system's reply with all that its calls cost; what it says about itself stands under ``reply``."""
    tallies = [(model, tally) for _, model, tally in state.ledger]
    meta: dict[str, Any] = {
        "calls": sum(t.calls for _, t in tallies),
        "seconds": None if any(t.untimed for _, t in tallies) else round(sum(t.seconds for _, t in tallies), 6),
        "members": {model: [t.calls, t.usage.prompt_tokens, t.usage.completion_tokens] for model, t in tallies},
        "reply": dict(reply.meta),
    }
    if any(t.priced for _, t in tallies):
        meta["cost"] = None if any(t.unpriced for _, t in tallies) else sum(t.money for _, t in tallies)
    if reply.abstained:
        meta["abstained"] = True
    if state.warnings:
        meta["warning"] = "; ".join(state.warnings)
    return Generation(
        text=reply.text,
        finish_reason=reply.finish_reason,
        usage=state.ledger.usage,
        spans=reply.spans,
        meta=meta,
    )
