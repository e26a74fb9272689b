"""DARE-TIES on scripted scores: how options become a merging rule, and the search."""

import pytest

from moco_core import ConfigError
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_dare_ties.method import DareTies
from moco_method_dare_ties.options import Options
from moco_toolkit_authoring import examples, method_checks
from moco_toolkit_merging.testing import MergeablePool, Utility, run_merge

DEV = examples(2, prefix="d")

test_conformance = method_checks(
    "dare_ties",
    settings=[
        {"base": "z"},
        {"base": "z", "sparsify": "ties", "weights": "search", "population": 2, "max_iterations": 1},
        {"base": "z", "weights": "search", "search": "dirichlet", "population": 2, "search_density": True},
    ],
    pool=lambda: MergeablePool("zabc", lambda m: m.share("a") * (1.5 - m.share("a"))),
    metric=Utility(NoOptions()),
)


def make(**options):
    return DareTies(build(Options, options))


def run(pool, cache=None, run_seed=0, **options):
    return run_merge(make(**options), pool, DEV, cache=cache, seed=run_seed)


def pool(utility=lambda m: 0.0, names="abz"):
    return MergeablePool(names, utility)


def operation(outcome):
    return outcome.state["merge"]["operation"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {},
            {
                "sparsify": "dare",
                "density": [0.5, 0.5],
                "rescale": "inverse_density",
                "normalize": True,
                "weights": [1, 1],
            },
        ),
        ({"sparsify": "ties"}, {"sparsify": "ties", "density": [0.2, 0.2], "rescale": "none"}),
        ({"sparsify": "none"}, {"density": [1.0, 1.0]}),
        ({"density": [0.1, 0.9], "weights": [2.0, 1.0]}, {"density": [0.1, 0.9], "weights": [2, 1]}),
        ({"preset": "mergekit", "density": 1.0, "scaling": 3.0}, {"rescale": "l1", "normalize": False, "scaling": 1.0}),
        ({"consensus": "count", "scaling": 0.5}, {"vote": "count", "scaling": 0.5}),
    ],
)
def test_options_become_the_rule(options, expected):
    found = operation(run(pool(), base="z", **options))
    assert {k: found[k] for k in expected} == expected


def test_the_base_comes_last_and_averaging_asks_nothing():
    outcome = run(pool(names="zab"), base="z")
    assert [s["model"] for s in outcome.state["merge"]["sources"]] == ["a", "b", "z"]
    assert outcome.calls["fit"] == 0 == make(base="z").cost(3, 2).fit


def test_adapters_bring_their_base():
    source = MergeablePool("ab", lambda m: 0.0, adapter=True, base="root")
    sources = run(source).state["merge"]["sources"]
    assert [(s["model"], s["base"]) for s in sources] == [("a", False), ("b", False), ("a", True)]
    assert sources[2]["fingerprint"] == "root"


@pytest.mark.parametrize("search", ["swarm", "dirichlet"])
def test_searching_weights_improves_on_uniform(search):
    wanted = {"a": 0.75, "b": 0.2, "c": 0.05}
    gap = lambda m: -sum((m.share(n) - w) ** 2 for n, w in wanted.items())  # noqa: E731
    outcome = run(pool(gap, "abcz"), base="z", weights="search", search=search)
    trace = outcome.state["facts"]["trace"]
    assert trace[0]["weights"] == pytest.approx([1 / 3] * 3) and max(t["score"] for t in trace) > trace[0]["score"]
    assert outcome.texts["t0"] == repr(max(t["score"] for t in trace))
    assert len(trace) <= make(base="z", weights="search").cost(4, 1).fit == 30


@pytest.mark.parametrize("search", ["swarm", "dirichlet"])
def test_equal_scores_keep_uniform(search):
    outcome = run(pool(lambda m: 0.5, "abcz"), base="z", weights="search", search=search)
    assert operation(outcome)["weights"] == pytest.approx([1 / 3] * 3)


def test_density_and_scaling_can_be_searched_within_their_ranges():
    outcome = run(
        pool(lambda m: m.recipe.operation.scaling - m.recipe.operation.density[0] if m.recipe else 0.0, "abz"),
        base="z",
        weights="search",
        search_density=True,
        search_scaling=True,
    )
    trace = outcome.state["facts"]["trace"]
    assert trace[0]["density"] == [0.5, 0.5] and trace[0]["scaling"] == 1.0
    assert all(0.05 <= t["density"][0] <= 1 and 0.3 <= t["scaling"] <= 1.8 for t in trace)
    assert operation(outcome)["scaling"] > 1 and operation(outcome)["density"][0] < 0.5


