"""KEEP, DROP or UNDECIDED: a rule that a run's configuration fixes before any question is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

__all__ = ["Rule", "Verdict", "judge"]

Decision = Literal["KEEP", "DROP", "UNDECIDED"]
NEEDED = "equal budget"
"""The comparison without which no method is kept: the best single model with as many tokens."""


@attrs.frozen
class Rule:
    """Keep what gains more than ``gain`` over everything it is compared with, at a confidence ``level``."""

    level: float = 0.95
    gain: float = 0.0


@attrs.frozen(kw_only=True)
class Verdict:
    """A decision, and in words why."""

    decision: Decision
    why: str


def judge(against: Mapping[str, tuple[float, float]], gain: float = 0.0) -> Verdict:
    """Decide by the paired intervals of the difference to each system by its name (``best single``, ``equal budget``, ...).

    DROP if any interval ends at or below ``gain``: the method is shown not to gain that much. KEEP if all lie above it, the
    equal-budget control's among them: else it is not known whether more tries of one model would have done. The probability
    to keep a method that gains nothing is at most that of one interval to lie above the truth.
    """
    beaten = [name for name, (low, _) in against.items() if low > gain]
    lost = [name for name, (_, high) in against.items() if high <= gain]
    over = f" by more than {gain:g}" if gain else ""
    if lost:
        return Verdict(decision="DROP", why=f"does not beat {', '.join(lost)}{over}")
    if NEEDED not in against:
        return Verdict(decision="UNDECIDED", why="no control with an equal budget was run")
    if len(beaten) == len(against):
        return Verdict(decision="KEEP", why=f"beats {', '.join(beaten)}{over}")
    open_ = [name for name in against if name not in beaten]
    return Verdict(decision="UNDECIDED", why=f"may or may not beat {', '.join(open_)}{over}")
