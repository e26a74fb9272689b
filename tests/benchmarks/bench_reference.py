"""Methods against the reference library (`modelco`): the same models, items, budgets and batch size, whole processes in turns.

Three random models of 4 M parameters, 32 + 32 items, 64 new tokens; defaults on both sides, imports and start included. The
reference library runs from an unpacked copy of its source, which is copied and told to use the CPU where it names a GPU:

    pip download --no-deps --no-binary :all: modelco && tar xf modelco-*.tar.gz
    python tests/benchmarks/bench_reference.py --reference modelco-1.1.2 [cascade nudging ...] [--rounds N]

Printed are the seconds of both sides, and their ratio as the median of the rounds. Aims: no method below 2, text level 3.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

# name: (our method, its options, their module, their settings, how many of the models)
METHODS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], int]] = {
    "cascade": ("cascade", {}, "api_cascade", {}, 3),
    "nudging": ("nudging", {}, "api_nudging", {}, 2),
    "nudging, their cache on": ("nudging", {}, "api_nudging", {"use_kv_cache": True}, 2),
    "prompt_routing": ("prompt_routing", {}, "api_prompt_routing", {"model_descriptions": ["a", "b", "c"]}, 3),
    "majority_vote": ("majority_vote", {}, "text_majority_vote", {}, 3),
    # by default ours asks on dev whose reply a tie goes to; theirs draws
    "majority_vote, ties drawn": ("majority_vote", {"tie": "random"}, "text_majority_vote", {}, 3),
    "logit_fusion": ("logit_fusion", {}, "logit_logit_fusion", {}, 3),
    "multiagent_refine": ("multiagent_refine", {}, "text_multiagent_refine", {}, 3),
    "greedy_soup": ("greedy_soup", {}, "weight_greedy_soup", {}, 3),
    "dare_ties": ("dare_ties", {"base": "m2"}, "weight_dare_ties", {"base_model_name": ""}, 3),
}
ITEMS, TOKENS = 32, 64


def build(folder: Path) -> list[str]:
    """Write three random models with a byte-level tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [row["input"] for split in ("dev", "test") for row in items(split)],
        trainers.BpeTrainer(vocab_size=4096, special_tokens=["<s>", "</s>"], initial_alphabet=letters),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    out = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=4096, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder / f"m{seed}")
        tokenizer.save_pretrained(folder / f"m{seed}")
        out.append(str(folder / f"m{seed}"))
    return out


def items(split: str) -> list[dict[str, str]]:
    """Return questions of the length of a grade-school problem, with their answers."""
    text = "{} has {} boxes with {} apples each and gives {} apples to a neighbour. How many apples are left? Explain it."
    start = 0 if split == "dev" else ITEMS
    return [
        {"id": f"{split}{i}", "input": text.format(f"Person {i}", i, 7, i), "output": str(6 * i)}
        for i in range(start, start + ITEMS)
    ]


def prepared(reference: Path, folder: Path) -> Path:
    """Copy the reference library, with the items as a task and the CPU where it names a GPU."""
    home = folder / "reference"
    shutil.copytree(reference / "model_collaboration", home / "model_collaboration")
    for file in (home / "model_collaboration").rglob("*.py"):
        text = file.read_text("utf-8")
        told = re.sub(r'"cuda:\{\}"\.format\([^()]*(\([^()]*\))?[^()]*\)|f"cuda:\{[^{}]*\}"|"cuda:0"', '"cpu"', text)
        if told != text:
            file.write_text(told, "utf-8")
    task = {split: items(split) for split in ("dev", "test")}
    (home / "model_collaboration/data/boxes.json").write_text(json.dumps(task), "utf-8")
    return home


def theirs(home: Path, module: str, settings: dict[str, Any], models: list[str]) -> list[str]:
    budget = {"max_response_length": TOKENS, "temperature": 0.7, "top_p": 0.9, "batch_size": ITEMS}
    devices = [*range(len(models))] if module.startswith("logit") else [0, 1]  # a process each; one per model in fusion
    config = {"method": module, "task": "boxes", "task_type": "exact_match", "gpu_ids": devices, "model_names": models}
    (home / "config.json").write_text(json.dumps({**config, "hyperparameters": {**budget, **settings}}), "utf-8")
    shutil.rmtree(home / "logs", ignore_errors=True)
    (home / "logs").mkdir()
    return [sys.executable, "-m", "model_collaboration.main", "-c", str(home / "config.json"), "-l", str(home / "logs")]


def ours(folder: Path, method: str, options: dict[str, Any], models: list[str]) -> list[str]:
    shutil.rmtree(folder / "runs", ignore_errors=True)
    (folder / "calls.sqlite").unlink(missing_ok=True)
    instruction = "\n\nPlease provide the final, direct answer wrapped exactly as \\box{ANSWER}"  # what theirs appends
    rows = [{**row, "input": row["input"] + instruction} for split in ("dev", "test") for row in items(split)]
    (folder / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    config = {
        "pool": {"name": "transformers", "models": models},
        "method": {"name": method, **options},
        "dataset": {
            "name": "custom", "path": str(folder / "items.jsonl"), "question": "input", "answer": "output", "kind": "text",
            "dev_size": ITEMS,
        },
        "sampling": {"max_new_tokens": TOKENS, "temperature": 0.7, "top_p": 0.9},
        "baselines": False,
        "out": str(folder / "runs"),
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config), "utf-8")
    return [sys.executable, "-m", "moco_core", "run", str(folder / "run.yaml"), "--cache", str(folder / "calls.sqlite")]


def seconds(command: list[str], where: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=where, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-500:]}{done.stderr[-1500:]}")
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help=f"default: all of {', '.join(METHODS)}")
    parser.add_argument("--reference", type=Path, help="the unpacked source of the reference library")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.reference is None:
        print("left out: --reference FOLDER names an unpacked copy of the reference library's source (see --help)")
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        models, home = build(folder), prepared(args.reference, folder)
        for name in args.methods or METHODS:
            method, options, module, settings, count = METHODS[name]
            mine: list[float] = []
            other: list[float] = []
            for _ in range(args.rounds):
                mine.append(seconds(ours(folder, method, options, models[:count]), folder))
                given = models[:2] if "base_model_name" in settings else models[:count]
                told = {k: models[2] if k == "base_model_name" else v for k, v in settings.items()}
                other.append(seconds(theirs(home, module, told, given), home))
            ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
            print(f"{name:26} {statistics.median(mine):6.1f} s  {statistics.median(other):6.1f} s  {ratio:5.2f} x", flush=True)


if __name__ == "__main__":
    main()
