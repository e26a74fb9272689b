"""Run results made by hand."""

from pathlib import Path

import pytest

from moco_core import RunResult, Unit


@pytest.fixture
def result():
    """Make a run result: a label, its scores, and whatever differs from a plain finished run."""
    count = iter(range(1000))

    def make(label, scores, role="method", seed=0, dev=None, tokens=(10, 5), method=None, subset=(), **fields):
        n = len(scores)
        subsets = subset or [""] * n
        cost = {
            "prompt": tokens[0] * n, "completion": tokens[1] * n, "calls": n, "cached": 0, "seconds": 1.0, "untimed": 0,
            "parameters": 1_000_000, "saved": {},
        }  # fmt: skip
        settings = {
            "folder": Path(f"runs/{label}-{seed}"), "id": f"{label}-{seed}", "role": role, "label": label,
            "position": next(count), "models": {"a": "1", "b": "2"}, "notes": {}, "status": "finished",
            "config": {"method": method or {"name": label}, "dataset": {"name": "d"}, "metric": {"name": "m"}, "seed": seed},
            "units": tuple(
                Unit(f"q{i}", float(s), name) for i, (s, name) in enumerate(zip(scores, subsets, strict=True)) if s is not None
            ),
            "dev_mean": dev, "questions": n, "failed": 0, "unparsed": 0.0, "truncated": 0.0,
            "costs": {"respond": {"a": cost}}, "seconds": 1.0, "chance": 0.25,
            "rule": {"level": 0.95, "gain": 0.0}, "test_fingerprint": "f",
        }  # fmt: skip
        return RunResult(**{**settings, **fields})

    return make


@pytest.fixture
def grid(result):
    """Two single models, a method that beats them, one that does not, and the controls of the first; 200 questions."""
    n = 200
    good = {"name": "good"}

    def control(kind, scores, **fields):
        method = {"name": "control", "kind": kind, "method": good}
        return result(f"good {kind}", scores, "control", method=method, **fields)

    return [
        result("a", [i % 2 for i in range(n)], "baseline", dev=0.5),
        result("b", [int(i % 4 < 2) for i in range(n)], "baseline", dev=0.4),
        result("good", [int(i % 8 != 7) for i in range(n)], method=good, tokens=(100, 50)),
        result("idle", [i % 2 for i in range(n)], tokens=(10, 5)),
        control("equal_budget", [int(i % 2 or i % 16 == 0) for i in range(n)], tokens=(100, 55)),
        control("self", [i % 2 for i in range(n)], tokens=(100, 50)),
    ]
