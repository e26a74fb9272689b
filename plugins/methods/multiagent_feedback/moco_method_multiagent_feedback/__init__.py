"""Multi-agent feedback: models review each other's answers, and revise them or decide whether to abstain."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_multiagent_feedback.method import MultiagentFeedback

    return MultiagentFeedback
