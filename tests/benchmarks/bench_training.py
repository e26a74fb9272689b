"""One LoRA fine-tuning by the training toolkit and by trl directly, side by side: equal weights to the bit, and wall time.

    python tests/benchmarks/bench_training.py [--hidden 256 --layers 4 --rows 64 --steps 40 --threads 1 --rounds 2]

Both train the same random Llama on the same conversations, each in a fresh process, from the files of the model to the files of
the adapter: a job of the toolkit as a run does it, and the dozen lines that one writes with trl. The ratio of their times is of
the best round of each. ``start`` is what a job takes until its first update is done.
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
from pathlib import Path
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
from trl import SFTConfig, SFTTrainer
torch.set_num_threads(given["threads"])
columns = {side: [row[side] for row in given["rows"]] for side in ("prompt", "completion")}
data = Dataset(InMemoryTable.from_pydict(columns), fingerprint="rows")
trainer = SFTTrainer(
    model=given["base"],
    args=SFTConfig(output_dir=given["out"] + ".work", model_init_kwargs={"dtype": "float32"}, max_length=2048,
        per_device_train_batch_size=given["parts"], gradient_accumulation_steps=given["batch"] // given["parts"],
        max_steps=given["steps"], learning_rate=given["rate"], lr_scheduler_type="cosine", warmup_steps=given["warmup"],
        weight_decay=0.0, max_grad_norm=1.0, optim="adamw_torch", seed=given["seed"], data_seed=given["seed"], bf16=False,
        use_cpu=True, gradient_checkpointing=False, loss_type="nll", save_strategy="no", report_to="none",
        disable_tqdm=True, dataloader_pin_memory=False),
    train_dataset=data,
    processing_class=AutoTokenizer.from_pretrained(given["base"]),
    peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model(given["out"])
"""


def rows(count: int) -> list[dict[str, Any]]:
    talk = [(f"What is {i} + {i % 7}? " * (1 + i % 3), f"The answer is {i + i % 7}. " * (1 + i % 5)) for i in range(count)]
    return [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a.strip()}]}
        for q, a in talk
    ]


def by_toolkit(base: str, out: Path, given: dict[str, Any]) -> dict[str, Any]:
    from moco_core.options import build
    from moco_core.training import TrainingSite
    from moco_pool_transformers.pool import Options, TransformersPool
    from moco_toolkit_training import Demonstration, Sft

    options = {"models": [base], "device": "cpu", "cache": str(out.parent / "hashes")}
    pool = TransformersPool(build(Options, options))
    (model,) = pool.models()
    demonstrations = [Demonstration.of(r["prompt"][0]["content"], r["completion"][0]["content"]) for r in given["rows"]]
    job = Sft(rows=demonstrations, learning_rate=RATE, max_steps=given["steps"], batch=BATCH, min_steps=1)
    out.mkdir()
    site = TrainingSite(
        folder=out, seed=SEED, tell=lambda figures: None, reward=lambda rollouts: [], cancelled=lambda: False
    )
    return dict(pool.engine.train(model, job, site))


def digest_of(folder: Path) -> str:
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return hashlib.sha256(b"".join(k.encode() + tensors[k].numpy().tobytes() for k in sorted(tensors))).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("hidden", 256), ("layers", 4), ("rows", 64), ("steps", 40), ("threads", 1), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
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
            "rows": rows(args.rows),
            "steps": args.steps,
            "threads": args.threads,
            "warmup": round(0.03 * args.steps),
            "rate": RATE,
            "batch": BATCH,
            "parts": PARTS,
            "seed": SEED,
        }
        times: dict[str, list[float]] = {"toolkit": [], "trl": []}
        for number in range(args.rounds):
            started = time.perf_counter()
            figures = by_toolkit(base, root / f"toolkit{number}", given)
            times["toolkit"].append(time.perf_counter() - started)
            started = time.perf_counter()
            out = root / f"trl{number}"
            command = [sys.executable, "-c", DIRECT, json.dumps({**given, "out": str(out)})]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            times["trl"].append(time.perf_counter() - started)
            same = digest_of(root / f"toolkit{number}" / "model") == digest_of(out)
            print(f"round {number}: toolkit {times['toolkit'][-1]:.1f} s, trl {times['trl'][-1]:.1f} s, equal bits: {same}")
        print(f"wall, toolkit to trl: {min(times['toolkit']) / min(times['trl']):.2f}")
        print(
            f"of the toolkit's last round: start {figures['start_seconds']:.1f} s after imports, training "
            f"{figures['train_seconds']:.1f} s, {figures['train_tokens'] / figures['train_seconds']:,.0f} tokens/s"
        )


if __name__ == "__main__":
    main()
