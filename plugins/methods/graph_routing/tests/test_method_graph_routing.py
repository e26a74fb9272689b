"""Graph routing: what it learns from dev, scenarios, new models, and how it is kept, on scripted models."""

from __future__ import annotations

import attrs
import pytest

from moco_core import ConfigError, Example, Question, Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_graph_routing.method import GraphRouting
from moco_method_graph_routing.options import Options
from moco_toolkit_authoring import Faults, ScriptedPool, method_checks, run_method

QUICK = {"train_epochs": 4, "draws_per_step": 4, "folds": 2}
FULL = {"train_epochs": 150, "draws_per_step": 4, "learning_rate": 0.02, "rewording": False, "folds": 0}
GREEDY = Sampling(temperature=0.0, max_new_tokens=32)
WORDS = ("count", "spell", "recall")

test_conformance = method_checks(
    "graph_routing",
    settings=[
        {**QUICK},
        {**QUICK, "scenario": "balance", "aggregation": "sum", "rewording": False, "folds": 0},
    ],
    identical_is_single=True,
)


def expert(word: str):
    return lambda call: f"the answer is {'a' if call.prompt.split()[0] == word else 'b'}"


def experts(words=WORDS, **keywords) -> ScriptedPool:
    fields = {f"m{i}": {"description": f"model for {word}"} for i, word in enumerate(words)}
    return ScriptedPool({f"m{i}": expert(word) for i, word in enumerate(words)}, fields=fields, **keywords)


def questions(count: int, prefix: str = "d", words=WORDS) -> list[Example]:
    n = len(words)
    return [
        Example(question=Question(id=f"{prefix}{q}", prompt=words[q % n] + " item" * (1 + q % 5)), references=("a",))
        for q in range(count)
    ]


DEV, TEST = questions(30), [e.question for e in questions(20, "t")]


def run(pool, dev=DEV, ask=TEST, method=None, **options):
    options = {**FULL, **options}
    return run_method(method or GraphRouting(Options(**options)), pool, dev=dev, questions=ask, sampling=GREEDY)


def chosen(outcome) -> list[str]:
    return [outcome.replies[key].meta["model"] for key in sorted(outcome.replies, key=lambda k: int(k[1:]))]


# ---------------------------------------------------------------- the card's checks, end to end


def test_questions_go_to_the_model_that_is_right_on_their_like():
    """Beside the network's own test on clusters: through embeddings of words, dev replies and cross-fitting."""
    outcome = run(experts(), dev=questions(60), folds=3)
    found = outcome.noted("routing")
    assert found["oracle"] == 1.0 and found["routed"] > 0.9 and found["best_single"] == pytest.approx(1 / 3)
    assert outcome.noted("by_fold") == {"folds": 3, "won": 3, "tied": 0} and outcome.warnings == []
    right = [name == f"m{q % 3}" for q, name in enumerate(chosen(outcome))]
    assert all(right)


def test_the_fit_log_tells_all_that_says_what_a_router_is_worth():
    dev = [attrs.evolve(e, question=attrs.evolve(e.question, subset=e.question.prompt.split()[0])) for e in questions(60)]
    tasks = dict.fromkeys(WORDS, "questions")  # nothing to tell tasks apart by: the question decides
    outcome = run(experts(), dev=dev, ask=[], folds=3, rewording=True, prices=(1.0, 2.0, 3.0), task_descriptions=tasks)
    routing, curve = outcome.noted("routing"), outcome.noted("curve")
    assert routing["oracle"] == 1.0 and routing["gap_closed"] == pytest.approx(1.5 * (routing["routed"] - 1 / 3))
    assert sum(routing["share"].values()) == pytest.approx(1) and set(routing["subsets"]) == set(WORDS)
    assert outcome.noted("by_fold")["folds"] == 3
    assert curve["points"][0]["score"] == routing["routed"] and curve["area"] > curve["area_of_singles"]
    assert set(outcome.noted("unchanged")) == {"case", "spacing", "neutral"}


def test_twenty_questions_together_are_routed_as_one_by_one_and_after_saving():
    method = GraphRouting(Options(**{**FULL, "train_epochs": 3, "folds": 0}))
    together = run_method(method, experts(), dev=DEV, questions=TEST[::-1], sampling=GREEDY, reload_with=method)
    for question in TEST[:3]:
        alone = run_method(method, experts(), dev=DEV, questions=[question], sampling=GREEDY)
        assert together.replies[question.id].meta == alone.replies[question.id].meta


@pytest.mark.parametrize("scenario", ["performance", "cost"])
def test_equal_scores_and_different_costs_go_to_the_cheapest(scenario):
    fields = {"a": {"prices": (3.0, 3.0)}, "b": {"prices": (1.0, 1.0)}, "c": {"prices": (2.0, 2.0)}}
    pool = ScriptedPool(dict.fromkeys("abc", "the answer is a"), fields=fields)
    outcome = run(pool, scenario=scenario)
    assert set(chosen(outcome)) == {"b"}
    # performance first has no label to learn from, cost first has one on every question
    assert any("dev says nothing" in text for text in outcome.warnings) == (scenario == "performance")


