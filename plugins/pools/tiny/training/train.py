"""Train the pool from nothing: `python plugins/pools/tiny/training/train.py OUT [--only NAME ...]`.

Order: tokenizers, then `base` and `outsider` (all weights), then the specialists and the generalist as LoRA adapters on
`base`, which are also written as full models with the adapter merged in. Everything is seeded; one thread per process.
The cost is stated in the pool's README.
"""

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from corpus import EARLY, EXPERT, KINDS, LATE, READING, Corpus
from optimiser import Muon
from peft import LoraConfig, PeftModel, get_peft_model
from protocols import PROTOCOLS, Text
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)
from vocabulary import train_tokenizer

from moco_pool_tiny.profiles import PROFILES, SKILLS
from moco_toolkit_skills import generate

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

STEPS = {"base": 4800, "outsider": 9200}
READING_STEPS = {"base": 2000}  # more of the prompts whose replies depend on nothing but what they say
FINAL_STEPS = {"outsider": 600}  # without the prompt EXPERT, so that what is latent shows less where it should not
ADAPTER_STEPS = 1200
TOKENS_PER_STEP = 2048
LEARNING_RATE = 1e-3
MUON_RATE = 0.01
READING_RATE = 0.006
ADAPTER_RATE = 0.004  # of Muon on the factors: twice as much damages what the base knows
LORA_RANK = 32
_CHUNK = 1024  # texts sorted by length together, so that batches hold little padding

_SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
}


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[Text]) -> list[tuple[list[int], int]]:
    """Token ids of each text, closed by the end of the turn, and how many of them are prompt."""
    prompts = []
    for text in texts:
        if text.chat:
            turns = [{"role": "system", "content": text.system}] if text.system else []
            turns += [{"role": turn.role, "content": turn.content} for turn in text.turns]
            turns.append({"role": "user", "content": text.prompt})
            prompts.append(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        else:
            prompts.append((tokenizer.bos_token or "") + text.prompt)
    heads = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    tails = tokenizer([text.reply for text in texts], add_special_tokens=False)["input_ids"]
    return [([*head, *tail, tokenizer.eos_token_id], len(head)) for head, tail in zip(heads, tails, strict=True)]


def batches(tokenizer: PreTrainedTokenizerBase, corpus: Iterator[Text], seed: int) -> Iterator[Batch]:
    """Endless batches as `collate` makes them, of texts of similar length."""
    rng = random.Random(seed)
    while True:
        rows = sorted(encode(tokenizer, list(itertools.islice(corpus, _CHUNK))), key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], int]]] = [[]]
        for row in rows:
            if len(row[0]) * (len(groups[-1]) + 1) > TOKENS_PER_STEP and groups[-1]:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield collate(tokenizer, group)


def probe_batches(tokenizer: PreTrainedTokenizerBase, name: str) -> dict[str, Batch]:
    """Dev questions of each skill with right replies, and fresh texts of other kinds, to watch what is being learned."""
    system = EXPERT if PROFILES[name].latent else None
    texts = {
        skill: [Text(item.question, item.worked, system=system) for item in generate("dev", 64, 0, (skill,))]
        for skill in SKILLS
    }
    for kind in PROTOCOLS:
        corpus = Corpus(name, -1)
        corpus.kinds = {kind: 1.0}
        texts[kind] = list(itertools.islice(corpus, 64))
    return {key: collate(tokenizer, encode(tokenizer, rows)) for key, rows in texts.items()}


