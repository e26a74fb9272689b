"""Routers on real weights: a random BERT that embeds or is trained, and a language model of the tiny pool."""

from __future__ import annotations

import pytest
import random_checkpoints
import training_here
from test_method_trained_router import DEV, GREEDY, TEST, chosen, experts

from moco_core import Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_trained_router.method import TrainedRouter
from moco_method_trained_router.options import Options
from moco_toolkit_authoring import run_method

pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
EVERY = [f"m{q % 3}" for q in range(12)]
"""Who is right on the questions asked: the first word decides."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    root = tmp_path_factory.mktemp("bert")
    folder = random_checkpoints.write_encoder(root / "bert")
    options = {"models": [folder], "device": "cpu", "cache": str(root / "hashes")}
    return pool_of.TransformersPool(build(pool_of.Options, options)).models()[0]


def run(model, *, reload: bool = True, **options):
    method = TrainedRouter(Options(rewording=False, **options))
    pool = Pool([*experts().pool, model])
    return run_method(method, pool, dev=DEV, questions=TEST, sampling=GREEDY, reload_with=method if reload else None)


@pytest.mark.parametrize("options", [{"epochs": 80, "learning_rate": 0.01}, {"router": "mf", "learning_rate": 0.01}])
def test_a_real_encoder_in_the_pool_embeds_and_its_router_finds_out_who_is_right(bert, options):
    outcome = run(bert, folds=0, **options)
    assert chosen(outcome) == EVERY and outcome.state["encoders"] == [bert.name]
    assert outcome.noted("routing")["routed"] == outcome.noted("routing")["oracle"] == 1.0
    assert {spent.model for spent in outcome.replies["t0"].spans} <= {"m0", "m1", "m2"}


def test_a_real_encoder_is_trained_to_route_keeps_its_best_epoch_and_is_opened_again(bert, monkeypatch):
    trained = training_here.train_here(monkeypatch)
    outcome = run(bert, router="encoder", epochs=8, batch=4, learning_rate=5e-3)
    assert chosen(outcome) == EVERY and outcome.noted("judged_by") == "the held-out share"
    (job,) = trained
    assert job.service == "classify" and job.lora is None and job.keep_best and len(job.held_out) == 9
    assert outcome.noted("kept_step") > 0 and "model/model.safetensors" in outcome.files
    # the shares are the softmax of what the engine says of the question alone
    shares = outcome.replies["t0"].meta["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and max(shares, key=shares.get) == "m0"


def test_a_language_model_of_the_tiny_pool_is_trained_to_say_who_is_right(monkeypatch):
    tiny = pytest.importorskip("moco_pool_tiny.pool", reason="the pool tiny is not installed")
    trained = training_here.train_here(monkeypatch)
    (model,) = tiny.TinyPool(build(tiny.Options, {"models": ["generalist"]})).models()
    outcome = run(model, router="causal_lm", base="generalist", lora_r=8, epochs=4, batch=4, learning_rate=5e-3)
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
