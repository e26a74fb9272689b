"""Merging, side by side in one process: candidates in memory against checkpoints, and streaming against mergekit.

    python tests/benchmarks/bench_merging.py candidate [--hidden 512 --layers 8]
    python tests/benchmarks/bench_merging.py stream [--millions 500]

``candidate`` times what one candidate of a search costs beyond generation: the derived model opened in the resident
module, against a merged checkpoint that is written and loaded again (streamed by this toolkit, or as usually done: load the
sources, average, save, load). ``stream`` merges two random checkpoints with
``merge_folders`` and with mergekit's own linear merge, each in a fresh process, and compares wall time and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHARD = 500_000_000


def build(folder: Path, seed: int, hidden: int, layers: int, vocab: int, heads: int = 8) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=True,
    )
    module = LlamaForCausalLM(config).to(torch.bfloat16)
    module.save_pretrained(folder, max_shard_size=SHARD)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>").save_pretrained(folder)


def candidate(args: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from moco_core.models import Pool
    from moco_core.options import build as structure
    from moco_pool_transformers.host import host_of
    from moco_pool_transformers.pool import Options, TransformersPool
    from moco_toolkit_merging import Linear, Merge, Workspace
    from moco_toolkit_merging.files import merge_folders

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        folders = [Path(root, f"m{i}") for i in range(2)]
        for i, folder in enumerate(folders):
            build(folder, i, args.hidden, args.layers, 8000)
        options = {"models": [str(f) for f in folders], "device": "cpu", "dtype": "float32", "cache": f"{root}/hashes"}
        pool = Pool(TransformersPool(structure(Options, options)).models())
        ids = torch.arange(8)[None]
        workspace = Workspace(1 << 30)  # as in a search
        times: dict[str, list[tuple[float, float]]] = {}

        def processor() -> float:
            children = resource.getrusage(resource.RUSAGE_CHILDREN)
            return time.process_time() + children.ru_utime + children.ru_stime

        def timed(name: str, work: Callable[[], Any], counted: bool) -> Any:
            start = time.perf_counter(), processor()
            result = work()
            if counted:
                times.setdefault(name, []).append((time.perf_counter() - start[0], processor() - start[1]))
            return result

        for round_ in range(args.rounds + 1):  # the first opens the resident module and is not counted
            share = 0.1 + 0.8 * round_ / args.rounds
            operation = Linear(coefficients=(share, 1 - share))
            out = Path(root, f"out{round_}")

            def opened(operation: Any = operation, round_: int = round_) -> Any:
                model = Merge.weights(operation, list(pool)).model(pool, f"candidate {round_}", workspace)
                with host_of(model).use(model):
                    return model

            def streamed(operation: Any = operation, out: Path = out) -> Any:
                merge_folders(operation, folders, out, dtype="float32")
                return AutoModelForCausalLM.from_pretrained(out)

            def saved(share: float = share, out: Path = out) -> Any:
                # the usual way: load the sources, average their state, save a checkpoint, load it for evaluation
                a, b = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in folders)
                other = dict(b.named_parameters())
                with torch.no_grad():
                    for name, p in a.named_parameters():
                        p.mul_(share).add_(other[name], alpha=1 - share)
                a.save_pretrained(out)
                return AutoModelForCausalLM.from_pretrained(out)

            model = timed("in memory", opened, round_ > 0)
            for name, work in (("streamed and loaded", streamed), ("merged, saved, loaded", saved)):
                module = timed(name, work, round_ > 0)
                if args.fresh and work is saved:  # evaluation by workers of its own: each loads what was written
                    load = f"import transformers as t; t.AutoModelForCausalLM.from_pretrained({str(out)!r})"
                    command = [sys.executable, "-c", load]
                    timed(
                        "loaded by a new process", lambda c=command: subprocess.run(c, capture_output=True), round_ > 0
                    )
                shutil.rmtree(out)
                with host_of(model).use(model) as (loaded,), torch.no_grad():
                    ours = loaded.run(input_ids=ids, use_cache=False).logits
                    assert (ours - module(input_ids=ids).logits).abs().max() <= 1e-3
        size = sum(p.stat().st_size for p in folders[0].glob("*.safetensors")) // 2
        print(f"{size / 1e6:.0f} M parameters, {args.rounds} candidates, medians of wall and processor time")
        first = [statistics.median(column) for column in zip(*times["in memory"], strict=True)]
        for name, rows in times.items():
            wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"  {name:22s} {wall:7.3f} s {cpu:7.3f} s   {wall / first[0]:5.1f} x {cpu / first[1]:5.1f} x")


def stream(args: argparse.Namespace) -> None:
    hidden, vocab = 1280, 32000
    layers = max(1, round((args.millions * 1e6 - vocab * hidden) / (16 * hidden * hidden)))
    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        folders = [Path(root, f"m{i}") for i in range(2)]
        for i, folder in enumerate(folders):
            command = [sys.executable, __file__, "build", str(folder), str(i), str(hidden), str(layers), str(vocab)]
            subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True)
        shard = max(p.stat().st_size for p in folders[0].glob("*.safetensors"))
        total = sum(p.stat().st_size for p in folders[0].glob("*.safetensors"))
        print(f"{total / 2e6:.0f} M parameters in bfloat16, largest shard {shard / 1e6:.0f} MB, threads {args.threads}")
        results: dict[str, list[dict[str, float]]] = {"moco": [], "mergekit": []}
        for _ in range(args.rounds):
            for who, found in results.items():
                out = Path(root, "out")
                command = [sys.executable, __file__, "one", who, str(out), str(args.threads), *map(str, folders)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found.append(json.loads(done.stdout.splitlines()[-1]))
                shutil.rmtree(out)
        best = {who: min(f["wall"] for f in found) for who, found in results.items()}
        cpu = {who: min(f["cpu"] for f in found) for who, found in results.items()}
        peak = {who: max(f["peak"] for f in found) for who, found in results.items()}
        bound = 1.3 * max(2 * shard, SHARD)
        for who in results:
            times = f"wall {best[who]:6.2f} s   processor {cpu[who]:6.2f} s"
            print(f"  {who:9s} {times}   peak above imports {peak[who] / 1e6:7.0f} MB")
        print(f"  wall {best['moco'] / best['mergekit']:.2f} x mergekit (wanted <= 1.2)")
        print(f"  processor {cpu['moco'] / cpu['mergekit']:.2f} x mergekit")
        print(f"  peak {peak['moco'] / bound * 1.3:.2f} x max(largest shard x sources, output shard) (wanted <= 1.3)")


def one(who: str, out: str, threads: str, *folders: str) -> None:
    """Merge once and print wall time and peak memory above what the imports took."""
    import torch

    torch.set_num_threads(int(threads))
    if who == "moco":
        from moco_toolkit_merging import Linear
        from moco_toolkit_merging.files import merge_folders

        def work() -> None:
            merge_folders(Linear(coefficients=(0.5, 0.5)), folders, out, shard_size=SHARD)
    else:
        from mergekit.config import MergeConfiguration
        from mergekit.merge import run_merge
        from mergekit.options import MergeOptions

        config = MergeConfiguration.model_validate(
            {
                "merge_method": "linear",
                "models": [{"model": f, "parameters": {"weight": 0.5}} for f in folders],
                "dtype": "bfloat16",
            }
        )

        def work() -> None:
            run_merge(config, out, MergeOptions(quiet=True, write_model_card=False, out_shard_size=SHARD))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": after - before}))


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if sys.argv[1:2] == ["one"]:
        return one(*sys.argv[2:])
    if sys.argv[1:2] == ["build"]:
        return build(Path(sys.argv[2]), *map(int, sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["candidate", "stream"])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--millions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="also time a new process that loads the candidate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dir", default=None, help="where to write the checkpoints")
    args = parser.parse_args()
    return candidate(args) if args.what == "candidate" else stream(args)


if __name__ == "__main__":
    main()
