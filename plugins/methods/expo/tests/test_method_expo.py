"""ExPO on scripted scores: directions, strengths, and what is refused."""

import pytest

from moco_core import ConfigError
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_expo.method import Expo
from moco_method_expo.options import Options
from moco_toolkit_authoring import examples, method_checks
from moco_toolkit_merging.testing import MergeablePool, Utility, run_merge

DEV = examples(2, prefix="d")

test_conformance = method_checks(
    "expo",
    settings=[
        {},
        {"mode": "topk_bottomk", "alpha": 0.3},
        {"source": "a", "target": "b", "alpha_grid": [0.0, 0.5], "early_exit": True},
        {"mode": "base_to_mean", "base": "a"},
    ],
    pool=lambda: MergeablePool("abc", lambda m: m.share("b") * (2.5 - m.share("b")) + 0.2 * m.share("c")),
    script=lambda call: {"a": "0.1", "b": "0.9"}.get(call.model, "0.5"),  # models that score alike give no direction
    metric=Utility(NoOptions()),
)


def make(**options):
    return Expo(build(Options, options))


def run(pool, cache=None, dev=DEV, **options):
    return run_merge(make(**options), pool, dev, cache=cache)


def along(peak):
    """Score by the coefficient of b, which is 1 + alpha on the way from a through b; a alone scores low."""
    return lambda m: -abs(m.share("b") - 1 - peak) - 0.1 * (m.share("b") == 0)


def facts(outcome):
    return outcome.state["facts"]


@pytest.mark.parametrize(("peak", "expected"), [(0.5, 0.5), (2.0, 2.0), (0.1, 0.1), (9.0, 4.0)])
def test_the_grid_finds_the_maximum(peak, expected):
    outcome = run(MergeablePool("ab", along(peak)), refine=False)
    assert facts(outcome)["alpha"] == expected
    assert facts(outcome)["target"] == ["b"] and facts(outcome)["source"] == ["a"]


def test_refining_tries_the_middles_between_neighbours():
    outcome = run(MergeablePool("ab", along(1.4)))
    assert facts(outcome)["alpha"] == 1.5
    tried = [t["alpha"] for t in facts(outcome)["trace"] if "alpha" in t]
    assert tried == [0, 0.1, 0.2, 0.3, 0.5, 1, 2, 4, 0.75, 1.5]


def test_zero_is_always_tried_and_wins_when_every_step_hurts():
    outcome = run(MergeablePool("ab", along(0.0)), alpha_grid=[0.3, 1.0])
    assert facts(outcome)["alpha"] == 0.0
    assert outcome.texts["t0"] == repr(along(0.0)(type("M", (), {"share": lambda self, n: n == "b"})()))


def test_equal_scores_keep_the_smallest_strength():
    pool = MergeablePool("ab", lambda m: float(m.share("b") > 0))
    assert facts(run(pool))["alpha"] == 0.0


def test_early_exit_stops_after_two_drops():
    outcome = run(MergeablePool("ab", along(0.2)), early_exit=True, refine=False)
    assert [t["alpha"] for t in facts(outcome)["trace"] if "alpha" in t] == [0, 0.1, 0.2, 0.3, 0.5]


def test_a_given_strength_is_used_and_costs_the_ranking_only():
    outcome = run(MergeablePool("ab", along(0.5)), alpha=0.3)
    operation = outcome.state["merge"]["operation"]
    assert (operation["kind"], operation["alpha"], operation["targets"]) == ("extrapolate", 0.3, 1)
    assert outcome.calls["fit"] == make(alpha=0.3).cost(2, 2).fit == 4


def test_a_pair_goes_from_source_to_target():
    outcome = run(MergeablePool("abc", along(0.5)), source="a", target="b", alpha=0.3, check=False)
    assert [s["model"] for s in outcome.state["merge"]["sources"]] == ["b", "a"]
    assert outcome.calls["fit"] == 0 and not outcome.warnings
    assert run(MergeablePool("abc", along(0.5)), source="a", target="b", alpha=0.3, check=False, dev=[]).state


def test_a_pair_the_wrong_way_round_is_warned_about():
    outcome = run(MergeablePool("ab", along(0.0)), source="b", target="a", alpha=0.3)
    assert any("goes the wrong way" in w for w in outcome.warnings)


def test_topk_with_one_equals_worst_to_best():
    score = {"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.2}
    utility = lambda m: sum(c * score[n] for n, c in m.coefficients.items())  # noqa: E731
    one = run(MergeablePool("abcd", utility), mode="worst_to_best", alpha=0.5)
    same = run(MergeablePool("abcd", utility), mode="topk_bottomk", alpha=0.5)
    assert one.state["merge"] == same.state["merge"]
    two = run(MergeablePool("abcd", utility), mode="topk_bottomk", k=2, alpha=0.5)
    assert [s["model"] for s in two.state["merge"]["sources"]] == ["b", "c", "d", "a"]
    assert two.state["merge"]["operation"]["targets"] == 2


def test_base_to_mean_moves_from_the_base_through_the_soup():
    outcome = run(MergeablePool("abz", along(0.0)), mode="base_to_mean", base="z", alpha=1.0)
    assert [s["model"] for s in outcome.state["merge"]["sources"]] == ["a", "b", "z"]
    assert outcome.state["merge"]["operation"]["targets"] == 2 and outcome.calls["fit"] == 0


def test_adapters_are_scaled_and_added_exactly():
    def pool():
        return MergeablePool("ab", along(0.5), adapter=True, base="root")

    alone = run(pool(), target="a", alpha=0.5, check=False).state["merge"]
    assert alone["coefficients"] == [1.5] and [s["model"] for s in alone["sources"]] == ["a"]
    pair = run(pool(), source="a", target="b", alpha=0.5, check=False).state["merge"]
    assert pair["coefficients"] == [1.5, -0.5] and pair["composition"] == "exact"
    mean = run(pool(), mode="base_to_mean", alpha=0.5).state["merge"]
    assert mean["coefficients"] == [0.75, 0.75]
    kept = run(pool(), target="a", alpha=0.5, check=False, exclude=["*v_proj*"]).state["merge"]
    assert kept["instead"] == [1.0]


def test_a_search_is_looked_up_the_second_time():
    cache, pool = Cache(None), MergeablePool("ab", along(0.5))
    first = run(pool, cache=cache)
    served = len(pool.history)
    assert run(pool, cache=cache).state == first.state and len(pool.history) == served
    assert first.calls["fit"] <= make().cost(2, 2).fit


def test_no_direction_without_a_difference():
    with pytest.raises(ConfigError, match="no direction from worse to better"):
        run(MergeablePool("ab", lambda m: 0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "topk_bottomk", "k": 2}, "top and bottom of 3 models overlap"),
        ({"target": "b"}, "name it with option 'source'"),
        ({"target": "b", "source": "b"}, "no direction"),
        ({"target": "x", "source": "b"}, "option target names 'x'"),
        ({"mode": "base_to_mean"}, "name it with option 'base'"),
    ],
)
def test_what_gives_no_direction_is_refused_before_the_work(options, message):
    pool = MergeablePool("abc", along(0.5))
    assert any(message in p for p in make(**options).needs().problems(pool.pool))
    assert not pool.history


def test_options_that_contradict_each_other():
    with pytest.raises(ConfigError, match="mode 'pair' needs"):
        make(mode="pair")
    with pytest.raises(ConfigError, match="takes no source and target"):
        make(mode="worst_to_best", target="a")
