"""Greedy soup on scripted scores: the order, the acceptance rule, the trace and what is saved."""

import pytest

from moco_core import ConfigError
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_greedy_soup.method import GreedySoup
from moco_method_greedy_soup.options import Options
from moco_toolkit_authoring import examples, method_checks
from moco_toolkit_merging.testing import MergeablePool, Utility, run_merge

DEV = examples(3, prefix="d")

test_conformance = method_checks(
    "greedy_soup",
    settings=[
        {},
        {"accept": "gt", "passes": 2},
        {"recipe": "uniform"},
        {"recipe": "learned", "population": 3, "max_iterations": 1},
    ],
    pool=lambda: MergeablePool("abc", lambda m: m.share("a") * (1.5 - m.share("a")) + 0.1 * m.share("b")),
    metric=Utility(NoOptions()),
)


def run(pool, dev=DEV, cache=None, run_seed=0, **options):
    return run_merge(GreedySoup(build(Options, options)), pool, dev, cache=cache, seed=run_seed)


def by_members(table):
    """Score a soup by the set of its ingredients."""
    return lambda merged: table["".join(sorted(n for n, c in merged.coefficients.items() if c))]


TABLE = {"a": 0.5, "b": 0.7, "c": 0.6, "bc": 0.8, "abc": 0.75, "ab": 0.9}


def facts(outcome):
    return outcome.state["facts"]


def test_best_first_then_what_does_not_hurt():
    outcome = run(MergeablePool("abc", by_members(TABLE)))
    assert facts(outcome)["ingredients"] == ["b", "c"] and facts(outcome)["dev_score"] == pytest.approx(0.8)
    assert [(t["label"], round(t["score"], 9), round(t["best"], 9)) for t in facts(outcome)["trace"]] == [
        ("a", 0.5, 0.5),
        ("b", 0.7, 0.7),
        ("c", 0.6, 0.7),
        ("soup of 2 with c", 0.8, 0.8),
        ("soup of 3 with a", 0.75, 0.8),
    ]
    assert [t.get("accepted") for t in facts(outcome)["trace"]][3:] == [True, False]
    assert outcome.texts == {"t0": "0.8"}


@pytest.mark.parametrize(("accept", "margin", "kept"), [("ge", 0, "ab"), ("gt", 0, "a"), ("margin", 0.1, "a")])
def test_an_equal_score_is_accepted_by_ge_only(accept, margin, kept):
    table = {"a": 0.5, "b": 0.5, "ab": 0.5}
    outcome = run(MergeablePool("ab", by_members(table)), accept=accept, margin=float(margin))
    assert facts(outcome)["ingredients"] == list(kept)


def test_margin_accepts_a_gain_that_is_large_enough():
    table = {"a": 0.5, "b": 0.5, "ab": 0.65}
    assert facts(run(MergeablePool("ab", by_members(table)), accept="margin", margin=0.1))["ingredients"] == ["a", "b"]


def test_ties_are_ordered_by_index_and_best_never_falls():
    table = {"a": 0.4, "b": 0.6, "c": 0.6, "bc": 0.1, "ab": 0.7}
    outcome = run(MergeablePool("abc", by_members(table)))
    assert facts(outcome)["ingredients"] == ["b", "a"]
    bests = [t["best"] for t in facts(outcome)["trace"]]
    assert bests == sorted(bests) and bests[-1] >= 0.6


def test_a_second_pass_tries_the_rejected_again():
    table = {"a": 0.9, "b": 0.8, "c": 0.7, "ab": 0.5, "ac": 0.95, "abc": 1.0}
    assert facts(run(MergeablePool("abc", by_members(table))))["ingredients"] == ["a", "c"]
    assert facts(run(MergeablePool("abc", by_members(table)), passes=2))["ingredients"] == ["a", "c", "b"]


def test_max_ingredients_stops_early():
    outcome = run(MergeablePool("abc", lambda m: len(m.coefficients) / 10), max_ingredients=2)
    assert facts(outcome)["ingredients"] == ["a", "b"] and len(facts(outcome)["trace"]) == 4


