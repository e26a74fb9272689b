"""Who is kept: by hand, and how often over simulated runs."""

import random

import pytest

from moco_core import Unit, compare
from moco_toolkit_comparison import judge


@pytest.mark.parametrize(
    ("against", "gain", "decision"),
    [
        ({"best single": (0.01, 0.1), "equal budget": (0.02, 0.1)}, 0.0, "KEEP"),
        ({"best single": (0.01, 0.1), "equal budget": (0.02, 0.1)}, 0.015, "UNDECIDED"),
        ({"best single": (0.01, 0.1)}, 0.0, "UNDECIDED"),
        ({"best single": (0.01, 0.1), "self": (0.01, 0.1)}, 0.0, "UNDECIDED"),
        ({"best single": (0.01, 0.1), "equal budget": (-0.02, 0.1)}, 0.0, "UNDECIDED"),
        ({"best single": (0.01, 0.1), "equal budget": (-0.2, -0.1)}, 0.0, "DROP"),
        ({"best single": (-0.01, 0.0), "equal budget": (0.2, 0.3)}, 0.0, "DROP"),
        ({"best single": (0.01, 0.02), "equal budget": (0.2, 0.3)}, 0.02, "DROP"),
    ],
)
def test_verdicts_by_hand(against, gain, decision):
    assert judge(against, gain).decision == decision


def test_a_verdict_says_why():
    assert judge({"best single": (0.1, 0.2)}).why == "no control with an equal budget was run"
    assert judge({"best single": (-0.1, 0.2), "equal budget": (0.1, 0.2)}).why == "may or may not beat best single"
    assert judge({"best single": (-0.1, 0.01)}, 0.02).why == "does not beat best single by more than 0.02"


def kept(gain, runs=200, n=400):
    """How many simulated runs keep a method that is right ``gain`` more often than the best single model and the control.

    All are right with 60 %; a question's ease is shared, so that the three agree as real systems do.
    """
    rng, count = random.Random(8), 0
    for run in range(runs):
        units = {"method": [], "best single": [], "equal budget": []}
        for i in range(n):
            ease = rng.random()
            for name, found in units.items():
                right = 0.6 + (gain if name == "method" else 0.0)
                # the mean over ease of min(1, max(0, ...)) is `right`
                found.append(Unit(str(i), float(rng.random() < right if rng.random() < 0.4 else ease < right)))
        against = {name: compare(units["method"], units[name], run) for name in ("best single", "equal budget")}
        count += judge({name: (c.low, c.high) for name, c in against.items()}).decision == "KEEP"
    return count


def test_a_method_that_gains_nothing_is_kept_in_at_most_one_run_of_twenty():
    assert kept(0.0) <= 0.05 * 200


def test_a_method_that_gains_ten_points_is_kept_in_at_least_four_runs_of_five():
    assert kept(0.1) >= 0.8 * 200
