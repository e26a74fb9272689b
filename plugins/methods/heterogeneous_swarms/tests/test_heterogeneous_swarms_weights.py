"""The search for weights: models that move, recipes of merging, searches that were killed, saved systems."""

from __future__ import annotations

import json

import pytest
from swarm_searches import fit, near

from moco_core import ConfigError
from moco_core.options import NoOptions
from moco_core.runtime.cache import Cache
from moco_method_heterogeneous_swarms.method import HeterogeneousSwarms
from moco_method_heterogeneous_swarms.options import Options
from moco_toolkit_authoring import ScriptedPool, fallible, method_checks
from moco_toolkit_merging.testing import MergeablePool, Utility

test_conformance_with_weights = method_checks(
    "heterogeneous_swarms",
    settings=[{"population": 2, "num_assignments": 3, "max_iterations": 2, "weight_step": "on"}],
    pool=lambda: MergeablePool("abcd", near),
    metric=Utility(NoOptions()),
)


def weighted(pool=None, **keywords):
    given = {"population": 3, "num_assignments": 4, "max_iterations": 4, **keywords}
    return fit(pool or MergeablePool("abcd", near), metric=Utility(NoOptions()), **given)


def test_models_move_through_the_recipes_of_merging():
    outcome = weighted()
    trace = outcome.state["facts"]["trace"]
    assert len(outcome.state["merges"]) == 4 and outcome.state["assignment"]
    assert outcome.state["facts"]["dev_score"] > max(near(m) for m in map(alone, "abcd"))
    # the sink alone decides what these models say: a graph scores as its sink, an assignment as the model it puts there
    first = trace[0]
    assert all(
        any(score == pytest.approx(near(alone(n))) for n in "abcd") for score in first["graphs"] + first["assignments"]
    )
    assert float(outcome.texts["q"]) == outcome.state["facts"]["dev_score"]
    for line in trace:
        assert len(line["assignments"]) == 4 and len(line["jfk"]) == 4


def alone(name):
    from moco_toolkit_merging.testing import Merged

    return Merged(coefficients={name: 1.0})


def test_positions_sum_to_one_and_the_first_models_are_the_pools_own():
    pool = MergeablePool("abcd", near)
    outcome = weighted(pool)
    for merge in outcome.state["merges"]:
        assert sum(merge["operation"]["coefficients"]) == pytest.approx(1)
    assert {c.model for c in pool.history} >= set("abcd")


def test_adapters_of_one_base_move_as_adapters():
    pool = MergeablePool("abcd", near, adapter=True, base="root")
    assert {m["composition"] for m in weighted(pool).state["merges"]} == {"factors"}


def test_weights_stay_where_they_cannot_be_merged_and_the_log_says_why():
    pool = MergeablePool("ab", near, fields={"b": {"architecture": "other"}})
    outcome = weighted(pool)
    assert outcome.state["merges"] == [] and "do not share an architecture" in outcome.noted("weight_step")
    off = weighted(weight_step="off")
    assert off.state["merges"] == [] and off.noted("weight_step") == "off: weight_step is off"
    problems = HeterogeneousSwarms(Options(weight_step="on")).needs().problems(pool.pool)
    assert "do not share an architecture" in problems[0]


def test_a_killed_search_continues_from_the_cache():
    cache, calls = Cache(None), []

    def failing(m):
        calls.append(m)
        if len(calls) == 4 + 6:  # the four models are scored when the pool is made
            raise RuntimeError("killed")
        return near(m)

    with pytest.raises(Exception, match="killed"):
        weighted(MergeablePool("abcd", failing), cache=cache)
    pool, whole = MergeablePool("abcd", near), MergeablePool("abcd", near)
    resumed, uninterrupted = weighted(pool, cache=cache), weighted(whole)
    assert resumed.state == uninterrupted.state and resumed.texts == uninterrupted.texts
    assert len(pool.history) < len(whole.history)


def test_a_saved_system_is_read_and_saved_alike_and_refuses_changed_models():
    outcome = weighted()
    state = json.loads(json.dumps(outcome.state))
    method = HeterogeneousSwarms(Options())
    assert json.loads(json.dumps(method.restore(MergeablePool("abcd", near).pool, state, None).state())) == state
    changed = MergeablePool("abcd", near, fields={"b": {"fingerprint": "new"}}).pool
    with pytest.raises(ConfigError, match="model 'b' has changed since the system was fitted"):
        method.restore(changed, state, None)
    plain = fit(ScriptedPool(dict.fromkeys("abc", fallible)), population=2, max_iterations=1).state
    with pytest.raises(ConfigError, match="fitted on a pool of 3 models or more, this one has 2"):
        method.restore(ScriptedPool(dict.fromkeys("ab", fallible)).pool, plain, None)
