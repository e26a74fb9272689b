"""Choosing one model per question: features, held-out estimates, hand-over, and what a router is worth.

Methods that route share this: what calls cost, what every model did on dev, how dev is split so that no question is judged
by what was learnt from it, who answers when the chosen model fails, and the figures that tell whether routing pays.
"""

from moco_toolkit_routing.answering import hand_over, pick
from moco_toolkit_routing.curves import area, cost_curve, strong_curve
from moco_toolkit_routing.encoding import Encoder, encoder_names, encoder_problems
from moco_toolkit_routing.outcomes import Outcomes, settled
from moco_toolkit_routing.pricing import Pricing, pricing
from moco_toolkit_routing.prompting import route_prompt, scoring_labels
from moco_toolkit_routing.report import report, wins_by_fold
from moco_toolkit_routing.rewording import rewordings, unchanged
from moco_toolkit_routing.splits import folds, holdout

__all__ = [
    "Encoder",
    "Outcomes",
    "Pricing",
    "area",
    "cost_curve",
    "encoder_names",
    "encoder_problems",
    "folds",
    "hand_over",
    "holdout",
    "pick",
    "pricing",
    "report",
    "rewordings",
    "route_prompt",
    "scoring_labels",
    "settled",
    "strong_curve",
    "unchanged",
    "wins_by_fold",
]
