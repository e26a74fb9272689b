"""Co-LLM: for every token a learnt deferral head decides whether the base model or an assistant writes it."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_co_llm.method import CoLLM

    return CoLLM
