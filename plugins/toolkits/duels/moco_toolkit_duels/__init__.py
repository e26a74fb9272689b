"""Duels between models: who meets whom, who wins by the judgement of the others, ratings, and training on it."""

from moco_toolkit_duels.aligning import (
    Candidate,
    Selection,
    aligned,
    costs,
    dpo,
    preferences,
    select,
    split,
    starting_ratings,
)
from moco_toolkit_duels.combat import Duel, Fought, counted, fight
from moco_toolkit_duels.judging import expected_score, judge, judge_problems, judge_sheet, written_score
from moco_toolkit_duels.matching import closest, matches, opponent
from moco_toolkit_duels.options import DuelOptions
from moco_toolkit_duels.standings import Scale, Standings

__all__ = [
    "Candidate",
    "Duel",
    "DuelOptions",
    "Fought",
    "Scale",
    "Selection",
    "Standings",
    "aligned",
    "closest",
    "costs",
    "counted",
    "dpo",
    "expected_score",
    "fight",
    "judge",
    "judge_problems",
    "judge_sheet",
    "matches",
    "opponent",
    "preferences",
    "select",
    "split",
    "starting_ratings",
    "written_score",
]
