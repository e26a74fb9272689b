"""Multi-agent fine-tuning: agents debate, and each is trained on what it said itself that the majority upholds."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_multiagent_finetuning.method import MultiagentFinetuning

    return MultiagentFinetuning
