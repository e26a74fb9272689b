"""Majority voting: ask every model, return the answer with the most support."""

from moco_core import hookimpl
from moco_method_majority_vote.method import MajorityVote, MajorityVoteOptions, MajorityVoteSystem

__all__ = ["MajorityVote", "MajorityVoteOptions", "MajorityVoteSystem"]


@hookimpl
def moco_method() -> type[MajorityVote]:
    return MajorityVote
