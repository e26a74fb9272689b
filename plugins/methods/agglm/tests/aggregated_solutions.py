"""Models of which one is right, an aggregator that training teaches to believe it, and how one is fitted."""

from __future__ import annotations

import re

from moco_core import Example, Question, Sampling
from moco_core.options import build
from moco_method_agglm.method import Agglm
from moco_method_agglm.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method

GREEDY = Sampling(temperature=0.0, max_new_tokens=64)


def shown(prompt: str) -> list[str]:
    """The solutions that an aggregator reads, in order."""
    return re.findall(r"Solution \d+:\n<quote>\n(.*?)\n</quote>", prompt, re.DOTALL)


def gold(call) -> str:
    return re.findall(r"Which is (\w+)", call.transcript)[0]


def solver(right: bool):
    """Who is right says so; three of four are wrong, on the same answer."""

    def say(call):
        if shown(call.prompt):  # untrained, it follows most of what it reads
            texts = [re.findall(r"answer is (\w+)", t)[-1] for t in shown(call.prompt)]
            return f"the answer is {max(sorted(set(texts)), key=texts.count)}"
        return f"I checked: the answer is {gold(call)}" if right else "the answer is wrong"

    return say


def picks_marked(taught, before):
    """What GRPO makes of an aggregator whose reward told it: it follows the mark. Stage 1 has not got there yet."""
    if taught["service"] != "grpo" or taught.get("stage") == 1:
        return before

    def say(call):
        marked = [t for t in shown(call.prompt) if t.startswith("I checked")]
        return marked[0] if marked else "none of them"

    return say


def questions(count: int, prefix: str = "d") -> list[Example]:
    return [
        Example(question=Question(id=f"{prefix}{i}", prompt=f"Which is {w}?"), references=(w,))
        for i, w in ((i, f"{prefix}w{i}") for i in range(count))
    ]


DEV, TEST = questions(10), questions(5, "t")
SMALL = {"batch": 8, "sets_per_question": 2, "m": 4, "checkpoints": 3}


def wrong_majority(**keywords) -> ScriptedPool:
    return ScriptedPool({name: solver(name == "d") for name in "abcd"}, **{"learn": picks_marked, **keywords})


def fitted(pool=None, dev=DEV, ask=TEST, run=run_method, **options):
    method = Agglm(build(Options, {**SMALL, **options}))
    return method, run(method, pool or wrong_majority(), dev=dev, questions=[e.question for e in ask], sampling=GREEDY)
