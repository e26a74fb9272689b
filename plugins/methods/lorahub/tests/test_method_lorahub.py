"""LoraHub: the optimiser on known functions, the objective, the sample, and what is refused."""

import asyncio
import random
import threading

import attrs
import numpy as np
import pytest

from moco_core import ConfigError, Example, PromptTooLong, Question
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_method_lorahub.method import LoraHub
from moco_method_lorahub.optimiser import minimise
from moco_method_lorahub.options import Options
from moco_method_lorahub.sample import few, reference_text
from moco_toolkit_authoring import examples, method_checks
from moco_toolkit_merging.testing import MergeablePool, Utility, run_merge

DEV = examples(8, prefix="d")

test_conformance = method_checks(
    "lorahub",
    settings=[
        {"max_inference_step": 6},
        {
            "objective": "score",
            "max_inference_step": 8,
            "optimizer": "OnePlusOne",
            "suggest": True,
            "composition": "exact",
        },
    ],
    pool=lambda: MergeablePool("abc", lambda m: -abs(m.share("a") - 0.6), adapter=True, base="base"),
    metric=Utility(NoOptions()),
)


def run(pool, dev=DEV, cache=None, run_seed=0, **options):
    return run_merge(LoraHub(build(Options, options)), pool, dev, cache=cache, seed=run_seed)


def adapters(utility, names="abc"):
    return MergeablePool(names, utility, adapter=True, base="base")


def found(function, size, **keywords):
    async def objective(weights):
        return function(weights)

    return asyncio.run(minimise(objective, size, **{"bound": 1.5, "budget": 40, **keywords}))


WANTED = (0.4, -0.3, 0.2)


def square(weights):
    return sum((w - t) ** 2 for w, t in zip(weights, WANTED, strict=True))


def test_the_optimiser_reaches_a_quadratic_optimum_from_the_origin():
    asked = []
    best = found(lambda w: asked.append(w) or square(w), 3)
    assert asked[0] == (0.0, 0.0, 0.0) and len(asked) <= 40
    assert square(best.weights) < 1e-4 and best.value == square(best.weights) == min(map(square, asked))
    assert best.weights == found(square, 3).weights


@pytest.mark.parametrize("optimizer", ["TwoPointsDE", "CMA", "OnePlusOne"])
def test_other_optimisers_are_offered_by_name_and_never_end_below_the_origin(optimizer):
    best = found(square, 3, optimizer=optimizer)
    assert best.first == square((0, 0, 0)) and best.value <= best.first
    assert max(map(abs, best.weights)) <= 1.5


