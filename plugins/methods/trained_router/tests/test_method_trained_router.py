"""Trained router: what it learns from dev, what it does without, and how it is kept, on scripted models."""

from __future__ import annotations

import re

import attrs
import pytest
import random_checkpoints
import tiny_family
import training_here

from moco_core import ConfigError, Example, Question, Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_trained_router.method import TrainedRouter
from moco_method_trained_router.options import Options
from moco_toolkit_authoring import Faults, ScriptedPool, as_plugin, fallible, method_checks, run_method

SHORT = {"epochs": 2, "folds": 2}
GREEDY = Sampling(temperature=0.0, max_new_tokens=32)
WORDS = ("count", "spell", "recall")

test_conformance = method_checks(
    "trained_router",
    settings=[
        {**SHORT},
        {**SHORT, "router": "mf", "tie": "cheapest", "cost_weight": 0.2},
        {"router": "sw_ranking", "rewording": False},
        {"router": "encoder", "tie": "drop", "rewording": False},
        {"router": "causal_lm", "folds": 2},
    ],
    identical_is_single=True,
)

test_conformance_of_two = method_checks(
    "trained_router",
    pool=lambda: ScriptedPool({"weak": fallible, "strong": fallible}),
    settings=[{**SHORT, "mode": "binary"}, {"mode": "binary", "router": "causal_lm", "rewording": False}],
)


def asked(text: str) -> str:
    """The first word of what was asked, wherever a router's prompt has it."""
    found = re.search("|".join(WORDS), text)
    return found[0] if found else ""


def expert(word: str):
    """A script that is right where the question begins with its word."""
    return lambda call: f"the answer is {'a' if asked(call.prompt) == word else 'b'}"


def taught(lesson, before):
    """A trained router that learnt which label goes with the first word of a question."""
    known = {}
    for row in lesson["rows"]:
        label = row["label"] if lesson["service"] == "classify" else row["messages"][-1]["content"]
        known[asked(row["messages"][0]["content"])] = label

    def script(call):
        label = known.get(asked(call.transcript))
        return tuple(9.0 * share for share in label) if isinstance(label, list) else before(call)

    return script


def experts(**keywords) -> ScriptedPool:
    return ScriptedPool({f"m{i}": expert(word) for i, word in enumerate(WORDS)}, learn=taught, **keywords)


def questions(count: int, prefix: str = "d") -> list[Example]:
    """The first word decides; how often the second is said means nothing. No word falls on another one's dimension."""
    asks = [WORDS[q % 3] + " item" * (1 + q % 5) for q in range(count)]
    return [
        Example(question=Question(id=f"{prefix}{q}", prompt=text, subset=WORDS[q % 3]), references=("a",))
        for q, text in enumerate(asks)
    ]


DEV, TEST = questions(45), [e.question for e in questions(12, "t")]


def run(pool, dev=DEV, ask=TEST, **options):
    options = {"rewording": False, **options}
    return run_method(TrainedRouter(Options(**options)), pool, dev=dev, questions=ask, sampling=GREEDY)


def chosen(outcome) -> list[str]:
    return [outcome.replies[key].meta["model"] for key in sorted(outcome.replies, key=lambda k: int(k[1:]))]


# ---------------------------------------------------------------- the card's checks, end to end


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 60, "learning_rate": 0.01},
        {"router": "mf", "learning_rate": 0.01},
        {"router": "sw_ranking"},
        {"router": "encoder"},
    ],
)
def test_the_first_word_decides_and_every_kind_of_router_finds_out(options):
    outcome = run(experts(), **options)
    assert chosen(outcome) == [f"m{q % 3}" for q in range(12)]
    found = outcome.noted("routing")
    assert found["routed"] == found["oracle"] == 1.0 and found["gap_closed"] == 1.0
    assert {name: round(share, 3) for name, share in found["share"].items()} == pytest.approx(
        {f"m{i}": 0.333 for i in range(3)}, abs=0.03
    )
    assert set(found["subsets"]) == set(WORDS) and outcome.warnings == []


