"""Several causal language models advancing one text together, token by token.

Two ways to work on several models at once, both on top of an engine whose models can ``step``:

- :class:`JointRecipe` and :class:`UnionRecipe` make a *derived model* out of several: their next-token distributions are
  combined at every step, over a shared vocabulary or, for different tokenizers, over the union of their best strings. The
  derived model answers like any other: ``await context.generate(fused, question)``.
- A :class:`DecodingSession` is one model and one growing text: look at the next token, draft, score, roll back, fork, continue
  with somebody else's words. Sessions of all questions advance together, one forward per model and step.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moco_toolkit_decoding.combine import Combiner, Contrast, Mix
    from moco_toolkit_decoding.compatibility import Report, report, require_same
    from moco_toolkit_decoding.fits import Spent, auroc, fit_once, gold_text
    from moco_toolkit_decoding.handover import JointAnswer, answer_once
    from moco_toolkit_decoding.joint import JointRecipe
    from moco_toolkit_decoding.opening import inspect, open_session, open_step_session
    from moco_toolkit_decoding.ops import Draft, HeadGate, TopGate
    from moco_toolkit_decoding.roles import exchange_ids, role_problems, two_roles
    from moco_toolkit_decoding.session import DecodingSession
    from moco_toolkit_decoding.step_session import StepSession
    from moco_toolkit_decoding.text import Vocabulary
    from moco_toolkit_decoding.text_session import TextSession
    from moco_toolkit_decoding.tuning import graded_replies, mean_score
    from moco_toolkit_decoding.union import UnionRecipe

_WHERE = {
    "Combiner": "combine",
    "Contrast": "combine",
    "DecodingSession": "session",
    "Draft": "ops",
    "HeadGate": "ops",
    "JointAnswer": "handover",
    "JointRecipe": "joint",
    "Mix": "combine",
    "Report": "compatibility",
    "Spent": "fits",
    "StepSession": "step_session",
    "TextSession": "text_session",
    "TopGate": "ops",
    "UnionRecipe": "union",
    "Vocabulary": "text",
    "answer_once": "handover",
    "auroc": "fits",
    "exchange_ids": "roles",
    "fit_once": "fits",
    "gold_text": "fits",
    "graded_replies": "tuning",
    "inspect": "opening",
    "mean_score": "tuning",
    "open_session": "opening",
    "open_step_session": "opening",
    "report": "compatibility",
    "require_same": "compatibility",
    "role_problems": "roles",
    "two_roles": "roles",
}

__all__ = [
    "Combiner",
    "Contrast",
    "DecodingSession",
    "Draft",
    "HeadGate",
    "JointAnswer",
    "JointRecipe",
    "Mix",
    "Report",
    "Spent",
    "StepSession",
    "TextSession",
    "TopGate",
    "UnionRecipe",
    "Vocabulary",
    "answer_once",
    "auroc",
    "exchange_ids",
    "fit_once",
    "gold_text",
    "graded_replies",
    "inspect",
    "mean_score",
    "open_session",
    "open_step_session",
    "report",
    "require_same",
    "role_problems",
    "two_roles",
]


def __getattr__(name: str) -> Any:
    # torch is imported when something of the toolkit is first used, not when a plugin that needs it is listed
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
