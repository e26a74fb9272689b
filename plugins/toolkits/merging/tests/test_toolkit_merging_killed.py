"""A search that is killed without warning goes on where it was: no candidate is evaluated twice."""

import collections
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("merging_child.py")
SEARCHES = {
    "greedy_soup": {"recipe": "learned", "population": 3, "max_iterations": 2},
    "dare_ties": {"base": "z", "weights": "search", "population": 3, "max_iterations": 2},
    "model_swarms": {"max_iterations": 3},
    "lorahub": {"max_inference_step": 12, "dev_samples": 3},
    "expo": {},
    "heterogeneous_swarms": {"population": 3, "num_assignments": 3, "max_iterations": 2},
}
QUICK = ("expo", "model_swarms", "lorahub")
"""One of each kind of search: a list of candidates, a particle swarm, an optimiser of another library."""


def child(folder, name, cache, kill_at=0):
    log = folder / f"{cache}.log"
    command = [
        sys.executable,
        str(CHILD),
        name,
        json.dumps(SEARCHES[name]),
        str(folder / cache),
        str(log),
        str(kill_at),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return done, lines


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SEARCHES])
def test_a_killed_search_continues_where_it_was(tmp_path, name):
    pytest.importorskip(f"moco_method_{name}")
    whole, calls = child(tmp_path, name, "calm")
    assert whole.returncode == 0, whole.stderr
    assert max(collections.Counter(calls).values()) == 1  # no candidate is evaluated twice
    at = 2 * len(calls) // 3
    killed, before = child(tmp_path, name, "torn", at)
    assert killed.returncode == -signal.SIGKILL and len(before) == at - 1
    resumed, after = child(tmp_path, name, "torn")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout == whole.stdout
    assert sorted(before + after) == sorted(calls)  # every call was served once, before the end or after it