def told(outcome, models=("m0", "m1", "m2")) -> None:
    """The fit log has everything that says what a router is worth; here it is right throughout, at a third of each price."""
    routing, curve = outcome.noted("routing"), outcome.noted("curve")
    assert (routing["routed"], routing["oracle"], routing["gap_closed"]) == (1.0, 1.0, 1.0)
    assert set(routing["share"]) == set(models) and sum(routing["share"].values()) == pytest.approx(1)
    assert all(part["routed"] == 1.0 for part in routing["subsets"].values()) and len(routing["subsets"]) == 3
    assert outcome.noted("by_fold") == {"folds": 3, "won": 3, "tied": 0}  # against the model that is best elsewhere
    assert curve["points"][0]["score"] == 1.0 and curve["area"] > curve["area_of_singles"]
    assert curve["points"][-1]["cost"] == pytest.approx(1 / 3, abs=0.05)  # all to the cheapest
    assert set(outcome.noted("unchanged")) == {"case", "spacing", "neutral"}


def test_the_fit_log_tells_all_that_says_what_a_router_is_worth():
    prices = {"prices": (1.0, 2.0, 3.0)}
    told(run(experts(), epochs=60, learning_rate=0.01, folds=3, rewording=True, **prices))


def test_one_model_that_wins_everywhere_answers_everything():
    pool = ScriptedPool({"a": "the answer is b", "b": "the answer is a", "c": "the answer is b"})
    outcome = run(pool, epochs=30, learning_rate=0.01)
    assert set(chosen(outcome)) == {"b"}
    assert "never best on dev, and so hardly ever chosen: a, c" in outcome.warnings[0]


@pytest.mark.parametrize("options", [{"tie": "cheapest", "epochs": 20, "learning_rate": 0.01}, {"router": "mf"}, {}])
def test_where_all_models_tie_the_cheapest_answers(options):
    fields = {"a": {"prices": (3.0, 3.0)}, "b": {"prices": (1.0, 1.0)}, "c": {"prices": (2.0, 2.0)}}
    pool = ScriptedPool(dict.fromkeys("abc", "the answer is a"), fields=fields)
    outcome = run(pool, **options)
    assert set(chosen(outcome)) == {"b"}
    assert ("tie" in options) != any("dev says nothing" in text for text in outcome.warnings)


def test_routes_depend_neither_on_the_others_nor_on_their_order_and_survive_saving():
    method = TrainedRouter(Options(epochs=3, folds=0, rewording=False))
    keywords = {"dev": DEV, "sampling": GREEDY}
    alone = [run_method(method, experts(), questions=[q], **keywords).replies[q.id] for q in TEST[:4]]
    together = run_method(method, experts(), questions=TEST[::-1], reload_with=method, **keywords)
    for question, reply in zip(TEST, alone, strict=False):
        assert together.replies[question.id].meta == reply.meta


def test_the_seed_moves_what_is_held_out_and_nothing_that_a_good_router_does():
    outcomes = [
        run_method(TrainedRouter(Options(epochs=60, learning_rate=0.01, rewording=False)), experts(), dev=DEV, seed=s)
        for s in (0, 1)
    ]
    assert outcomes[0].noted("fit") != outcomes[1].noted("fit")
    assert outcomes[0].noted("routing")["routed"] == outcomes[1].noted("routing")["routed"] == 1.0


# ---------------------------------------------------------------- two models


def two(**keywords) -> ScriptedPool:
    """The strong model is right but on `recall`, where the weak one is."""
    right = {"weak": ("recall",), "strong": ("count", "spell")}
    return ScriptedPool(
        {n: lambda call, r=r: f"the answer is {'a' if asked(call.prompt) in r else 'b'}" for n, r in right.items()},
        **keywords,
    )


def test_a_threshold_sends_everything_or_the_share_that_was_asked_for():
    assert set(chosen(run(two(), mode="binary", threshold=0.0, epochs=2))) == {"strong"}
    assert set(chosen(run(two(), mode="binary", threshold=1.1, epochs=2))) == {"weak"}
    outcome = run(two(), mode="binary", strong_fraction=2 / 3, epochs=60, learning_rate=0.01)
    assert chosen(outcome) == ["strong", "strong", "weak"] * 4
    curve = outcome.noted("curve")
    assert curve["points"][0]["pgr"] == 0 and curve["points"][-1]["pgr"] == 1 and curve["apgr"] > 0.5


def test_an_encoder_has_three_labels_and_a_language_model_five_ratings():
    pool = two(learn=lambda lesson, before: lambda call: (2.0, 1.0, 0.0) if call.kind == "reward" else before(call))
    outcome = run(pool, mode="binary", router="encoder", threshold=0.5)
    _, job = pool.trainings[0]
    assert job.classes == 3 and {row.label for row in job.rows} == {0, 2} and job.lora is None
    shares = outcome.replies["t0"].meta["shares"]
    assert shares["strong"] == pytest.approx(0.665241, abs=1e-6)  # e^2 / (e^2 + e + 1)
    pool = two()
    run(pool, mode="binary", router="causal_lm")
    _, job = pool.trainings[0]
    said = {asked(row.messages[0].content): row.messages[-1].content for row in job.rows}
    assert said == {"count": "1", "spell": "1", "recall": "5"}  # badly where the strong model wins


