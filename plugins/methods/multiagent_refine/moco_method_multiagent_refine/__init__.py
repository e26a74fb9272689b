"""Multi-agent refinement: models read each other's answers and rewrite their own, round by round."""

from moco_core import hookimpl
from moco_method_multiagent_refine.method import MultiagentRefine, MultiagentRefineOptions, MultiagentRefineSystem

__all__ = ["MultiagentRefine", "MultiagentRefineOptions", "MultiagentRefineSystem"]


@hookimpl
def moco_method() -> type[MultiagentRefine]:
    return MultiagentRefine
