"""Classifiers, reward models and rankers: first losses in closed form, toys that are learnt, results that give rewards."""

from __future__ import annotations

import asyncio
import math

import attrs
import pytest
import torch
from safetensors.torch import load_file
from training_lab import DUELS, JOBS, PAIRS, WORDS, digest_of

from moco_core import ConfigError
from moco_core.options import build
from moco_core.types import Message
from moco_pool_transformers.pool import Options, TransformersPool
from moco_toolkit_authoring import open_state
from moco_toolkit_training import Classify, Duel, Labelled, Preference, Rank, Reward, pairing, stages
from moco_toolkit_training.keeping import stage_steps

WELL = {"learning_rate": 2e-2, "batch": 8, "min_steps": 1, "max_steps": 12, "warmup": 0.0}


def rewards(model, conversations):
    async def work():
        async with open_state() as state:
            context = state.context("fit")
            return await context.gather(context.reward(model, turns) for turns in conversations)

    return asyncio.run(work())


def test_a_classifier_starts_at_the_log_of_its_classes_and_learns_what_can_be_separated(lab):
    figures, folder = lab.train(Classify(rows=WORDS, classes=2, **WELL))
    assert figures["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    model = lab.derive(folder)
    assert {"reward", "embed", "train"} <= model.capabilities and not model.can("generate")
    found = rewards(model, [row.messages for row in WORDS])
    assert [scores.index(max(scores)) for scores in found] == [row.label for row in WORDS]
    assert load_file(folder / "model.safetensors")["score.weight"].abs().sum() > 0  # the head is in the files


def test_a_head_on_a_model_with_an_adapter_starts_from_both_merged(lab):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, adapter = lab.train(JOBS["sft"])
    still = attrs.evolve(JOBS["classify"], learning_rate=1e-30)
    _, folder = lab.train(still, lab.derive(adapter))
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lab.base), adapter).merge_and_unload()
    want, found = merged.state_dict(), load_file(folder / "model.safetensors")
    shared = [name for name in found if name in want]
    assert len(shared) > 10 and all(torch.allclose(found[n], want[n], atol=1e-6) for n in shared)
    base = load_file(f"{lab.base}/model.safetensors")
    assert any(not torch.allclose(found[n], base[n], atol=1e-4) for n in shared if n in base)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "DistilBert"])
def test_an_encoder_becomes_a_classifier(lab, kind, tmp_path):
    import random_checkpoints

    random_checkpoints.write_encoder(tmp_path, kind)
    options = {"models": [str(tmp_path)], "device": "cpu", "cache": str(tmp_path / "hashes")}
    (encoder,) = TransformersPool(build(Options, options)).models()
    assert encoder.can("embed") and not encoder.can("generate")
    _, folder = lab.train(Classify(rows=WORDS, classes=2, **WELL), encoder)
    found = rewards(lab.derive(folder, encoder), [row.messages for row in WORDS])
    assert [scores.index(max(scores)) for scores in found] == [row.label for row in WORDS]


def test_soft_labels_that_say_one_class_are_hard_labels_and_halves_are_a_loss_of_ln_2(lab):
    hard = JOBS["classify"]
    soft = attrs.evolve(hard, rows=[Labelled(messages=r.messages, label=r.probabilities(2)) for r in WORDS])
    assert digest_of(lab.train(hard)[1]) == digest_of(lab.train(soft)[1])
    even = attrs.evolve(hard, rows=[Labelled(messages=r.messages, label=(0.5, 0.5)) for r in WORDS], lora=None)
    assert {round(h["loss"], 6) for h in lab.train(even)[0]["history"]} == {round(math.log(2), 6)}


