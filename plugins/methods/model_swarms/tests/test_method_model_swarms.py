"""Model Swarms on scripted scores: initial experts first, the trace, stops, ensembles and resuming."""

import json

import pytest

from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_model_swarms.method import ModelSwarms
from moco_method_model_swarms.options import Options
from moco_toolkit_authoring import examples, method_checks
from moco_toolkit_merging.testing import MergeablePool, Utility, run_merge

DEV = examples(2, prefix="d")
WANTED = {"a": 0.6, "b": 0.3, "c": 0.3, "d": -0.2}

test_conformance = method_checks(
    "model_swarms",
    settings=[
        {"max_iterations": 2},
        {"max_iterations": 1, "population": 5, "ensemble_top_k": 3, "starting_velocity": "best"},
    ],
    pool=lambda: MergeablePool("abcd", lambda m: -abs(m.share("a") - 0.6) - abs(m.share("b") - 0.4)),
    metric=Utility(NoOptions()),
)


def near(m):
    return -sum((m.share(n) - w) ** 2 for n, w in WANTED.items())


def run(pool, cache=None, in_flight=256, after_fit=None, run_seed=0, **options):
    method = ModelSwarms(build(Options, options))
    return run_merge(method, pool, DEV, cache=cache, seed=run_seed, in_flight=in_flight, after_fit=after_fit)


def facts(outcome):
    return outcome.state["facts"]


def test_it_improves_on_the_best_expert_and_returns_what_it_scored():
    outcome = run(MergeablePool("abcd", near))
    trace = facts(outcome)["trace"]
    singles = [t["score"] for t in trace[:4]]
    assert [t["coefficients"] for t in trace[:4]] == [[float(i == j) for j in range(4)] for i in range(4)]
    assert facts(outcome)["dev_score"] > max(singles)
    assert outcome.texts["t0"] == repr(facts(outcome)["dev_score"])
    bests = [t["best"] for t in trace]
    assert bests == sorted(bests)


def test_the_log_holds_the_step_length_that_led_to_each_point():
    trace = facts(run(MergeablePool("abcd", near), max_iterations=3, patience=9))["trace"]
    assert [t["step_length"] for t in trace[::4]] == pytest.approx([0, 0.5, 0.5 * 0.95, 0.5 * 0.95**2])


def test_coefficients_always_sum_to_one():
    for t in facts(run(MergeablePool("abcd", near)))["trace"]:
        assert sum(t["coefficients"]) == pytest.approx(1, abs=1e-9)


def test_experts_are_asked_as_themselves_so_their_dev_scores_are_shared():
    pool = MergeablePool("abcd", near)
    run(pool)
    assert {c.model for c in pool.history} >= set("abcd") and not any(
        name.startswith("particle 0") for name in pool.made
    )


@pytest.mark.parametrize("patience", [1, 3])
def test_constant_scores_stop_after_patience_iterations(patience):
    outcome = run(MergeablePool("abcd", lambda m: 0.5), patience=patience)
    assert facts(outcome)["iterations"] == patience and outcome.state["merge"]["operation"]["coefficients"] == [
        1,
        0,
        0,
        0,
    ]


def test_a_larger_population_adds_combinations_of_two():
    trace = facts(run(MergeablePool("abcd", near), population=9, max_iterations=1))["trace"]
    children = [t["coefficients"] for t in trace[4:9]]
    assert all(sum(c != 0 for c in child) == 2 for child in children) and len(trace) == 18


def test_the_trace_does_not_depend_on_concurrency_and_depends_on_the_seed():
    one, many, other = (
        facts(run(MergeablePool("abcd", near), in_flight=n, seed=s))["trace"] for n, s in ((1, 0), (64, 0), (64, 1))
    )
    assert one == many != other


def test_the_runs_seed_reaches_the_search_and_the_methods_own_is_added():
    def trace(**settings):
        return facts(run(MergeablePool("abcd", near), population=6, **settings))["trace"]

    runs = [trace(run_seed=s) for s in (0, 1, 2)]
    assert runs[0] != runs[1] != runs[2] != runs[0] and runs[1] == trace(run_seed=1)
    children = [t[5]["coefficients"] for t in runs]  # the crossed experts are drawn, not the moves alone
    assert children[0] != children[1] != children[2]
    assert trace(run_seed=1, seed=1) not in (*runs, trace(seed=1))


@pytest.mark.parametrize("run_seed", [0, 3])
def test_a_killed_search_continues_from_the_cache(run_seed):
    cache, calls = Cache(None), []

    def failing(m):
        calls.append(m)
        if len(calls) == 4 + 9:  # the four experts are scored when the pool is made
            raise RuntimeError("killed")
        return near(m)

    with pytest.raises(Exception, match="killed"):
        run(MergeablePool("abcd", failing), cache=cache, run_seed=run_seed)
    pool = MergeablePool("abcd", near)
    resumed = run(pool, cache=cache, run_seed=run_seed)
    whole = MergeablePool("abcd", near)
    assert resumed.state == run(whole, run_seed=run_seed).state
    assert len(pool.history) == len(whole.history) - (4 + 8) * len(DEV)


def test_ensembles_vote_among_the_best_points():
    outcome = run(MergeablePool("abcd", near), ensemble_top_k=3)
    assert len(outcome.state["members"]) == 2 and outcome.calls_per_question == {"t0": 3}
    assert outcome.replies["t0"].meta["voter"] == 0  # all differ: the best point answers
    assert run(MergeablePool("abcd", lambda m: 0.5), ensemble_top_k=3).replies["t0"].meta["votes"] == ["0.5"] * 3


def test_only_a_single_point_is_the_one_model_that_answers():
    systems = []
    run(MergeablePool("abcd", near), after_fit=systems.append)
    run(MergeablePool("abcd", near), ensemble_top_k=3, after_fit=systems.append)
    alone, together = systems
    assert alone.model.name == "swarm" and together.model is None
    assert [m.name for m in together.voters] == ["swarm", "swarm 2", "swarm 3"]


def test_a_swarm_that_an_earlier_version_saved_is_read_and_saved_alike():
    def merge(*coefficients):
        sources = [{"model": name, "base": False, "fingerprint": f"f{name}"} for name in "ab"]
        return {"sources": sources, "operation": {"kind": "linear", "coefficients": list(coefficients)}}

    state = {"format": 1, "name": "swarm", "merge": merge(0.25, 0.75), "facts": {}, "members": [merge(1.5, -0.5)]}
    pool = MergeablePool("ab", near, {name: {"fingerprint": f"f{name}"} for name in "ab"}).pool
    system = ModelSwarms(Options()).restore(pool, json.loads(json.dumps(state)), None)
    assert [m.name for m in system.voters] == ["swarm", "swarm 2"]
    assert json.loads(json.dumps(system.state())) == state


def test_adapters_move_in_their_factors_or_in_their_updates():
    pool = MergeablePool("abcd", near, adapter=True, base="base")
    assert run(pool).state["merge"]["composition"] == "factors"
    assert run(pool, adapter_combine="exact").state["merge"]["composition"] == "exact"


def test_few_experts_are_warned_about():
    assert any("span a space of 1 dimensions" in w for w in run(MergeablePool("ab", lambda m: 0.1)).warnings)
    assert not run(MergeablePool("abcd", near)).warnings
