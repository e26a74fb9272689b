"""The trained scorer: what it learns from, what thresholds are set on, and how it is kept, on scripted models."""

from __future__ import annotations

import attrs
import pytest
import random_checkpoints
import tiny_family
import training_here

from moco_core import Example, Question, Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_cascade.method import Cascade
from moco_method_cascade.options import Options
from moco_toolkit_authoring import ScriptedPool, run_method

DEV = [Example(question=Question(id=f"d{q}", prompt=f"item {q}?"), references=("a",)) for q in range(20)]
TEST = [Question(id=f"t{q}", prompt=f"item {q + 100}?") for q in range(6)]
GREEDY = Sampling(temperature=0.0, max_new_tokens=16)


def weak(call):
    """Right on even items, and it shows: it says `surely` there."""
    even = int(call.prompt.strip("item ?")) % 2 == 0
    return "surely the answer is a" if even else "maybe the answer is b"


def taught(lesson, before):
    """A scorer that learnt which replies were right, by their first word."""
    known = {row["messages"][-1]["content"].split()[0]: row["label"] for row in lesson["rows"]}

    def script(call):
        if call.kind != "reward":
            return before(call)
        wrong, right = known[call.messages[-1].content.split()[0]]
        return (4.0 * wrong, 4.0 * right)

    return script


def pool() -> ScriptedPool:
    return ScriptedPool({"weak": weak, "strong": lambda call: "the answer is a"}, learn=taught)


def run(given, method=None, **options):
    method = method or Cascade(Options(confidence="scorer", **options))
    return run_method(method, given, dev=DEV, questions=TEST, sampling=GREEDY, reload_with=method)


def test_right_replies_stop_at_the_weak_model_and_others_go_on_and_so_after_saving():
    given = pool()
    outcome = run(given)
    assert [outcome.replies[f"t{q}"].meta["model"] for q in range(6)] == ["weak", "strong"] * 3
    level = outcome.replies["t0"].meta["levels"][0]
    assert level["confidence"] == pytest.approx(0.982, abs=1e-3)  # 1 / (1 + e^-4)
    assert outcome.noted("levels")[0]["auroc"] == 1.0 and outcome.files == ("scorer0/scripted.json",)


def test_a_scorer_sees_its_share_of_dev_and_thresholds_are_set_on_the_rest():
    given = pool()
    outcome = run(given, scorer_share=0.7)
    ((trained, job),) = given.trainings
    assert trained == "weak" and job.service == "classify" and len(job.rows) == 14
    assert outcome.noted("thresholds_set_on") == 6
    seen = {row.messages[0].content for row in job.rows}
    judged = {c.messages[0].content for c in given.history if c.kind == "reward"}
    assert not seen & judged


def test_labels_are_scores_and_a_row_is_the_question_with_the_reply():
    given = pool()
    run(given)
    _, job = given.trainings[0]
    for row in job.rows:
        assert [m.role for m in row.messages] == ["user", "assistant"]
        assert row.label == ((0.0, 1.0) if row.messages[1].content.startswith("surely") else (1.0, 0.0))


def test_every_level_but_the_last_has_a_scorer_of_its_own():
    given = ScriptedPool({"a": weak, "b": lambda call: f"{weak(call)} !", "c": weak}, learn=taught)
    run(given, scorer="b")
    assert [name for name, _ in given.trainings] == ["b", "b"]


def test_a_pool_that_cannot_train_is_refused_with_what_would_help():
    bare = [attrs.evolve(m, capabilities={"generate", "logprobs"}) for m in pool().pool]
    problems = Cascade(Options(confidence="scorer")).needs().problems(bare)
    assert "scorer: no model of the pool can be trained (capability 'train')" in problems[0]
    problems = Cascade(Options(confidence="scorer", scorer="x")).needs().problems(pool().pool)
    assert "scorer: no model 'x' in the pool" in problems[0]


# ---------------------------------------------------------------- on real weights


SETTINGS = {"confidence": "scorer", "scorer_epochs": 4, "scorer_learning_rate": 5e-3}


def scored(models, **options):
    method = Cascade(Options(**SETTINGS, **options))
    return run_method(method, Pool(models), dev=DEV, questions=TEST, sampling=GREEDY, reload_with=method)


def right(outcome) -> None:
    """The weak model says `surely` where it is right: these replies stop there, the others go on."""
    assert [outcome.replies[f"t{q}"].meta["model"] for q in range(6)] == ["weak", "strong"] * 3
    assert outcome.noted("levels")[0]["auroc"] == 1.0 and outcome.noted("thresholds_set_on") == 10
    assert "scorer0/model.safetensors" in outcome.files


def test_a_real_encoder_that_is_no_level_scores_the_replies(tmp_path, monkeypatch):
    trained = training_here.train_here(monkeypatch)
    pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
    folder = random_checkpoints.write_encoder(tmp_path / "bert")
    options = {"models": [folder], "device": "cpu", "cache": str(tmp_path / "hashes")}
    (bert,) = pool_of.TransformersPool(build(pool_of.Options, options)).models()
    outcome = scored([*pool().pool, bert], scorer=bert.name)
    right(outcome)
    assert len(trained) == 1 and trained[0].lora is not None and trained[0].service == "classify"


@pytest.mark.slow  # trains a whole model of the tiny pool
def test_a_language_model_of_the_tiny_pool_that_is_a_level_itself_scores_the_replies(tmp_path, monkeypatch):
    pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
    trained = training_here.train_here(monkeypatch)
    options = {"models": [tiny_family.weights("generalist")], "device": "cpu", "cache": str(tmp_path)}
    (model,) = pool_of.TransformersPool(build(pool_of.Options, options)).models()
    outcome = scored([*pool().pool, model], scorer="generalist", scorer_share=0.5, accept_fraction=(0.5, 0.9))
    assert [job.service for job in trained] == ["classify"] * 2  # the last level accepts unseen
    assert outcome.noted("levels")[0]["auroc"] == 1.0 and outcome.noted("levels")[2]["model"] == "generalist"
    believed = [outcome.replies[f"t{q}"].meta["levels"][0]["confidence"] for q in range(6)]
    assert min(believed[::2]) > 0.9 and max(believed[1::2]) < 0.1  # right on even items


def test_a_plan_tells_what_training_the_scorers_takes():
    models = pool().pool
    found = Cascade(Options(**SETTINGS, scorer_share=0.25)).cost_on(models, 40, Sampling(max_new_tokens=20))
    assert found.train_tokens == 4 * 10 * (60 + 10)  # one level has a scorer
    assert Cascade(Options()).cost_on(models, 40, Sampling()).train_tokens == 0
