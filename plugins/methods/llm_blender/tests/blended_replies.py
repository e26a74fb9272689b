"""A council whose members write, judge and fuse by script, and how one question is blended."""

from __future__ import annotations

import re

from moco_core import Question, Sampling
from moco_core.options import build
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)
QUESTION = Question(id="q", prompt="Which is it?", answer_format="End with: the answer is X.")


def quoted(prompt: str) -> list[str]:
    return re.findall(r"<quote>\n(.*?)\n</quote>", prompt, re.DOTALL)


def judging(call) -> bool:
    return call.prompt.startswith("Which reply answers")


def fusing(call) -> bool:
    return "Candidate answers, best first" in call.prompt


def member(says, *, judges=lambda a, b: "A", fuses="the answer is fused"):
    def say(call):
        if judging(call):
            return judges(*quoted(call.prompt))
        if fusing(call):
            return fuses(call) if callable(fuses) else fuses
        return says(call) if callable(says) else says

    return say


def longest(a: str, b: str) -> str:
    """A judge who likes long replies, in either place."""
    return "A" if len(a) > len(b) else "B" if len(b) > len(a) else "neither"


TEXTS = {
    "x": "the answer is 1",
    "y": "surely, the answer is 22",
    "z": "so, the answer is 3",
    "w": "surely now, the answer is 444",
}


def council(judges=longest, fuses="the answer is fused", names="xyz", **keywords) -> ScriptedPool:
    return ScriptedPool({n: member(TEXTS[n], judges=judges, fuses=fuses) for n in names}, **keywords)


def blend(pool, dev=(), questions=(QUESTION,), **options):
    settings = {"verdict": "text", **options}
    return run_method(LlmBlender(build(Options, settings)), pool, dev=dev, questions=questions, sampling=GREEDY)


def says(word: str):
    """A model whose replies to most questions are marked by a word; the marked-good ones are right."""
    return lambda call: f"{word}: the answer is {'right' if word == 'good' else call.model}"
