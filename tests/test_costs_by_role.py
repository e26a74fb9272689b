"""Methods whose models play several roles tell which of them a call was for, and the parts never exceed the whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import moco_core as moco
from moco_core import Model, NoOptions, PoolSource
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool


class Four(PoolSource[NoOptions]):
    """Four scripted models."""

    def models(self) -> Sequence[Model]:
        return ScriptedPool({n: lambda call: f"{call.model} says: the answer is 1." for n in "abcd"}).models()


CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "multiagent_refine": ({}, {"summariser"}),
    "multiagent_feedback": ({}, {"reviewer", "summariser"}),
    "abstaining": ({"name": "multiagent_feedback", "final": "abstain"}, {"reviewer", "chair"}),
    "mixture_of_agents": ({}, {"proposer", "aggregator"}),
    "bbmas": ({}, {"agent 1", "agent 4"}),
    "cascade": ({"confidence": "p_true"}, {"confidence"}),
    "knowledge_card": ({"checker": "b"}, {"card", "checker"}),
    "nudging": ({"nudging": "b", "nudge_tokens": 2}, {"base", "nudging"}),
    "mentor_collab": ({}, {"generator", "mentor"}),
}


@pytest.mark.parametrize("name", CASES)
def test_calls_are_counted_under_the_role_they_were_for(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Four, "four")
    options, roles = CASES[name]
    (run,) = moco.run(pool="four", method={"name": name, **options}, dataset="skills", dev=4, test=2, baselines=False).runs
    assert not run.first_error
    found: set[str] = set()
    for models in run.costs.values():
        for row in models.values():
            parts = row.get("roles", {})
            found |= {*parts}
            for key in ("prompt", "completion", "calls", "cached"):
                assert sum(part[key] for part in parts.values()) <= row[key]
    assert found >= roles
