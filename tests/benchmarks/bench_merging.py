"""Merging, side by side in one process: candidates in memory against checkpoints, and streaming against mergekit.

    python tests/benchmarks/bench_merging.py                      # all three
    python tests/benchmarks/bench_merging.py candidate [--hidden 512 --layers 8 --rule linear]
    python tests/benchmarks/bench_merging.py adapter [--hidden 512 --layers 8]
    python tests/benchmarks/bench_merging.py stream [--millions 500]

``candidate`` times what one candidate of a search costs beyond generation: the derived model opened in the resident
module, ready to generate, against a merged checkpoint that is written and loaded again (streamed by this toolkit, or as
usually done: load the sources, merge, save, load). There are two such comparisons, and they differ by more than tenfold:
everything in one process, with every file in the page cache, where a candidate costs about a quarter; and ``--fresh``, where
a new process loads what was written, as evaluation by workers does, where it costs about a hundredth. ``adapter`` does the
same for LoRA adapters: composed in memory, against written and loaded again, with its base or onto a base that stays.
``stream`` merges two random checkpoints with ``merge_folders`` and with mergekit's own linear merge, each in a fresh process,
and compares wall time and peak memory.
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


class Times:
    """What works cost in wall and processor time, by name; the first round of each is not counted.

    A work ends with one token read by the model it returns, so that weights that are only mapped are loaded too; the time
    that token takes again afterwards is what generation itself costs, and is subtracted.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float]]] = {}

    def take(self, name: str, work: Callable[[], Any]) -> Any:
        start = clock()
        result = work()
        read(result)
        middle = clock()
        read(result)
        end = clock()
        wall, cpu = (2 * m - s - e for s, m, e in zip(start, middle, end, strict=True))
        self.rows.setdefault(name, []).append((wall, cpu))
        return result

    def show(self) -> None:
        medians = {
            name: [statistics.median(column) for column in zip(*rows[1:], strict=True)]
            for name, rows in self.rows.items()
        }
        first = next(iter(medians.values()))
        for name, (wall, cpu) in medians.items():
            print(f"  {name:36s} {wall:7.3f} s {cpu:7.3f} s   {wall / first[0]:5.1f} x {cpu / first[1]:5.1f} x")