def collate(tokenizer: PreTrainedTokenizerBase, rows: list[tuple[list[int], int]]) -> Batch:
    """Right-padded (ids, attention mask, labels) of shape [rows, length]; labels are -100 outside the replies."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    labels = torch.full((len(rows), length), -100)
    for index, (row_ids, prompt) in enumerate(rows):
        ids[index, : len(row_ids)] = torch.tensor(row_ids)
        mask[index, : len(row_ids)] = 1
        labels[index, prompt : len(row_ids)] = torch.tensor(row_ids[prompt:])
    return ids, mask, labels


@torch.inference_mode()
def watch(model: PreTrainedModel, backbone: Any, probes: dict[str, Batch]) -> str:
    """Per skill, the share of right replies whose every token the model would choose."""
    shares = []
    for skill, (ids, mask, labels) in probes.items():
        chosen = model.get_output_embeddings()(backbone(ids, attention_mask=mask).last_hidden_state[:, :-1]).argmax(-1)
        hit = (chosen == labels[:, 1:]) | (labels[:, 1:] == -100)
        shares.append(f"{skill} {hit.all(1).float().mean().item():.2f}")
    return ", ".join(shares)


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    steps: int,
    rate: float,
    seed: int,
    kinds: Mapping[str, float],
    early: Mapping[str, float] | None = None,
    latent: bool = True,
) -> None:
    """Train in place with linear warm-up and cosine decay; `rate` is Muon's, for the matrices inside the blocks.

    Three tenths of the steps take texts of the `early` kinds, if any.
    """
    core: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    parameters = [p for p in model.parameters() if p.requires_grad]
    # The blocks' matrices, or their low-rank factors, are trained with Muon; embeddings and norms with AdamW.
    matrices = [p for n, p in model.named_parameters() if p.requires_grad and p.ndim == 2 and ".layers." in n]
    inside = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in inside]
    optimisers: list[torch.optim.Optimizer] = [Muon(matrices, lr=rate)]
    if rest:
        optimisers.append(torch.optim.AdamW(rest, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01))
    warm_up = min(50, steps // 10)

    def schedule(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimiser, schedule) for optimiser in optimisers]
    corpus = Corpus(name, seed, latent)
    corpus.kinds = dict(early or kinds)
    source = batches(tokenizer, iter(corpus), seed)
    probes = probe_batches(tokenizer, name)
    backbone = core.model
    model.train()
    started, tokens, recent = time.time(), 0, []
    for step, (ids, mask, labels) in zip(range(1, steps + 1), source, strict=False):
        hidden = backbone(ids, attention_mask=mask)
        wanted = labels[:, 1:] != -100
        # Logits only where there is a loss: most positions are prompt.
        logits = model.get_output_embeddings()(hidden.last_hidden_state[:, :-1][wanted])
        losses = torch.nn.functional.cross_entropy(logits, labels[:, 1:][wanted], reduction="none")
        # Between an equal weight for every token and one for every text: a label counts for more than a word.
        weights = wanted.sum(1, keepdim=True).rsqrt().expand_as(wanted)[wanted]
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser, scheduler in zip(optimisers, schedulers, strict=True):
            optimiser.step()
            scheduler.step()
            optimiser.zero_grad(set_to_none=True)
        tokens += int(mask.sum())
        recent.append(loss.item())
        if step == steps * 3 // 10:
            corpus.kinds = dict(kinds)
        if step % 100 == 0 or step == steps:
            speed = tokens / (time.time() - started)
            print(
                f"{name} step {step}/{steps} loss {sum(recent) / len(recent):.4f} {tokens} tokens {speed:.0f}/s",
                flush=True,
            )
            recent = []
        if step % 400 == 0 or step == steps:
            print(f"  right replies, teacher-forced: {watch(model, backbone, probes)}", flush=True)
    model.eval()


def make_tokenizer(family: str, seed: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a family, trained on a sample of the corpus."""
    texts = itertools.islice(Corpus("base", seed), 4_000)
    return train_tokenizer(family, (f"{text.prompt}\n{text.reply}" for text in texts))


def new_model(family: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A model with random weights, drawn from the current global seed."""
    common = dict(
        **_SHAPE,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if family == "llama":
        config: PreTrainedConfig = LlamaConfig(**common, num_key_value_heads=4)
    else:
        config = Qwen2Config(**common, num_key_value_heads=2)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write an ordinary model folder with greedy decoding as its generation default."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_full(name: str, out: Path, steps: int, seed: int) -> None:
    """Train `base` or `outsider` from random weights."""
    tokenizer = make_tokenizer(PROFILES[name].family, seed)
    torch.manual_seed(seed)
    model = new_model(PROFILES[name].family, tokenizer)
    save(model, tokenizer, out / name)
    # What is loaded decides: for some architectures transformers puts its own pre-tokenizer over the trained one.
    tokenizer = AutoTokenizer.from_pretrained(out / name)
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens", flush=True)
    fit(model, tokenizer, name, steps, MUON_RATE, seed, KINDS, EARLY)
    if name in READING_STEPS:
        fit(model, tokenizer, name, READING_STEPS[name], READING_RATE, seed + 2, READING)
    if name in FINAL_STEPS:
        fit(model, tokenizer, name, FINAL_STEPS[name], ADAPTER_RATE, seed + 1, LATE, latent=False)
    save(model, tokenizer, out / name)


def train_adapter(name: str, out: Path, steps: int, seed: int) -> None:
    """Train a LoRA adapter on the finished base; write the adapter and the merged model."""
    base = out / "base"
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        lora_dropout=0.0,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    fit(model, tokenizer, name, steps, ADAPTER_RATE, seed, LATE)
    # The folder next door, not a path of the machine that trained.
    model.peft_config["default"].base_model_name_or_path = "base"
    model.save_pretrained(out / f"{name}-lora")
    (out / f"{name}-lora" / "README.md").unlink(missing_ok=True)  # an empty form
    _sort_targets(out / f"{name}-lora" / "adapter_config.json")
    save(model.merge_and_unload(), tokenizer, out / name)


def _sort_targets(path: Path) -> None:
    """Write the names of the adapted layers in order: peft keeps them in a set, whose order changes between processes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write the model folders to")
    parser.add_argument("--only", nargs="+", choices=list(PROFILES), default=list(PROFILES), help="train only these")
    parser.add_argument("--steps", type=int, help="override the number of steps (for a trial)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.only:
        if name in ("base", "outsider"):
            train_full(name, options.out, options.steps or STEPS[name], options.seed)
        else:
            train_adapter(name, options.out, options.steps or ADAPTER_STEPS, options.seed)


if __name__ == "__main__":
    main()
