"""Training the base model with its head: the loss by hand, its gradient, resuming, and a method that is fitted so."""

from __future__ import annotations

import json
import math
import threading

import attrs
import pytest
import random_checkpoints
import torch
import training_here
from transformers import AutoModelForCausalLM

from moco_core import CapabilityError, Question, Sampling
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.training import TrainingSite
from moco_method_co_llm import fitting
from moco_method_co_llm.joint import Joint, Scored, head_of
from moco_method_co_llm.joint_loss import Deferring
from moco_method_co_llm.method import CoLLM
from moco_method_co_llm.options import Options
from moco_toolkit_authoring import examples, run_method
from moco_toolkit_training import Lora
from moco_toolkit_training.worker import train

transformers_pool = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
from moco_pool_transformers.training import site_of  # noqa: E402

torch.set_num_threads(1)
SIZE, ENDS = 380, (1, 2)
ROWS = [
    Scored(prompt=[10, 11, 12], ids=[20, 21, 22, 23], assistant=[-0.1, -2.0, -0.5, -3.0, -0.2]),
    Scored(prompt=[10, 13], ids=[24, 25], assistant=[-1.0, -0.3, -4.0]),
    Scored(prompt=[14, 13, 12, 11, 10], ids=[20, 25, 26], assistant=[-0.7, -0.1, -0.1, -0.9]),
]
HEAD = torch.randn(32, generator=torch.Generator().manual_seed(3)).mul(0.01).tolist()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two tiny random Llamas, base and assistant."""
    root = tmp_path_factory.mktemp("co_llm")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 1}
    folders = [random_checkpoints.write(root / f"m{i}", i, **sizes) for i in range(2)]
    options = {"models": folders, "device": "cpu", "cache": str(root / "hashes")}
    return transformers_pool.TransformersPool(build(transformers_pool.Options, options))


def site(pool, folder):
    folder.mkdir(exist_ok=True)
    given = TrainingSite(folder=folder, seed=3, tell=lambda f: None, reward=lambda r: [], cancelled=lambda: False)
    model, engine = pool.models()[0], pool.engine
    return site_of(model, given, engine.entry(model), engine.cpu, engine.options)


def opened(pool):
    return AutoModelForCausalLM.from_pretrained(pool.models()[0].info["spec"].entry["model"]).eval()


def job(**given) -> Joint:
    steps = {"batch": 3, "min_steps": 1, "max_steps": 4, "warmup": 0.0, "schedule": "constant"}
    settings = {"lora": None, "learning_rate": 5e-3, **steps, **given}
    return Joint(rows=ROWS, head=HEAD, size=SIZE, ends=ENDS, **settings)


def by_hand(module, head, rows=ROWS) -> float:
    """The mean of -log((1 - sigma) P_0 + sigma P_1) over all target tokens and ends, one sequence at a time."""
    losses = []
    for row in rows:
        out = module(torch.tensor([[*row.prompt, *row.ids]]), output_hidden_states=True)
        for place, told in enumerate(row.assistant):
            at = len(row.prompt) - 1 + place
            p0 = out.logits[0, at, :SIZE].double().softmax(-1)
            assert float(p0.sum()) == pytest.approx(1)  # the head has no part in it
            base = float(p0[row.ids[place]] if place < len(row.ids) else p0[list(ENDS)].sum())
            sigma = float((out.hidden_states[-1][0, at].double() @ torch.tensor(head).double()).sigmoid())
            losses.append(-math.log((1 - sigma) * base + sigma * math.exp(told)))
    return sum(losses) / len(losses)


def test_the_first_loss_is_the_marginal_likelihood_by_hand_and_both_parts_are_trained(pool, tmp_path):
    base = opened(pool)
    with torch.no_grad():
        wanted = by_hand(base, HEAD)
    figures = train(job(), site(pool, tmp_path / "a"))
    assert figures["first_loss"] == pytest.approx(wanted, abs=1e-5) and figures["loss"] < wanted - 0.1
    folder = tmp_path / "a" / "model"
    head = json.loads((folder / "deferral_head.json").read_text())
    assert all(a != b for a, b in zip(head, HEAD, strict=True))
    trained = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        assert by_hand(trained, head) < figures["loss"]
    # parts of an update weigh by their positions, not by their number
    parts = train(job(), site(pool, tmp_path / "b"), most=1)
    assert parts["micro_batch"] == 1
    assert [h["loss"] for h in parts["history"]] == pytest.approx([h["loss"] for h in figures["history"]], abs=1e-4)


def test_where_both_models_agree_the_head_has_no_gradient(pool):
    base = opened(pool)
    ids = torch.tensor([[10, 11, 12, 20]])
    with torch.no_grad():
        scores = base(ids).logits[0, :, :SIZE].log_softmax(-1)
    labels = torch.tensor([[-100, 12, 20, SIZE]])
    same = torch.stack([torch.zeros(()), scores[1, 12], scores[2, 20], scores[3, list(ENDS)].logsumexp(-1)])[None]
    module = Deferring(base, HEAD, SIZE, ENDS)
    found = module(ids, torch.ones_like(ids), labels, same)["loss"]
    found.backward()
    assert module.head.grad.abs().max() < 1e-5 < base.get_output_embeddings().weight.grad.abs().max()
    assert float(found.detach()) == pytest.approx(-float(same[0, 1:].mean()), abs=1e-5)  # plain cross-entropy


@pytest.mark.parametrize("lora", [pytest.param(None, marks=pytest.mark.slow), Lora(r=4)])
def test_a_training_that_was_stopped_goes_on_with_its_head_to_the_same_end(pool, tmp_path, lora):
    class Stop(Exception):
        pass

    def stop(trainer):
        inner = trainer.training_step

        def broken(*args, **kwargs):
            if trainer.state.global_step == 2:
                raise Stop
            return inner(*args, **kwargs)

        trainer.training_step = broken

    given = job(lora=lora)
    train(given, site(pool, tmp_path / "whole"))
    with pytest.raises(Stop):
        train(given, site(pool, tmp_path / "cut"), interval=0.0, prepare=stop)
    assert train(given, site(pool, tmp_path / "cut"))["resumed_at"] == 2
    names = ["deferral_head.json", "adapter_model.safetensors" if lora else "model.safetensors"]
    for name in names:
        whole, cut = ((tmp_path / part / "model" / name).read_bytes() for part in ("whole", "cut"))
        assert whole == cut


QUICK = {"targets": "gold", "epochs": 2, "quantiles": 2, "base_batch": 2, "base_learning_rate": 5e-3}
KEYWORDS = {
    "dev": examples(4, prefix="d"),
    "questions": [Question(id="q", prompt="the quick brown")],
    "sampling": Sampling(max_new_tokens=6),
}


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_the_trained_base_writes_is_trained_once_for_its_settings_and_is_opened_again(
    pool, tmp_path, monkeypatch, kind
):
    trained = training_here.train_here(monkeypatch)
    method = CoLLM(Options(**QUICK, train=kind))
    cache = Cache(tmp_path / "calls.sqlite")
    seen = []
    needs = method.needs()
    allowed = frozenset(needs.capabilities) | needs.optional
    first = run_method(method, pool, cache=cache, after_fit=seen.append, allowed=allowed, **KEYWORDS)
    again = run_method(method, pool, cache=cache, reload_with=method, after_fit=seen.append, **KEYWORDS)
    assert len(trained) == 1 and trained[0].service == "co_llm" and len(trained[0].rows) == 3  # one of four is held out
    assert first.texts == again.texts and first.state == again.state and first.calls == again.calls
    one, other = seen
    assert list(other.head) == pytest.approx(list(one.head), abs=1e-6)
    assert list(one.head) == pytest.approx(list(head_of(one.trained)), abs=1e-6)
    assert "m0-deferring" in first.replies["q"].meta["tokens"]
    run_method(CoLLM(attrs.evolve(method.options, base_epochs=1)), pool, cache=cache, **KEYWORDS)
    assert len(trained) == 2  # another setting, another base


def test_with_its_threshold_at_one_the_trained_base_answers_alone(pool, tmp_path, monkeypatch):
    training_here.train_here(monkeypatch)
    seen = []
    options = Options(**QUICK, train="full", deferral_threshold=1.0)
    outcome = run_method(CoLLM(options), pool, after_fit=seen.append, cache=Cache(tmp_path / "c.sqlite"), **KEYWORDS)
    module = AutoModelForCausalLM.from_pretrained(seen[0].trained.recipe.folder).eval()
    with pool.engine.use(pool.models()[0]) as (loaded,):
        prompt = list(loaded.render(KEYWORDS["questions"][0].messages()).ids)
        ends = {1, 2}
        wrote = module.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=6, eos_token_id=sorted(ends), pad_token_id=0
        )
        kept = [i for i in wrote[0, len(prompt) :].tolist() if i not in ends]
        assert outcome.texts["q"] == loaded.decode(kept)
    assert outcome.replies["q"].meta["tokens"]["m1"] == {"read": 0, "written": 0}


def test_what_is_computed_about_the_trained_base_leaves_the_loop_free(pool, tmp_path, monkeypatch):
    training_here.train_here(monkeypatch)
    judge, threads = fitting._judge, []

    def watched(*args):
        threads.append(threading.current_thread())
        return judge(*args)

    monkeypatch.setattr(fitting, "_judge", watched)
    run_method(CoLLM(Options(**QUICK, train="lora")), pool, cache=Cache(tmp_path / "c.sqlite"), **KEYWORDS)
    assert len(threads) == 1 and threads[0] is not threading.current_thread()  # this one, which runs the loop


def test_a_plan_tells_what_training_takes(pool):
    models = pool.models()
    method = CoLLM(Options(**QUICK, train="full", held_out=0.25))
    found = method.cost_on(models, 8, Sampling(max_new_tokens=10))
    assert found.train_tokens == 2 * 6 * (150 + 5) and found.train_memory > models[0].parameters * 16
    assert CoLLM(Options()).cost_on(models, 8, Sampling()).train_tokens == 0


def test_a_base_that_cannot_be_trained_is_refused_in_one_line(pool):
    models = [attrs.evolve(m, capabilities=m.capabilities - {"train"}) for m in pool.models()]
    problem = CoLLM(Options(train="full")).needs().problems(models)[0]
    assert "train: model 'm0' cannot be trained (capability 'train'), which train=full needs" in problem
    with pytest.raises(CapabilityError, match="train=lora needs"):
        run_method(CoLLM(Options(train="lora")), models, **KEYWORDS)