def clock() -> tuple[float, float]:
    """Wall and processor time, children included."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


def read(model: Any, tokens: int = 1) -> Any:
    """Have a derived model or a module read a few tokens and return the logits; None for anything else."""
    import torch

    from moco_core.models import Model
    from moco_toolkit_checkpoints.local import local_engine

    ids = torch.arange(tokens)[None]
    if isinstance(model, Model):
        with local_engine(model).use(model) as (loaded,):
            return loaded.run(input_ids=ids, use_cache=False).logits
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits
    return None


def opened_pool(entries: list[Any], root: str) -> Any:
    from moco_core.models import Pool
    from moco_core.options import build as structure
    from moco_pool_transformers.pool import Options, TransformersPool

    options = {"models": entries, "device": "cpu", "dtype": "float32", "cache": f"{root}/hashes"}
    return Pool(TransformersPool(structure(Options, options)).models())


def ready(model: Any) -> Any:
    """Open a model so that it could generate: weights in place, its cache laid out."""
    from moco_toolkit_checkpoints.local import local_engine

    with local_engine(model).use(model) as (loaded,):
        assert loaded.runner.new_cache() is not None
    return model


def same(model: Any, module: Any) -> None:
    """Check that what was timed is the same model."""
    gap = float((read(model, 8) - read(module, 8)).abs().max())
    assert gap <= 1e-3, gap


def size_of(folder: Path) -> float:
    """Millions of parameters of a bfloat16 checkpoint."""
    return sum(p.stat().st_size for p in folder.glob("*.safetensors")) / 2e6


def candidate(args: argparse.Namespace) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from moco_toolkit_merging import Consensus, Linear, Merge, Workspace
    from moco_toolkit_merging.files import merge_folders

    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        folders = [Path(root, f"m{i}") for i in range(args.models)]
        for i, folder in enumerate(folders):
            build(folder, i, args.hidden, args.layers, 8000)
        pool = opened_pool([str(f) for f in folders], root)
        workspace, times = Workspace(1 << 32), Times()  # the workspace as in a search
        for round_ in range(args.rounds + 1):
            share = 0.1 + 0.8 * round_ / args.rounds
            weights = (share, *[(1 - share) / (args.models - 1)] * (args.models - 1))
            operation: Any = Linear(coefficients=weights)
            if args.rule == "dare":
                operation = Consensus(weights=weights[:-1], density=(0.5,) * (args.models - 1))
            out = Path(root, f"out{round_}")

            def opened(operation: Any = operation, round_: int = round_) -> Any:
                return ready(Merge.weights(operation, list(pool)).model(pool, f"candidate {round_}", workspace))

            def streamed(operation: Any = operation, out: Path = out) -> Any:
                merge_folders(operation, folders, out, dtype="float32")
                return AutoModelForCausalLM.from_pretrained(out)

            def saved(weights: tuple[float, ...] = weights, out: Path = out) -> Any:
                # the usual way: load the sources, average their state, save a checkpoint, load it for evaluation
                first, *others = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in folders)
                states = [dict(o.named_parameters()) for o in others]
                with torch.no_grad():
                    for name, p in first.named_parameters():
                        p.mul_(weights[0])
                        for weight, state in zip(weights[1:], states, strict=True):
                            p.add_(state[name], alpha=weight)
                first.save_pretrained(out)
                return AutoModelForCausalLM.from_pretrained(out)

            model = times.take("in memory", opened)
            for name, work in (("streamed and loaded", streamed), ("merged, saved, loaded", saved)):
                if work is saved and args.rule != "linear":
                    continue
                module = times.take(name, work)
                if args.fresh and work is saved:  # evaluation by workers of its own: each loads what was written
                    load = f"import transformers as t; t.AutoModelForCausalLM.from_pretrained({str(out)!r})"
                    command = [sys.executable, "-c", load]
                    times.take("loaded by a new process", lambda c=command: subprocess.run(c, capture_output=True))
                shutil.rmtree(out)
                same(model, module)
        print(
            f"{size_of(folders[0]):.0f} M parameters, {args.models} models, {args.rule}, {args.rounds} candidates;",
            end=" ",
        )
        print("medians of wall and processor time")
        times.show()


def adapter(args: argparse.Namespace) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from moco_toolkit_merging import Merge, Workspace

    with tempfile.TemporaryDirectory(dir=args.dir) as root:
        base = Path(root, "base")
        build(base, 0, args.hidden, args.layers, 8000)
        folders = [Path(root, f"a{i}") for i in range(args.models)]
        for i, folder in enumerate(folders):
            torch.manual_seed(i + 1)
            config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
            get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
        pool = opened_pool([{"model": str(base), "adapter": str(f)} for f in folders], root)
        workspace, times = Workspace(1 << 32), Times()
        resident = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        wrapped = PeftModel.from_pretrained(resident, folders[0], adapter_name="first")
        for round_ in range(args.rounds + 1):
            weights = tuple(0.1 + 0.5 * ((round_ + k) % 7) / 7 for k in range(args.models))
            out = Path(root, f"out{round_}")

            def composed(weights: Any = weights, round_: int = round_) -> Any:
                return ready(
                    Merge.adapters(weights, list(pool), "factors").model(pool, f"candidate {round_}", workspace)
                )

            def written(weights: Any = weights, out: Path = out) -> None:
                parts = [load_file(f / "adapter_model.safetensors") for f in folders]
                total = {k: sum(w * p[k].float() for w, p in zip(weights, parts, strict=True)) for k in parts[0]}
                out.mkdir()
                save_file(total, out / "adapter_model.safetensors")
                shutil.copy(folders[0] / "adapter_config.json", out)

            def loaded(out: Path = out) -> Any:
                module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
                return PeftModel.from_pretrained(module, out)

            def put_on(out: Path = out, round_: int = round_) -> Any:
                wrapped.load_adapter(out, adapter_name=f"out{round_}")
                wrapped.set_adapter(f"out{round_}")
                return wrapped

            def both(second: Callable[[], Any], first: Callable[[], None] = written, out: Path = out) -> Any:
                shutil.rmtree(out, ignore_errors=True)
                first()
                return second()

            model = times.take("composed in memory", composed)
            for name, work in (("written, loaded with its base", loaded), ("written, put on a resident base", put_on)):
                same(model, times.take(name, lambda work=work, both=both: both(work)))
            wrapped.delete_adapter(f"out{round_}")
        count = sum(t.numel() for t in load_file(folders[0] / "adapter_model.safetensors").values())
        print(
            f"{size_of(base):.0f} M parameters, {args.models} adapters of {count / 1e6:.1f} M, {args.rounds} candidates;",
            end=" ",
        )
        print("medians of wall and processor time")
        times.show()


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


PARTS = {"stream": stream, "candidate": candidate, "adapter": adapter}


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if sys.argv[1:2] == ["one"]:
        one(*sys.argv[2:])
        return
    if sys.argv[1:2] == ["build"]:
        build(Path(sys.argv[2]), *map(int, sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=list(PARTS), help="default: all")
    parser.add_argument("--rule", choices=["linear", "dare"], default="linear", help="what candidates are made by")
    parser.add_argument("--models", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--millions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="also time a new process that loads the candidate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dir", default=None, help="where to write the checkpoints")
    args = parser.parse_args()
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(args.threads)
    for what in [args.what] if args.what else PARTS:
        PARTS[what](args)


if __name__ == "__main__":
    main()
