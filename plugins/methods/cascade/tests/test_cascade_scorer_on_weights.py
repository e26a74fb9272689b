"""The scorer on real weights: a random BERT in the pool, and a language model of the tiny pool."""

from __future__ import annotations

import pytest
import random_checkpoints
import training_here
from test_cascade_scorer import DEV, GREEDY, TEST, pool

from moco_core import Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_cascade.method import Cascade
from moco_method_cascade.options import Options
from moco_toolkit_authoring import run_method

pool_of = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
SETTINGS = {"confidence": "scorer", "scorer_epochs": 4, "scorer_learning_rate": 5e-3}


def run(models, **options):
    method = Cascade(Options(**SETTINGS, **options))
    return run_method(method, Pool(models), dev=DEV, questions=TEST, sampling=GREEDY, reload_with=method)


def right(outcome) -> None:
    """The weak model says `surely` where it is right: these replies stop there, the others go on."""
    assert [outcome.replies[f"t{q}"].meta["model"] for q in range(6)] == ["weak", "strong"] * 3
    assert outcome.noted("levels")[0]["auroc"] == 1.0 and outcome.noted("thresholds_set_on") == 10
    assert "scorer0/model.safetensors" in outcome.files


def test_a_real_encoder_that_is_no_level_scores_the_replies(tmp_path, monkeypatch):
    trained = training_here.train_here(monkeypatch)
    folder = random_checkpoints.write_encoder(tmp_path / "bert")
    options = {"models": [folder], "device": "cpu", "cache": str(tmp_path / "hashes")}
    (bert,) = pool_of.TransformersPool(build(pool_of.Options, options)).models()
    outcome = run([*pool().pool, bert], scorer=bert.name)
    right(outcome)
    assert len(trained) == 1 and trained[0].lora is not None and trained[0].service == "classify"


def test_a_language_model_of_the_tiny_pool_scores_the_replies(monkeypatch):
    tiny = pytest.importorskip("moco_pool_tiny.pool", reason="the pool tiny is not installed")
    training_here.train_here(monkeypatch)
    (model,) = tiny.TinyPool(build(tiny.Options, {"models": ["generalist"]})).models()
    outcome = run([model, *pool().pool], scorer="generalist")
    assert outcome.noted("levels")[0]["model"] == "generalist"


def test_a_plan_tells_what_training_the_scorers_takes():
    models = pool().pool
    found = Cascade(Options(**SETTINGS, scorer_share=0.25)).cost_on(models, 40, Sampling(max_new_tokens=20))
    assert found.train_tokens == 4 * 10 * (60 + 10)  # one level has a scorer
    assert Cascade(Options()).cost_on(models, 40, Sampling()).train_tokens == 0
