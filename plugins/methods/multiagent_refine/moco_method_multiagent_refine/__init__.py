"""Multi-agent refinement: models read each other's answers and rewrite their own, round by round."""

from typing import Any

from moco_core import Method, hookimpl


@hookimpl
def moco_method() -> type[Method[Any]]:
    from moco_method_multiagent_refine.method import MultiagentRefine

    return MultiagentRefine