def test_how_an_update_is_cut_into_parts_does_not_weigh_rows(lab):
    job = Classify(rows=[*WORDS, WORDS[0]], classes=2, lora=None, **{**WELL, "max_steps": 2, "batch": 9})
    losses = [[h["loss"] for h in lab.train(job, how={"most": most})[0]["history"]] for most in (9, 3)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_reward_model_starts_at_ln_2_prefers_what_was_chosen_and_is_trained_further(lab):
    figures, folder = lab.train(Reward(rows=PAIRS, **WELL))
    assert figures["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    model = lab.derive(folder)
    turns = [(*p.prompt, Message("assistant", text)) for p in PAIRS for text in (p.chosen, p.rejected)]
    found = [r for (r,) in rewards(model, turns)]
    assert all(good > bad for good, bad in zip(found[::2], found[1::2], strict=True))
    # as the loss is defined, on what the engine says
    loss = -sum(math.log(1 / (1 + math.exp(b - a))) for a, b in zip(found[::2], found[1::2], strict=True)) / len(PAIRS)
    again, further = lab.train(attrs.evolve(Reward(rows=PAIRS, **WELL), lora=None, max_steps=1), model)
    assert again["first_loss"] == pytest.approx(loss, abs=1e-4)
    assert digest_of(further) != digest_of(folder)
    with pytest.raises(ConfigError, match="its head has 1 outputs and classify needs 2"):
        lab.train(JOBS["classify"], model)


def test_a_ranker_reads_both_candidates_and_prefers_the_better_one_in_either_order(lab):
    figures, folder = lab.train(Rank(rows=DUELS, **{**WELL, "max_steps": 20}))
    assert figures["rows"] == 2 * len(DUELS) and figures["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    model = lab.derive(folder)
    asked = [pairing(d.query, *pair) for d in DUELS for pair in ((d.a, d.b), (d.b, d.a))]
    left = [first > second for first, second in rewards(model, asked)]
    assert left == [True, False] * len(DUELS)


def test_binary_cross_entropy_on_the_difference_is_what_a_ranker_minimises():
    scores, label = torch.tensor([[1.3, -0.4]]), 0.8
    two = torch.nn.functional.cross_entropy(scores, torch.tensor([[label, 1 - label]]))
    one = torch.nn.functional.binary_cross_entropy_with_logits(scores[:, 0] - scores[:, 1], torch.tensor([label]))
    assert float(two) == pytest.approx(float(one), abs=1e-6)


def test_heads_without_rows_are_refused_and_lost_rows_are_named(lab):
    for job in (Classify(rows=[], classes=2), Reward(rows=[]), Rank(rows=[])):
        with pytest.raises(ConfigError, match="no rows"):
            lab.train(job)
    same = Preference(prompt="Hi", chosen="a", rejected="a")
    with pytest.raises(ConfigError, match=r"reward: no row is left of 1 \(equal replies\)"):
        lab.train(Reward(rows=[same]))
    figures, _ = lab.train(attrs.evolve(JOBS["classify"], classes=3, max_steps=1))
    assert figures["warnings"] == ["no row has the class 2: it will never be chosen with reason"]
    assert Duel(query="q", a="x", b="y", label=1).label == 1


@pytest.mark.parametrize("name", ["sft", "rank"])
def test_stages_are_what_shorter_trainings_give_and_change_nothing_of_the_last(lab, name):
    """Adapters, and a head whose adapter is merged into a copy: with a constant rate, step 2 of 4 is the end of 2."""
    job = attrs.evolve(JOBS[name], schedule="constant", warmup=0.0, max_steps=4)
    _, folder = lab.train(attrs.evolve(job, keep=2))
    model = lab.derive(folder)
    early, last = stages(model)
    assert last is model and early.name == "trained@2"
    assert digest_of(folder) == digest_of(lab.train(job)[1])
    assert digest_of(early.recipe.folder) == digest_of(lab.train(attrs.evolve(job, max_steps=2))[1])
    (same,) = stages(lab.derive(lab.train(job)[1]))
    assert same.name == "trained"
    assert stage_steps(4, 3) == [1, 3] and stage_steps(2, 8) == [1] and stage_steps(1, 2) == []
