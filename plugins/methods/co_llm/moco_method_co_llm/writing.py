"""Writing one answer: the base model goes on until its deferral head asks for a token of the assistant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from moco_core import Context, Model, Question
from moco_method_co_llm.options import Options
from moco_method_co_llm.thresholds import schedule
from moco_toolkit_decoding import HeadGate, JointAnswer, open_step_session
from moco_toolkit_decoding.sampling import Settings, choose

__all__ = ["write"]

BASE, ASSISTANT = 0, 1


async def write(
    models: Sequence[Model],
    question: Question,
    options: Options,
    head: Sequence[float],
    eta: float,
    context: Context,
) -> dict[str, Any]:
    """Write the answer of ``models`` (base, assistant) to one question."""
    sampling = context.sampling
    opening = [open_step_session(context, m, question, reserve=sampling.max_new_tokens) for m in models]
    sessions = await context.gather(opening)
    answer = JointAnswer(sessions, shared=True, stops=sampling.stop, listener=context.tell)
    size = min(s.vocabulary.size for s in sessions)
    ends = frozenset(sessions[BASE].vocabulary.ends | sessions[ASSISTANT].vocabulary.ends)
    gate = HeadGate(torch.tensor(head, dtype=torch.float32), schedule(eta, options))
    generator = context.rng("co_llm")
    deferrals = 0
    values: list[float] = []
    try:
        while answer.finish is None:
            room = sampling.max_new_tokens - len(answer.ids)
            if room <= 0:
                answer.truncate(sampling.max_new_tokens)
                break
            answer.tell()
            if options.strategy == "compose":
                token, sigma, who = await _composed(answer, gate, size, sampling, generator, context)
                values.append(sigma)
                if token in ends:
                    answer.finish = "eos"
                else:
                    answer.commit(who, [token])
                continue
            base = answer.turn(BASE)
            draft = await base.draft(
                min(options.draft_len, room), sampling=sampling, generator=generator, gate=gate, size=size, ends=ends
            )
            values += draft.gates
            answer.commit(BASE, draft.ids)
            if answer.finish is not None:
                break
            if draft.reason == "end":
                answer.finish = "eos"
            elif draft.reason == "gate":
                deferrals += 1
                assistant = answer.turn(ASSISTANT)
                one = await assistant.draft(1, sampling=sampling, generator=generator, size=size, ends=ends)
                if one.reason == "end":
                    answer.finish = "eos"
                else:
                    answer.commit(ASSISTANT, one.ids)
        steps = max(1, len(values))
        return answer.result(deferrals=deferrals, mean_sigma=round(sum(values) / steps, 6), threshold=eta)
    finally:
        answer.close()


async def _composed(
    answer: JointAnswer, gate: HeadGate, size: int, sampling: Any, generator: Any, context: Context
) -> tuple[int, float, int]:
    """Choose from (1 - sigma) P_base + sigma P_assistant; the token is owed to whoever gives it more of its mass."""
    base, assistant = answer.turn(BASE), answer.turn(ASSISTANT)
    mine, theirs = await context.gather([base.look(), assistant.peek(full=True)])
    sigma = float((gate.head @ mine.hidden).sigmoid())
    sides = []
    for logp, weight in ((mine.full, 1 - sigma), (theirs.full, sigma)):
        scale = math.log(weight) if weight > 0 else -math.inf
        sides.append(logp[:size].log_softmax(-1) + scale)
    mixture = torch.logaddexp(sides[0], sides[1])
    token = int(choose(mixture[None], Settings.of([sampling], mixture.device), [generator])[0])
    return token, sigma, ASSISTANT if sides[1][token] > sides[0][token] else BASE