def test_uniform_soup_needs_no_dev_and_holds_every_model():
    pool = MergeablePool("abc", lambda m: m.share("a"))
    outcome = run(pool, dev=[], recipe="uniform")
    assert outcome.calls["fit"] == 0 and facts(outcome)["ingredients"] == ["a", "b", "c"]
    assert outcome.state["merge"]["operation"]["kind"] == "mean"


def test_learned_soup_finds_the_mixture_and_is_never_below_the_best_single():
    wanted = {"a": 0.7, "b": 0.2, "c": 0.1}
    pool = MergeablePool("abc", lambda m: -sum((m.share(n) - w) ** 2 for n, w in wanted.items()))
    outcome = run(pool, recipe="learned", max_iterations=8)
    uniform = -sum((1 / 3 - w) ** 2 for w in wanted.values())
    assert facts(outcome)["dev_score"] > uniform / 4
    assert sum(facts(outcome)["weights"].values()) == pytest.approx(1)
    worse = run(MergeablePool("abc", lambda m: max(m.coefficients.values())), recipe="learned")
    assert facts(worse)["weights"] == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_the_runs_seed_reaches_the_learned_soup_alone():
    def trace(**settings):
        pool = MergeablePool("abc", lambda m: -abs(m.share("a") - 0.6) - abs(m.share("b") - 0.3))
        return facts(run(pool, **settings))["trace"]

    runs = [trace(run_seed=s, recipe="learned") for s in (0, 1, 2)]
    assert runs[0] != runs[1] != runs[2] != runs[0] and runs[1] == trace(run_seed=1, recipe="learned")
    assert trace(run_seed=1, seed=1, recipe="learned") not in (*runs, trace(seed=1, recipe="learned"))
    assert trace(run_seed=0) == trace(run_seed=1)  # a greedy soup draws nothing


def test_adapters_are_averaged_exactly_and_stay_adapters():
    pool = MergeablePool("ab", lambda m: len(m.coefficients), adapter=True, base="base")
    state = run(pool).state
    assert state["merge"]["coefficients"] == [0.5, 0.5] and state["merge"]["composition"] == "exact"
    assert run(pool, adapter_combine="factors").state["merge"]["composition"] == "factors"
    apart = MergeablePool("ab", lambda m: len(m.coefficients), {"b": {"base": "other"}}, adapter=True, base="base")
    assert run(apart).state["merge"]["operation"]["kind"] == "mean"


def test_the_cost_is_what_is_asked_and_a_second_run_asks_nothing():
    cache = Cache(None)
    pool = MergeablePool("abcd", lambda m: len(m.coefficients))
    first = run(pool, cache=cache)
    assert first.calls["fit"] == GreedySoup(Options()).cost(4, 3).fit == 7 * 3
    served = len(pool.history)
    again = run(pool, cache=cache)
    assert len(pool.history) == served and again.state == first.state


def test_dev_limit_uses_the_first_questions():
    pool = MergeablePool("ab", lambda m: 0.5)
    run(pool, dev=examples(9, prefix="d"), dev_limit=2)
    assert len(pool.history) == 3 * 2 + 1


def test_a_system_whose_models_changed_is_refused():
    pool = MergeablePool("ab", lambda m: len(m.coefficients))
    state = run(pool).state
    changed = MergeablePool("ab", lambda m: 0.0, {"b": {"fingerprint": "other"}})
    with pytest.raises(ConfigError, match="model 'b' has changed"):
        GreedySoup(Options()).restore(changed.pool, state, None)
    with pytest.raises(ConfigError, match="no model 'b' in the pool"):
        GreedySoup(Options()).restore(MergeablePool("a", lambda m: 0.0).pool, state, None)


def test_what_cannot_be_soup_is_refused():
    with pytest.raises(ConfigError, match="dev split is empty"):
        run(MergeablePool("ab", lambda m: 1.0), dev=[])
    apart = MergeablePool("ab", lambda m: 1.0, {"b": {"architecture": "x", "tokenizer": "y"}})
    assert GreedySoup(Options()).needs().problems(apart.pool) == [
        "models 'a' and 'b' do not share an architecture; choose checkpoints of one architecture and size"
    ]
    other = MergeablePool("ab", lambda m: 1.0, {"b": {"tokenizer": "y"}})
    assert GreedySoup(Options()).needs().problems(other.pool) == [
        "models 'a' and 'b' do not share a tokenizer; choose models of one family"
    ]