def test_training_and_asking_show_the_same_prompt():
    pool = experts()
    run(pool, router="causal_lm")
    _, job = pool.trainings[0]
    shown = {row.messages[0].content for row in job.rows}
    read = {call.prompt for call in pool.history if call.kind == "score"}
    assert read and read <= shown


# ---------------------------------------------------------------- targets


def test_a_reward_model_is_asked_about_ties_alone():
    judge = ScriptedPool({"judge": ""})
    pool = ScriptedPool({"a": "the answer is a", "b": "well, the answer is a", "c": expert("count")})
    run(pool, tie="reward_model", reward_model=as_plugin(judge), epochs=2)
    said = {word: {c.prompt for c in judge.history if asked(c.transcript) == word} for word in WORDS}
    both = {"the answer is a", "well, the answer is a"}
    assert said == dict.fromkeys(WORDS, both)  # c's wrong replies tie with nobody's


def test_what_a_reward_model_must_be_is_said_before_any_work():
    with pytest.raises(ConfigError, match="reward_model: missing"):
        Options(tie="reward_model")
    mute = Pool([attrs.evolve(m, capabilities={"generate"}) for m in ScriptedPool({"judge": ""}).pool])
    method = TrainedRouter(Options(tie="reward_model", reward_model=as_plugin(mute)))
    assert "'judge' has no head that scores a conversation" in method.needs().problems(experts().pool)[0]


# ---------------------------------------------------------------- encoders, failures, bad input


def test_a_member_that_only_embeds_reads_the_questions_and_never_answers():
    models = [*experts().pool, attrs.evolve(ScriptedPool({"e": ""}).pool[0], capabilities={"embed"})]
    outcome = run(Pool(models), epochs=60, learning_rate=0.01)
    assert outcome.state["encoders"] == ["e"]
    assert chosen(outcome) == [f"m{q % 3}" for q in range(12)]
    assert outcome.calls_per_question["t0"] == 2


def test_a_question_that_cannot_be_embedded_goes_to_the_best_single_model_and_says_so():
    pool = experts(
        faults=Faults(when=lambda c: c.kind == "embed" and c.given["texts"] == ["count" + 4 * " item"])
    )
    outcome = run(pool, dev=DEV, epochs=2, folds=0)
    assert (
        outcome.warnings[0].startswith("trained_router: ")
        and "dev questions could not be embedded" in outcome.warnings[0]
    )
    assert outcome.replies["t3"].meta["unrouted"].endswith("injected failure")
    assert "unrouted" not in outcome.replies["t4"].meta


def test_rewording_is_told_for_every_kind_of_it():
    """The scripted embedding folds case and spaces, so that these change nothing; a sentence in front does."""
    found = run(experts(), epochs=60, learning_rate=0.01, rewording=True).noted("unchanged")
    assert (found["case"], found["spacing"]) == (1.0, 1.0) and 0 <= found["neutral"] <= 1


@pytest.mark.parametrize("options", [{"epochs": 2}, {"router": "encoder"}, {"router": "sw_ranking"}])
def test_one_dev_question_is_enough_and_said_to_be_little(options):
    outcome = run(experts(), dev=DEV[:1], **options)
    assert len(outcome.replies) == 12
    assert any("one dev question: nothing is held out" in text for text in outcome.warnings)


def test_folds_without_enough_questions_are_fewer():
    outcome = run(experts(), dev=DEV[:3], epochs=2)
    assert "3 dev questions are too few for 5 folds" in outcome.warnings[0]
    assert outcome.noted("judged_by") == "3 folds"