def test_suggestions_come_right_after_the_origin_and_inside_the_budget():
    asked = []
    found(lambda w: asked.append(w) or 0.0, 2, budget=3, suggestions=[(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
    assert asked == [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]


def test_an_objective_that_fails_ends_the_optimisers_thread_too():
    before = threading.active_count()

    def broken(weights):
        if any(weights):
            raise RuntimeError("scorer broke")
        return 0.0

    with pytest.raises(RuntimeError, match="scorer broke"):
        found(broken, 2)
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(5)
    assert threading.active_count() <= before


def test_unknown_optimisers_are_named():
    with pytest.raises(ConfigError, match="did you mean 'NGOpt'"):
        found(square, 3, optimizer="NGOptt")


def test_the_loss_is_searched_with_its_penalty_and_the_best_point_kept():
    pool = adapters(lambda m: -sum((m.share(n) - w) ** 2 for n, w in zip("abc", WANTED, strict=True)))
    facts = run(pool, regular_coef=0.0).state["facts"]
    assert list(facts["weights"].values()) == pytest.approx(WANTED, abs=1e-2)
    assert facts["objective_of_base"] == pytest.approx(square((0, 0, 0))) and facts["objective"] < 1e-4
    assert facts["trace"][0]["weights"] == [0, 0, 0] and len(facts["dev"]) == 5
    assert all(t["best"] <= -facts["objective"] + 1e-12 for t in facts["trace"])


def test_the_penalty_is_the_mean_absolute_weight():
    pool = adapters(lambda m: 0.0)
    for step in run(pool, regular_coef=0.3).state["facts"]["trace"]:
        assert step["objective"] == pytest.approx(0.1 * sum(abs(w) for w in step["weights"]))


def test_a_constant_objective_keeps_the_base_and_says_so():
    outcome = run(adapters(lambda m: -0.7))
    assert set(outcome.state["facts"]["weights"].values()) == {0.0}
    assert any("the base answers" in w for w in outcome.warnings)


def test_the_loss_is_averaged_over_tokens_and_items():
    outcome = run(adapters(lambda m: -2.0), max_inference_step=1)
    assert outcome.state["facts"]["objective"] == pytest.approx(2.0)


def test_scores_inside_the_unit_interval_become_one_minus_and_others_minus():
    inside = run(adapters(lambda m: 0.25), objective="score", max_inference_step=1).state["facts"]["objective"]
    outside = run(adapters(lambda m: 7.0), objective="score", max_inference_step=1).state["facts"]["objective"]
    assert (inside, outside) == (0.75, -7.0)


def test_a_lower_score_is_never_the_lower_loss_even_across_the_ends_of_the_unit_interval():
    pool = adapters(lambda m: 0.2 - 2 * m.share("a") + m.share("b"))
    facts = run(pool, objective="score", regular_coef=0.0, max_inference_step=20).state["facts"]
    steps = sorted((t["score"], t["objective"]) for t in facts["trace"])
    assert steps[0][0] < 0 and steps[-1][0] > 1  # both ends were crossed
    assert [o for _, o in steps] == sorted((o for _, o in steps), reverse=True)
    assert facts["objective"] == pytest.approx(1 - steps[-1][0])


def test_a_search_runs_once_and_is_looked_up_afterwards():
    cache, pool = Cache(None), adapters(lambda m: m.share("a") - m.share("b"))
    first = run(pool, cache=cache)
    served = len(pool.history)
    assert run(pool, cache=cache).state == first.state and len(pool.history) == served
    assert first.calls["fit"] <= LoraHub(Options()).cost(3, 8).fit == 200


def test_candidates_are_drawn_by_seed_and_composition_is_kept():
    pool = adapters(lambda m: 0.0, "abcdef")
    state = run(pool, num_candidates=2, max_inference_step=4, composition="exact").state
    assert len(state["merge"]["sources"]) == 2 and state["merge"]["composition"] == "exact"
    assert state == run(pool, num_candidates=2, max_inference_step=4, composition="exact").state


def test_the_runs_seed_reaches_sample_candidates_and_optimiser():
    dev = examples(30, prefix="d")

    def fit(run_seed, **options):
        pool = adapters(lambda m: m.share("a") - m.share("b") + m.share("e"), "abcdef")
        options = {"max_inference_step": 6, "dev_samples": 3, "optimizer": "OnePlusOne", **options}
        state = run(pool, dev=dev, run_seed=run_seed, num_candidates=3, **options).state
        drawn = [t["weights"] for t in state["facts"]["trace"]]
        return tuple(state["facts"]["dev"]), tuple(state["facts"]["weights"]), repr(drawn)

    runs = [fit(s) for s in (0, 1, 2)]
    for fits in zip(*runs, strict=True):  # each of the three draws by itself
        assert len(set(fits)) == 3
    assert fit(1) == runs[1] and fit(1, seed=43) not in runs


def test_the_sample_takes_labels_in_turn():
    def item(i, answer):
        question = Question(id=str(i), prompt="?", choices=("x", "y"), answer_kind="choice")
        return Example(question=question, answer=answer)

    dev = [item(i, int(i >= 8)) for i in range(10)]  # two examples of the second label among ten
    sample = few(dev, 4, random.Random(42))
    assert sorted(e.answer for e in sample) == [0, 0, 1, 1] and sample == few(dev, 4, random.Random(42))
    assert [e.id for e in sample] == sorted(e.id for e in sample)
    assert len(few(dev, 99, random.Random(0))) == 10


def test_reference_texts():
    choice = Example(question=Question(id="1", prompt="?", choices=("x", "y"), answer_kind="choice"), answer=1)
    assert reference_text(choice) == "B"
    assert reference_text(attrs.evolve(choice, references=("y",))) == "y"
    bare = Example(question=Question(id="2", prompt="?"))
    assert reference_text(bare) is None
    with pytest.raises(ConfigError, match="'2' has no reference text"):
        run(adapters(lambda m: 0.0), dev=[bare])
    with pytest.raises(ConfigError, match="dev split is empty"):
        run(adapters(lambda m: 0.0), dev=[])


def too_long(pool, *ids):
    """Let the pool refuse to score the prompts of some dev examples."""
    answer, prompts = pool.engine.answer, [e.question.prompt for e in DEV if e.id in ids]

    def cut(call):
        if call.kind == "score" and any(p in str(call.input) for p in prompts):
            raise PromptTooLong("the prompt has 9 tokens, the context 8")
        return answer(call)

    pool.engine.answer = cut
    return pool


def test_an_example_too_long_for_the_base_is_left_out_of_the_loss_and_named():
    pool = too_long(adapters(lambda m: -2.0 if m.share("a") < 2 else 0.0), DEV[1].id)
    outcome = run(pool, dev=DEV[:3], max_inference_step=3, regular_coef=0.0)
    assert outcome.state["facts"]["objective"] == pytest.approx(2.0)
    assert any(f"dev example {DEV[1].id!r} is left out of the objective" in w for w in outcome.warnings)
    with pytest.raises(ConfigError, match="every sampled dev example is too long"):
        run(too_long(adapters(lambda m: 0.0), *(e.id for e in DEV)))


def test_only_adapters_of_one_base_will_do():
    full = MergeablePool("ab", lambda m: 0.0, {"a": {"adapter": True}})
    assert any("'b' is not a LoRA adapter" in p for p in LoraHub(Options()).needs().problems(full.pool))
    apart = MergeablePool("ab", lambda m: 0.0, {"b": {"base": "x"}}, adapter=True, base="y")
    assert any("do not share a base" in p for p in LoraHub(Options()).needs().problems(apart.pool))


def test_references_are_scored_in_the_form_of_a_reply():
    pool = adapters(lambda m: 0.0)
    run(pool, reference_format="The answer is {}.", max_inference_step=1)
    scored = [c.given["continuations"][0] for c in pool.history if c.kind == "score"]
    assert len(scored) == 5 and all(s.startswith("The answer is ") and s.endswith(".") for s in scored)
    with pytest.raises(ConfigError, match=r"expected \{\} where the reference stands"):
        run(pool, reference_format="The answer is X.")


@pytest.mark.parametrize("optimizer", ["NGOpt", "CMA", "RotatedTwoPointsDE", "MetaModel", "RescaledCMA"])
def test_a_search_depends_on_its_seed_alone_and_leaves_numpys_generator_where_it_was(optimizer):
    """nevergrad's optimisers draw from the generator that the whole process shares, or seed it."""

    def search(everybodys: int) -> tuple[float, ...]:
        np.random.seed(everybodys)
        before = np.random.get_state()[1].tobytes()
        found = asyncio.run(minimise(bowl, 3, bound=1.5, budget=40, optimizer=optimizer, seed=5))
        assert np.random.get_state()[1].tobytes() == before
        return found.weights

    async def bowl(weights):
        return sum((w - 0.3 * i) ** 2 for i, w in enumerate(weights, 1))

    assert search(1) == search(2)
