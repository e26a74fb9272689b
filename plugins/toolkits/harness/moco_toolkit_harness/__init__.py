"""Tasks of lm-evaluation-harness as questions, and its scores of replies."""

from moco_toolkit_harness.asking import choices_of, example_of, prompts
from moco_toolkit_harness.scoring import aggregated, harness_scores, read_reply
from moco_toolkit_harness.tasks import SAMPLE, Place, docs_of, load_tasks

__all__ = [
    "SAMPLE",
    "Place",
    "aggregated",
    "choices_of",
    "docs_of",
    "example_of",
    "harness_scores",
    "load_tasks",
    "prompts",
    "read_reply",
]
