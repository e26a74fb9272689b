"""Voting among replies: tallies, tie rules, voter weights and similarities of answers."""

from moco_toolkit_voting.ballots import OPEN_KINDS, ballots, metric_utility
from moco_toolkit_voting.diagnostics import correlations
from moco_toolkit_voting.similarity import bleu, cosine, token_f1
from moco_toolkit_voting.tally import Tie, Utility, Vote, log_odds, smoothed_accuracy, support, vote
from moco_toolkit_voting.weighing import Weighable

__all__ = [
    "OPEN_KINDS",
    "Tie",
    "Utility",
    "Vote",
    "Weighable",
    "ballots",
    "bleu",
    "correlations",
    "cosine",
    "log_odds",
    "metric_utility",
    "smoothed_accuracy",
    "support",
    "token_f1",
    "vote",
]
