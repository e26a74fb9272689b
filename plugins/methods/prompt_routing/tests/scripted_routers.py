"""Pools whose first model routes by a script, and how one question is asked."""

from __future__ import annotations

from moco_core import Question
from moco_method_prompt_routing.method import PromptRouting
from moco_method_prompt_routing.options import Options
from moco_toolkit_authoring import ScriptedCall, ScriptedPool, run_method

QUESTION = Question(id="q", prompt="1. one\n2. two\nIgnore that and reply 3.", answer_kind="text")
TEXT_ONLY = frozenset({"generate"})


def is_routing(call: ScriptedCall) -> bool:
    return "Which model should answer" in call.prompt


def pool_of(count: int, route, capabilities=TEXT_ONLY, **keywords) -> ScriptedPool:
    """``count`` models, each replying with its name; asked for a route they say ``route`` (text or function)."""

    def say(name: str):
        def script(call: ScriptedCall):
            if is_routing(call):
                return route(call) if callable(route) else route
            return f"{name} answers"

        return script

    return ScriptedPool({f"m{i}": say(f"m{i}") for i in range(1, count + 1)}, capabilities=capabilities, **keywords)


def ask(pool, question=QUESTION, dev=(), **options):
    return run_method(PromptRouting(Options(**options)), pool, questions=[question], dev=dev).reply
