"""Models that write text: first losses in closed form, lineage over rounds, results that are opened as what was trained."""

from __future__ import annotations

import asyncio
import json
import math

import attrs
import pytest
import torch
from training_lab import FAST, JOBS, PAIRS, SMALL, demonstrations, digest_of

from moco_core import CapabilityError, ConfigError
from moco_core.options import build
from moco_core.types import Message
from moco_pool_transformers.pool import Options, TransformersPool
from moco_toolkit_training import Demonstration, Dpo, Lora, Preference, Sft
from moco_toolkit_training.encoding import IGNORED, encode
from moco_toolkit_training.opening import renderer_of

STILL = Lora(dropout=0.0)
"""An adapter without dropout: every loss has a closed form."""


@pytest.fixture(scope="module")
def tuned(lab):
    """One SFT of three steps on all rows at once, and the trainer that did it."""
    seen = []
    job = Sft(rows=demonstrations(), lora=STILL, batch=8, min_steps=1, max_steps=3, learning_rate=1e-2, warmup=0)
    figures, folder = lab.train(job, how={"prepare": seen.append})
    return job, figures, folder, seen[0]


def sequences(lab, job):
    renderer = renderer_of(lab.site())
    return encode(job, job.rows, renderer, None)


def in_memory(trainer):
    """What the trainer's own module, as it was left, computes for the text of ``Lab.logits``."""
    ids = trainer.processing_class("The quick brown fox", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return trainer.model.eval()(input_ids=torch.tensor([ids])).logits[0]


def nll(lab, model, found):
    """The mean negative log-likelihood of all learnt tokens, by the engine's own forward."""
    total, count = 0.0, 0
    for ids, labels in zip(found.columns["input_ids"], found.columns["labels"], strict=True):
        with lab.pool.engine.use(model) as (loaded,):
            logp = loaded.run(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        for place, label in enumerate(labels):
            if label != IGNORED:
                total -= logp[place - 1, label].item()
                count += 1
    return total / count


def test_the_first_loss_of_sft_is_the_mean_over_the_learnt_tokens_and_it_falls(lab, tuned):
    job, figures, folder, _ = tuned
    assert figures["first_loss"] == pytest.approx(nll(lab, lab.model, sequences(lab, job)), abs=1e-5)
    assert figures["loss"] < figures["first_loss"] - 0.1
    assert nll(lab, lab.derive(folder), sequences(lab, job)) < figures["loss"]
    assert (figures["rows"], figures["batch"], figures["steps"], figures["dtype"]) == (8, 8, 3, "float32")
    assert figures["train_tokens"] == 3 * sequences(lab, job).tokens
    base, lora = 2 * 13_000, figures["parameters_trained"]
    assert figures["train_flops"] > 2 * figures["train_tokens"] * (base + lora)


def test_what_is_opened_again_is_what_was_trained_to_the_bit(lab, tuned):
    _, _, folder, trainer = tuned
    assert torch.equal(lab.logits(lab.derive(folder)), in_memory(trainer))


def test_without_its_adapter_a_trained_model_is_the_base_and_merged_it_is_itself(lab, tuned):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    _, _, folder, _ = tuned
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(lab.base), folder).eval()
    ids = torch.arange(10, 20)[None]
    base = AutoModelForCausalLM.from_pretrained(lab.base).eval()(input_ids=ids).logits
    with model.disable_adapter():
        assert torch.equal(model(input_ids=ids).logits, base)
    with_it = model(input_ids=ids).logits
    assert not torch.equal(with_it, base)
    assert (model.merge_and_unload()(input_ids=ids).logits - with_it).abs().max() < 1e-4 * with_it.abs().max()


def test_rounds_go_on_from_the_adapter_that_is_there_and_each_is_opened_as_trained(lab, tuned, tmp_path):
    """The two ways to lose a round: replacing the adapter that was loaded, and saving a new one for a merged base."""
    job, _, folder, _ = tuned
    model, rounds = lab.derive(folder), [digest_of(folder)]
    later = attrs.evolve(job, max_steps=2)
    for _ in range(2):
        seen = []
        start = nll(lab, model, sequences(lab, later))
        figures, folder = lab.train(later, model, how={"prepare": seen.append})
        assert figures["goes_on"] and figures["first_loss"] == pytest.approx(start, abs=1e-5)  # not the base's loss
        folder = lab.moved(folder)
        model = lab.derive(folder, lab.model)
        assert torch.equal(lab.logits(model), in_memory(seen[0]))
        rounds.append(digest_of(folder))
    assert len(set(rounds)) == 3


def test_the_same_seed_trains_the_same_weights_and_another_does_not(lab):
    hashes = [digest_of(lab.train(JOBS["sft"], seed=seed)[1]) for seed in (7, 7, 8)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_trained_prompt_is_answered_as_shown_after_enough_steps(lab):
    from moco_core.types import Sampling
    from moco_toolkit_authoring import open_state

    rows = demonstrations(2)
    _, folder = lab.train(Sft(rows=rows, lora=None, learning_rate=1e-2, max_steps=30, batch=2, min_steps=1))
    model = lab.derive(folder)

    async def ask():
        async with open_state(sampling=Sampling(max_new_tokens=16)) as state:
            context = state.context("fit")
            said = await context.gather(context.generate(model, row.messages[0].content) for row in rows)
            (score,) = await context.score(model, rows[0].messages[0].content, ["The answer is 3."])
            return said, score

    said, score = asyncio.run(ask())
    assert [g.text for g in said] == [row.messages[1].content for row in rows]
    assert {g.finish_reason for g in said} == {"eos"}  # it learnt to stop
    assert score.logprob > math.log(0.25)
    assert {"generate", "score", "step", "weights", "train"} <= model.capabilities and not model.adapter
    assert lab.pool.engine.weights(model).names == lab.pool.engine.weights(lab.model).names
    assert model.tokenizer == lab.model.tokenizer and model.architecture == lab.model.architecture


def test_training_all_weights_of_a_model_with_an_adapter_starts_from_both(lab, tuned):
    job, _, folder, _ = tuned
    model = lab.derive(folder)
    whole = attrs.evolve(job, lora=None, max_steps=1, learning_rate=1e-3)
    figures, result = lab.train(whole, model)
    assert figures["first_loss"] == pytest.approx(nll(lab, model, sequences(lab, job)), abs=1e-5)
    assert (result / "config.json").exists() and not (result / "adapter_config.json").exists()


def test_an_export_is_opened_by_transformers_and_peft_alone(lab, tuned, tmp_path):
    from peft import AutoPeftModelForCausalLM

    _, _, folder, _ = tuned
    model = lab.derive(folder)
    lab.pool.engine.export(model, tmp_path / "out")
    opened = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with lab.pool.engine.use(model) as (loaded,):
        ids = torch.tensor([loaded.encode("The quick brown fox")])
    assert torch.equal(opened(input_ids=ids).logits[0], lab.logits(model))


def test_an_adapter_is_refused_over_other_weights_than_it_was_trained_on(lab, tuned, tmp_path):
    import random_checkpoints

    job, _, folder, _ = tuned
    record = json.loads((folder / "moco_training.json").read_text())
    assert (record["base"], record["service"], record["job"]) == (lab.base, "sft", job.fingerprint)
    other = random_checkpoints.write(tmp_path / "other", 1, **SMALL)  # equal shapes: nothing else would notice
    pool = TransformersPool(
        build(Options, {"models": [{"model": other, "adapter": str(folder)}], "device": "cpu", "cache": str(tmp_path)})
    )
    with pytest.raises(ConfigError, match=r"was trained on other weights than those of .*other; give the base"):
        pool.models()


def test_dpo_starts_at_ln_2_and_margin_0_in_every_round_and_its_margin_rises(lab):
    job = Dpo(rows=PAIRS, batch=8, min_steps=1, max_steps=3, learning_rate=1e-2, warmup=0)
    model, held = lab.model, []
    spy = {"prepare": lambda trainer: held.append(set(trainer.model.peft_config))}
    for _ in range(2):  # the reference of a round is where the round starts
        figures, folder = lab.train(job, model, how=spy)
        first, *_, last = figures["history"]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["margin"] == pytest.approx(0, abs=1e-6)
        assert last["margin"] > 0.05 and last["loss"] < math.log(2)
        model = lab.derive(folder)
    assert held == [{"default"}, {"default", "ref"}]  # a new adapter starts at its base, of which no copy is needed
    swapped = [Preference(prompt=p.prompt, chosen=p.rejected, rejected=p.chosen) for p in PAIRS]
    figures, _ = lab.train(attrs.evolve(job, rows=swapped, max_steps=2))
    assert figures["history"][1]["margin"] > 0  # the other way round, too: what is preferred becomes likelier
    straight, _ = lab.train(attrs.evolve(job, max_steps=1))
    grad = figures["history"][0]["grad_norm"]
    assert grad == pytest.approx(straight["history"][0]["grad_norm"], rel=1e-4)  # from equal margins: the mirror image


def test_the_gradient_of_dpo_is_that_of_its_closed_form(lab):
    """Both ways from one start, with all weights: -log sigmoid(beta * margin), margin 0, so the factor is beta / 2."""
    from transformers import AutoModelForCausalLM

    pair, beta, rate = PAIRS[0], 0.3, 1e-3
    job = Dpo(rows=[pair], beta=beta, lora=None, max_steps=1, learning_rate=rate, clip=1e9, warmup=0)
    figures, _ = lab.train(job)
    found = encode(job, [pair], renderer_of(lab.site()), None).columns
    model = AutoModelForCausalLM.from_pretrained(lab.base)
    prompt = found["prompt_ids"][0]

    def logp(reply):
        ids = torch.tensor([prompt + reply])
        scores = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return scores.gather(-1, torch.tensor(reply)[:, None]).sum()

    (-beta / 2 * (logp(found["chosen_ids"][0]) - logp(found["rejected_ids"][0]))).backward()
    norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in model.parameters()))
    assert figures["history"][0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    half, _ = lab.train(attrs.evolve(job, beta=1e-6))
    assert half["history"][0]["grad_norm"] == pytest.approx(norm * 1e-6 / beta, rel=1e-3)  # beta to 0 moves nothing


def test_few_rows_or_none_have_outcomes_of_their_own(lab):
    assert lab.train(Sft(rows=[]))[0]["skipped"] == "no rows"
    gone, folder = lab.train(Sft(rows=[Demonstration.of("Hi", "")]))
    assert gone["skipped"] == "no row is left of 1 (empty reply)" and not folder.exists()
    assert gone["warnings"] == ["1 rows are left out: empty reply"]
    one, _ = lab.train(Sft(rows=demonstrations(1), epochs=2))
    assert (one["rows"], one["steps"], one["batch"]) == (1, 2, 1)


def test_batches_shrink_for_few_rows_and_are_made_of_equal_parts():
    from moco_toolkit_training.trainers import setting

    def of(rows, most=8, **given):
        how = setting(Sft(rows=[], **given), rows, most)
        return how.batch, how.micro, how.accumulation, how.steps

    assert of(1000) == (16, 8, 2, 189)  # 63 updates an epoch
    assert of(100) == (8, 8, 1, 39)  # 16 would make 7 updates, and 10 are wanted
    assert of(3) == (1, 1, 1, 9)
    assert of(1000, most=3) == (16, 2, 8, 189)
    assert of(1000, batch=12) == (12, 6, 2, 252)
    assert setting(Sft(rows=[], warmup=0.1, max_steps=200), 1000, 8).warmup == 20


def test_held_out_rows_are_measured_and_not_learnt(lab):
    row = Demonstration.of("Say a word.", "apple pear plum")
    job = Sft(rows=demonstrations(), lora=STILL, held_out=[row], **FAST)
    figures, folder = lab.train(job)
    other = lab.train(attrs.evolve(job, held_out=()))[1]
    assert digest_of(folder) == digest_of(other)
    found = encode(job, [row], renderer_of(lab.site()), None)
    assert figures["held_out_loss"] == pytest.approx(nll(lab, lab.derive(folder), found), abs=1e-5)


def test_a_loss_that_is_no_number_stops_at_its_step_and_keeps_the_last_good_checkpoint(lab):
    from moco_core import ModelCallError

    def poison(trainer):
        step = trainer.training_step

        def broken(*args, **kwargs):
            return step(*args, **kwargs) * (float("nan") if trainer.state.global_step == 2 else 1.0)

        trainer.training_step = broken

    site = lab.site()
    with pytest.raises(ModelCallError, match="the loss became nan at step 3; lower learning_rate"):
        lab.train(JOBS["sft"], folder=site.folder, how={"prepare": poison, "interval": 0.0})
    assert sorted(p.name for p in (site.folder / "checkpoints").glob("c*")) == ["checkpoint-1", "checkpoint-2"]
    figures, _ = lab.train(JOBS["sft"], folder=site.folder)
    assert figures["resumed_at"] == 2


def test_what_cannot_be_trained_says_what_would(lab, tuned):
    from moco_toolkit_checkpoints.local import AdapterWeights

    class Made:
        kind = "adapter"
        fingerprint = "made"

        def adapter(self, sources) -> AdapterWeights:
            raise AssertionError("nothing is opened")

    _, _, folder, _ = tuned
    made = lab.pool.engine.derive("made", Made(), [lab.derive(folder)])
    with pytest.raises(CapabilityError, match="'made' was derived and lies in no folder; export it"):
        lab.site(made)


def test_a_base_without_a_chat_template_is_trained_on_plain_text(tmp_path):
    import random_checkpoints
    from training_lab import Lab

    random_checkpoints.write(tmp_path / "bare", template=None, **SMALL)

    class Bare(Lab):
        pass

    plain = Bare(tmp_path)
    plain.base = str(tmp_path / "bare")
    plain.pool = TransformersPool(build(Options, {"models": [plain.base], "device": "cpu", "cache": str(tmp_path)}))
    (plain.model,) = plain.pool.models()
    row = Demonstration.of(Message("user", "What is 2 + 3?"), "5")
    found = encode(Sft(rows=[row]), [row], renderer_of(plain.site()), None)
    with plain.pool.engine.use(plain.model) as (loaded,):
        prompt = list(loaded.render(row.messages[:1]).ids)
    assert found.columns["input_ids"][0][: len(prompt)] == prompt
    assert plain.train(Sft(rows=[row], max_steps=1))[0]["rows"] == 1


def test_an_encoder_or_a_classifier_is_no_student_of_replies(lab):
    site = lab.site()
    for task, words in (("embed", "is an encoder"), ("reward", "gives numbers")):
        wrong = attrs.evolve(site, info={**site.info, "task": task})
        from moco_toolkit_training.worker import train

        with pytest.raises(ConfigError, match=f"{words} and writes no text: sft cannot train it"):
            train(JOBS["sft"], wrong)


class _Losses(Exception):
    """Losses on held-out rows have been seen."""


def test_with_keep_best_the_epoch_with_the_lowest_loss_on_held_out_rows_is_kept_killed_or_not(lab):
    """The held-out row says something else, so that its loss rises after an epoch or two."""
    rows, other = demonstrations(4), Demonstration.of("Say a word.", "apple pear plum")
    job = Sft(
        rows=rows, held_out=[other], lora=STILL, batch=2, min_steps=1, epochs=6, learning_rate=2e-2, schedule="constant"
    )
    losses = []

    def watch(trainer):
        inner = trainer.evaluate

        def seen(*args, **kwargs):
            out = inner(*args, **kwargs)
            losses.append((trainer.state.global_step, out["eval_loss"]))
            return out

        trainer.evaluate = seen

    figures, folder = lab.train(attrs.evolve(job, keep_best=True), how={"prepare": watch})
    *seen, (_, last) = losses
    assert [step for step, _ in seen] == [2, 4, 6, 8, 10, 12]
    step, lowest = min(seen, key=lambda found: (found[1], found[0]))
    assert step < 12 and figures["kept_step"] == step and figures["held_out_loss"] == last == lowest
    short = lab.train(attrs.evolve(job, max_steps=step, held_out=()))[1]
    assert digest_of(folder) == digest_of(short)  # as if it had ended there
    assert digest_of(lab.train(job)[1]) != digest_of(folder)

    def stop(trainer):
        inner = trainer.training_step

        def broken(*args, **kwargs):
            if trainer.state.global_step == step + 1:
                raise _Losses
            return inner(*args, **kwargs)

        trainer.training_step = broken

    site = lab.site()
    with pytest.raises(_Losses):
        lab.train(attrs.evolve(job, keep_best=True), folder=site.folder, how={"prepare": stop, "interval": 0.0})
    again, result = lab.train(attrs.evolve(job, keep_best=True), folder=site.folder)
    assert again["resumed_at"] > 0 and again["kept_step"] == step and digest_of(result) == digest_of(folder)
    assert not (site.folder / "best.safetensors").exists()