def test_a_scenario_moves_choices_to_the_cheaper_model():
    fields = {"m0": {"prices": (1.0, 1.0)}, "m1": {"prices": (9.0, 9.0)}}
    dev, ask = questions(30, words=WORDS[:2]), [e.question for e in questions(10, "t", WORDS[:2])]
    routes = {}
    for scenario in ("performance", "cost"):
        pool = ScriptedPool({f"m{i}": expert(WORDS[i]) for i in range(2)}, fields=fields)
        routes[scenario] = chosen(run(pool, dev, ask, scenario=scenario))
    assert routes == {"performance": ["m0", "m1"] * 5, "cost": ["m0"] * 10}


def test_costs_that_are_equal_are_told_to_be_no_signal():
    outcome = run(experts(), scenario="balance", train_epochs=2)
    assert outcome.noted("cost_unit") == "no cost signal"
    assert any("no cost signal, their weight does nothing" in text for text in outcome.warnings)


def test_a_question_on_which_all_models_tie_carries_no_label():
    dev = [*DEV, *(Example(question=Question(id=f"x{i}", prompt="nobody knows"), references=("z",)) for i in range(4))]
    assert run(experts(), dev=dev, train_epochs=2).noted("learnt_from") == 30


# ---------------------------------------------------------------- tasks, new models


def test_a_task_is_read_once_and_by_its_description():
    subsets = [attrs.evolve(e, question=attrs.evolve(e.question, subset="quiz")) for e in DEV]
    pool = experts()
    outcome = run(pool, dev=subsets, train_epochs=2, folds=0, task_descriptions={"quiz": "short questions"})
    assert list(outcome.state["tasks"]) == ["short questions"]
    texts = [call.given["texts"][0] for call in pool.history if call.kind == "embed"]
    assert texts.count("short questions") == 3  # by every encoder, for all of dev and test


def test_a_new_model_joins_by_its_description_without_being_asked_on_dev():
    pool = experts((*WORDS, "count"))  # m3 is described as m0 is
    outcome = run(pool, new_models=("m3",))
    asked = [call for call in pool.history if call.kind == "generate" and call.model == "m3"]
    assert len(asked) <= chosen(outcome).count("m3")
    scores = outcome.replies["t0"].meta["scores"]
    assert set(scores) == {"m0", "m1", "m2", "m3"}


def test_a_few_edges_of_a_new_model_change_its_scores_and_nobody_elses():
    outcomes = [run(experts((*WORDS, "count")), new_models=("m3",), few_shot=n, folds=0) for n in (0, 6)]
    before, after = (o.replies["t0"].meta["scores"] for o in outcomes)
    assert {k: before[k] for k in ("m0", "m1", "m2")} == {k: after[k] for k in ("m0", "m1", "m2")}
    assert before["m3"] != after["m3"]
    assert outcomes[1].calls["fit"] == outcomes[0].calls["fit"] + 6


# ---------------------------------------------------------------- failures, bad input


def test_a_question_that_cannot_be_embedded_goes_to_the_best_single_model_and_says_so():
    bad = "count" + 4 * " item"
    pool = experts(faults=Faults(when=lambda call: call.kind == "embed" and call.given["texts"] == [bad]))
    outcome = run(pool, train_epochs=2, folds=0)
    assert "dev questions could not be embedded" in outcome.warnings[0]
    assert outcome.replies["t3"].meta["unrouted"].endswith("injected failure")
    assert "unrouted" not in outcome.replies["t4"].meta


@pytest.mark.parametrize(("count", "said"), [(1, "one dev question: nothing is held out"), (2, "too few for 5 folds")])
def test_a_tiny_dev_is_enough_and_said_to_be_little(count, said):
    outcome = run(experts(), dev=DEV[:count], train_epochs=3, folds=5)
    assert len(outcome.replies) == 20 and any(said in text for text in outcome.warnings)


def test_a_model_that_is_never_best_is_named():
    pool = ScriptedPool({"a": expert("count"), "b": lambda c: "the answer is a", "c": "the answer is b"})
    assert any("never best on dev" in text and "c" in text for text in run(pool, train_epochs=2).warnings)


def test_bad_pools_and_options():
    pool = experts().pool

    def problem(models=pool, **options) -> str:
        return "\n".join(GraphRouting(Options(**options)).needs().problems(models))

    assert "new_models: no model 'x' in the pool" in problem(new_models=("x",))
    assert "new_models: two models at least must be known from dev" in problem(new_models=("m0", "m1"))
    assert "prices: 3 models need as many values, got 1" in problem(prices=(1.0,))
    bare = [attrs.evolve(m, capabilities={"generate"}) for m in pool]
    assert "encoder: no model of the pool can return one embedding per text" in problem(bare)
    assert "needs two models that write text, the pool has 0" in problem(
        Pool([attrs.evolve(m, capabilities={"embed"}) for m in pool])
    )
    with pytest.raises(ConfigError, match="no dev examples"):
        run(experts(), dev=[])
    for given, said in (
        ({"weights": [0.0, 0.0]}, "weights: one of the two must be above 0"),
        ({"hidden_features": 2}, "hidden_features: expected int >= 4"),
        ({"train_mask_rate": 1.0}, "train_mask_rate: expected"),
    ):
        with pytest.raises(ConfigError, match=said):
            build(Options, given)
