"""Models that read one another: who sees whom, what each is shown, what was said, how it ends."""

from moco_toolkit_discussion.graphs import (
    Adjacency,
    distances,
    dot,
    from_edges,
    from_matrix,
    layers,
    sources,
    topological_order,
)
from moco_toolkit_discussion.members import in_role, model_problems
from moco_toolkit_discussion.prompts import join, refine, summarise
from moco_toolkit_discussion.talk import Talk, require_room, summary_scores

__all__ = [
    "Adjacency",
    "Talk",
    "distances",
    "dot",
    "from_edges",
    "from_matrix",
    "in_role",
    "join",
    "layers",
    "model_problems",
    "refine",
    "require_room",
    "sources",
    "summarise",
    "summary_scores",
    "topological_order",
]
