"""Scripted agents that refine their answers, and what they read of each other's."""

from __future__ import annotations

import re

from moco_core import Question
from moco_method_multiagent_refine.method import MultiagentRefine
from moco_method_multiagent_refine.options import Options
from moco_toolkit_authoring import ScriptedCall, run_method

QUESTION = Question(id="q", prompt="Which letter?", answer_kind="text", answer_format="End with: the answer is X.")
OTHERS = re.compile(r"Answer \d+:\n<quote>\n(.*?)\n</quote>", re.DOTALL)
OWN = re.compile(r"Your own answer:\n<quote>\n(.*?)\n</quote>", re.DOTALL)


def others(call: ScriptedCall) -> list[str]:
    return OTHERS.findall(call.prompt)


def own(call: ScriptedCall) -> list[str]:
    return OWN.findall(call.prompt)


def discuss(pool, question=QUESTION, dev=(), **options):
    return run_method(MultiagentRefine(Options(**options)), pool, questions=[question], dev=dev).reply


def telling(call: ScriptedCall) -> str:
    """Say something that names the model, the round and nothing else."""
    number = 1 + int(own(call)[0].split("#")[1].split(" ")[0]) if own(call) else 0
    return f"{call.model.upper()}#{number} the answer is {call.model[0]}"