def test_bad_pools_and_options():
    pool = experts().pool

    def problem(models=pool, **options) -> str:
        return "\n".join(TrainedRouter(Options(**options)).needs().problems(models))

    assert "mode: binary chooses between two models" in problem(mode="binary")
    assert "no model 'x' in the pool" in problem(encoder="x")
    assert "model_descriptions: 3 models need as many values, got 1" in problem(model_descriptions=("a",))
    bare = [attrs.evolve(m, capabilities={"generate"}) for m in pool]
    assert "encoder: no model of the pool can return one embedding per text" in problem(bare)
    assert "causal_lm: no model of the pool can be trained" in problem(bare, router="causal_lm")
    assert "base: model 'm1' cannot be trained" in problem(bare, router="encoder", base="m1")
    silent = [attrs.evolve(m, capabilities={"embed"}) for m in pool]
    assert "needs two models that write text, the pool has 0" in problem(silent)
    with pytest.raises(ConfigError, match="no dev examples"):
        run(experts(), dev=[])
    for given, said in (
        ({"router": "mf", "objective": "score"}, "objective: score goes with router=embedding_mlp"),
        ({"mode": "binary", "cost_weight": 0.1}, "cost_weight: goes with mode=nway"),
        ({"threshold": 0.5}, "threshold: goes with mode=binary"),
        ({"val_fraction": 0.5}, "val_fraction: expected"),
    ):
        with pytest.raises(ConfigError, match=said):
            build(Options, given)


# ---------------------------------------------------------------- on real weights


EVERY = [f"m{q % 3}" for q in range(12)]
"""Who is right on the questions asked: the first word decides."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    root = tmp_path_factory.mktemp("bert")
    pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
    folder = random_checkpoints.write_encoder(root / "bert")
    options = {"models": [folder], "device": "cpu", "cache": str(root / "hashes")}
    return pool_of.TransformersPool(build(pool_of.Options, options)).models()[0]


def routed(model, *, reload: bool = True, **options):
    method = TrainedRouter(Options(rewording=False, **options))
    pool = Pool([*experts().pool, model])
    return run_method(method, pool, dev=DEV, questions=TEST, sampling=GREEDY, reload_with=method if reload else None)


@pytest.mark.parametrize("options", [{"epochs": 80, "learning_rate": 0.01}, {"router": "mf", "learning_rate": 0.01}])
def test_a_real_encoder_in_the_pool_embeds_and_its_router_finds_out_who_is_right(bert, options):
    outcome = routed(bert, folds=0, **options)
    assert chosen(outcome) == EVERY and outcome.state["encoders"] == [bert.name]
    assert outcome.noted("routing")["routed"] == outcome.noted("routing")["oracle"] == 1.0
    assert {spent.model for spent in outcome.replies["t0"].spans} <= {"m0", "m1", "m2"}


def test_a_real_encoder_is_trained_to_route_keeps_its_best_epoch_and_is_opened_again(bert, monkeypatch):
    trained = training_here.train_here(monkeypatch)
    outcome = routed(bert, router="encoder", epochs=10, batch=2, learning_rate=3e-3)
    assert chosen(outcome) == EVERY and outcome.noted("judged_by") == "the held-out share"
    (job,) = trained
    assert job.service == "classify" and job.lora is None and job.keep_best and len(job.held_out) == 9
    assert outcome.noted("kept_step") > 0 and "model/model.safetensors" in outcome.files
    # the shares are the softmax of what the engine says of the question alone
    shares = outcome.replies["t0"].meta["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and max(shares, key=shares.get) == "m0"


@pytest.mark.slow
def test_a_language_model_of_the_tiny_pool_is_trained_to_say_who_is_right(tmp_path, monkeypatch):
    pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
    trained = training_here.train_here(monkeypatch)
    options = {"models": [tiny_family.weights("generalist")], "device": "cpu", "cache": str(tmp_path)}
    (model,) = pool_of.TransformersPool(build(pool_of.Options, options)).models()
    outcome = routed(model, router="causal_lm", base="generalist", lora_r=8, epochs=6, batch=2, learning_rate=2e-3)
    assert (
        chosen(outcome) == EVERY
    )  # nobody is sent to the model that is wrong everywhere, which is the router's own base
    (job,) = trained
    assert job.service == "sft" and {row.messages[-1].content for row in job.rows} == {"1", "2", "3"}
    assert "model/adapter_model.safetensors" in outcome.files and outcome.noted("kept_step") > 0


def test_a_plan_tells_what_training_a_router_takes(bert):
    pool = Pool([*experts().pool, bert])
    options = {"router": "encoder", "epochs": 2, "val_fraction": 0.25}
    found = TrainedRouter(Options(**options)).cost_on(pool, 40, Sampling())
    assert found.train_tokens == 2 * 30 * 60 and found.train_memory > 16 * bert.parameters  # float32, all weights
    # five folds: each of five further routers learns from four fifths
    assert (
        TrainedRouter(Options(**options, folds=5)).cost_on(pool, 40, Sampling()).train_tokens == 5 * found.train_tokens
    )
    assert TrainedRouter(Options()).cost_on(pool, 40, Sampling()).train_tokens == 0
