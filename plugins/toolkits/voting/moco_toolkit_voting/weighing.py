"""What a method has whose members' votes can weigh more or less than its own options say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from moco_core import Context, Question, Reply

__all__ = ["Weighable"]


@runtime_checkable
class Weighable(Protocol):
    """A system in which every member's word counts as a number: a vote, or a confidence."""

    async def respond_weighed(self, question: Question, context: Context, weights: Mapping[str, float]) -> Reply:
        """Answer as ``respond`` does, with what each named member says counted times its weight, which is above 0.

        Those who are not named have the weight 1. What is asked of whom does not depend on the weights.
        """
        ...
