"""One LoRA training by the training toolkit and by trl directly, side by side: equal weights to the bit, wall time and memory.

    python tests/benchmarks/bench_training.py [--job sft --hidden 256 --layers 4 --rows 64 --steps 40 --threads 1 --rounds 2]

Both train the same random Llama on the same conversations, each in a fresh process, from the files of the model to the files of
the adapter: a job of the toolkit as a run does it, and the dozen lines that one writes with trl. ``--job dpo`` is how one model
is trained in a round of sparta, ``--job dialogue`` how an agent's critic is in an iteration of multiagent_finetuning: on whole
dialogues, of which the last turn is learnt. They take turns; ratios are of the medians over all rounds. ``processor`` is the
time that all processes of a training computed, which other load on the machine moves less than ``wall``; memory is that of
the largest process. ``start`` is what a job takes until its first update is done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SEED, RATE, BATCH, PARTS = 7, 1e-3, 16, 8

DIRECT = """
import json, sys, warnings
warnings.simplefilter("ignore")
given = json.loads(sys.argv[1])
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
torch.set_num_threads(given["threads"])
columns = {side: [row[side] for row in given["rows"]] for side in given["rows"][0]}
data = Dataset(InMemoryTable.from_pydict(columns), fingerprint="rows")
dpo = "chosen" in given["rows"][0]
special = dict(beta=0.1, loss_type=["sigmoid"]) if dpo else dict(loss_type="nll")
trainer = (DPOTrainer if dpo else SFTTrainer)(
    model=given["base"],
    args=(DPOConfig if dpo else SFTConfig)(
        output_dir=given["out"] + ".work", model_init_kwargs={"dtype": "float32"}, max_length=2048,
        per_device_train_batch_size=given["parts"], gradient_accumulation_steps=given["batch"] // given["parts"],
        max_steps=given["steps"], learning_rate=given["rate"], lr_scheduler_type="cosine", warmup_steps=given["warmup"],
        weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch", seed=given["seed"], data_seed=given["seed"], bf16=False,
        use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False, **special),
    train_dataset=data,
    processing_class=AutoTokenizer.from_pretrained(given["base"]),
    peft_config=LoraConfig(
        r=16, lora_alpha=32, lora_dropout=given["dropout"], target_modules="all-linear", task_type="CAUSAL_LM"
    ),
)
trainer.train()
trainer.save_model(given["out"])
"""


def rows(count: int, job: str) -> list[dict[str, Any]]:
    """Return rows as trl reads them."""

    def said(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text.strip()}

    out = []
    for i in range(count):
        question = said("user", f"What is {i} + {i % 7}? " * (1 + i % 3))
        right = said("assistant", f"The answer is {i + i % 7}. " * (1 + i % 5))
        wrong = said("assistant", f"The answer is {i}, I think. " * (1 + i % 4))
        again = said("user", f"The others say {i + i % 7}. What is {i} + {i % 7}? ")
        if job == "dpo":
            out.append({"prompt": [question], "chosen": [right], "rejected": [wrong]})
        else:
            out.append({"prompt": [question] if job == "sft" else [question, wrong, again], "completion": [right]})
    return out


def job_of(kind: str, given: dict[str, Any]) -> Any:
    """Return the toolkit's job for the same rows."""
    from moco_core.types import Message
    from moco_toolkit_training import Demonstration, Dpo, Lora, Preference, Sft

    settings = {"learning_rate": RATE, "max_steps": given["steps"], "batch": BATCH, "min_steps": 1}
    told = [{side: [Message(**m) for m in row[side]] for side in row} for row in given["rows"]]
    if kind == "dpo":
        pairs = [
            Preference(prompt=r["prompt"], chosen=r["chosen"][0].content, rejected=r["rejected"][0].content)
            for r in told
        ]
        return Dpo(rows=pairs, warmup=0.03, max_length=2048, lora=Lora(dropout=0.0), **settings)
    return Sft(rows=[Demonstration(messages=[*r["prompt"], *r["completion"]]) for r in told], **settings)


def by_toolkit(base: str, out: Path, given: dict[str, Any]) -> dict[str, Any]:
    from moco_core.options import build
    from moco_core.training import TrainingSite
    from moco_pool_transformers.pool import Options, TransformersPool

    options = {"models": [base], "device": "cpu", "cache": str(out.parent / "hashes")}
    pool = TransformersPool(build(Options, options))
    (model,) = pool.models()
    job = job_of(given["job"], given)
    out.mkdir()
    site = TrainingSite(
        folder=out, seed=SEED, tell=lambda figures: None, reward=lambda rollouts: [], cancelled=lambda: False
    )
    return dict(pool.engine.train(model, job, site))


def measured(work: Callable[[], Any]) -> tuple[float, float, float]:
    """Do work in a process of its own; return its seconds, those of processors, and the MiB of the largest process."""
    started, child = time.perf_counter(), os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit("the training failed")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def digest_of(folder: Path) -> str:
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return hashlib.sha256(b"".join(k.encode() + tensors[k].numpy().tobytes() for k in sorted(tensors))).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hidden", 256), ("layers", 4), ("rows", 64), ("steps", 40), ("threads", 1), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--job", choices=["sft", "dpo", "dialogue"], default="sft")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
    import random_checkpoints

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        sizes = {"hidden_size": args.hidden, "intermediate_size": 4 * args.hidden, "num_hidden_layers": args.layers}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
        base = random_checkpoints.write(root / "base", template=TEMPLATE, **sizes, **heads)
        given = {
            "base": base,
            "job": args.job,
            "rows": rows(args.rows, args.job),
            "dropout": 0.0 if args.job == "dpo" else 0.05,
            "steps": args.steps,
            "threads": args.threads,
            "warmup": round(0.03 * args.steps),
            "rate": RATE,
            "batch": BATCH,
            "parts": PARTS,
            "seed": SEED,
        }
        took: dict[str, list[tuple[float, float, float]]] = {"toolkit": [], "trl": []}
        for number in range(args.rounds):
            ours, theirs = root / f"toolkit{number}", root / f"trl{number}"
            figures = root / f"figures{number}.json"
            took["toolkit"].append(
                measured(lambda o=ours, f=figures: f.write_text(json.dumps(by_toolkit(base, o, given))))
            )
            command = [sys.executable, "-c", DIRECT, json.dumps({**given, "out": str(theirs)})]
            took["trl"].append(
                measured(
                    lambda c=command: subprocess.run(c, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                )
            )
            same = digest_of(ours / "model") == digest_of(theirs)
            told = ", ".join(
                f"{name} {wall:.1f} s ({processor:.1f} s of processors), {memory:,.0f} MiB"
                for name, (wall, processor, memory) in ((name, rounds[-1]) for name, rounds in took.items())
            )
            print(f"{args.job}, round {number}: {told}, equal bits: {same}", flush=True)
        for at, what in enumerate(("wall", "processor", "memory")):
            ours, theirs = (median(each[at] for each in took[name]) for name in ("toolkit", "trl"))
            print(f"{what}, toolkit to trl: {ours / theirs:.2f} ({ours:,.1f} to {theirs:,.1f})")
        last = json.loads(figures.read_text())
        print(
            f"of the toolkit's last round: start {last['start_seconds']:.1f} s after imports, training "
            f"{last['train_seconds']:.1f} s, {last['train_tokens'] / last['train_seconds']:,.0f} tokens/s"
        )


if __name__ == "__main__":
    main()