def test_without_normalising_lambda_is_searched_and_uniform_is_one_each():
    outcome = run(pool(lambda m: 0.0), base="z", weights="search", normalize=False)
    first = outcome.state["facts"]["trace"][0]
    assert first["weights"] == [1.0, 1.0]
    assert len({t["scaling"] for t in outcome.state["facts"]["trace"]}) > 1


def test_a_search_starts_from_what_is_given_and_keeps_the_preset():
    given = {"density": 0.02, "scaling": 2.5, "normalize": False, "search_density": True}
    first, *later = run(pool(lambda m: 0.0), base="z", weights="search", **given).state["facts"]["trace"]
    assert (first["density"], first["scaling"], first["weights"]) == ([0.02, 0.02], 2.5, [1.0, 1.0])
    assert all(0.02 <= t["density"][0] <= 1 and 0.3 <= t["scaling"] <= 2.5 for t in later)
    preset = run(pool(lambda m: -abs(m.share("a") - 0.7)), base="z", weights="search", preset="mergekit")
    trace = preset.state["facts"]["trace"]
    assert trace[0]["weights"] == [1.0, 1.0] and {t["scaling"] for t in trace} == {1.0}
    assert operation(preset)["normalize"] is False and operation(preset)["rescale"] == "l1"
    assert all(sum(t["weights"]) == pytest.approx(2) for t in trace)


def test_options_that_contradict_each_other():
    with pytest.raises(ConfigError, match="search_density: looks for one density"):
        make(weights="search", search_density=True, density=[0.5, 0.5])
    with pytest.raises(ConfigError, match="search_scaling: preset 'mergekit' keeps lambda at 1"):
        make(weights="search", search_scaling=True, preset="mergekit")


def test_the_runs_seed_reaches_the_masks_and_the_methods_own_is_added():
    masks = [operation(run(pool(), base="z", run_seed=s))["seed"] for s in (0, 1, 2)]
    assert len(set(masks)) == 3 and masks[1] == operation(run(pool(), base="z", run_seed=1))["seed"]
    assert operation(run(pool(), base="z", run_seed=1, seed=1))["seed"] not in masks


@pytest.mark.parametrize("options", [{"sparsify": "ties"}, {"sparsify": "none"}, {"density": 1.0}, {"density": 0.0}])
def test_where_no_mask_is_drawn_all_seeds_share_one_merge(options):
    merges = [run(pool(), base="z", run_seed=s, seed=s, **options).state["merge"] for s in (0, 1)]
    assert merges[0] == merges[1]


@pytest.mark.parametrize("search", ["swarm", "dirichlet"])
def test_the_runs_seed_reaches_the_search(search):
    def trace(run_seed):
        found = run(
            pool(lambda m: -abs(m.share("a") - 0.9)),
            base="z",
            weights="search",
            sparsify="ties",
            search=search,
            run_seed=run_seed,
        )
        return found.state["facts"]["trace"]

    runs = [trace(s) for s in (0, 1, 2)]
    assert runs[0] != runs[1] != runs[2] != runs[0] and runs[1] == trace(1)


def test_the_search_is_seeded_and_resumes_from_the_cache():
    cache = Cache(None)
    source = pool(lambda m: -abs(m.share("a") - 0.9))
    first = run(source, cache=cache, base="z", weights="search")
    served = len(source.history)
    assert run(source, cache=cache, base="z", weights="search").state == first.state and len(source.history) == served
    assert run(source, base="z", weights="search", seed=1).state["facts"]["trace"] != first.state["facts"]["trace"]


@pytest.mark.parametrize(
    ("options", "names", "message"),
    [
        ({}, "ab", "the model the others were trained from"),
        ({"base": "y"}, "abz", "names 'y'"),
        ({"base": "z"}, "az", "at least 3 models, the pool has 2"),
        ({"base": "z", "weights": [1.0]}, "abz", "option weights has 1 numbers for 2 models"),
        ({"base": "z", "density": [1.0, 0.5, 0.5]}, "abz", "option density has 3 numbers for 2 models"),
    ],
)
def test_what_cannot_be_merged_is_refused(options, names, message):
    told = make(**options).needs().problems(pool(names=names).pool)
    assert len(told) == 1 and message in told[0]


def test_option_ranges():
    with pytest.raises(ConfigError, match="density"):
        make(density=1.5)
    with pytest.raises(ConfigError, match="population"):
        make(weights="search", population=1)
