"""Whether vLLM makes of a merged model's files what transformers makes of them, for architectures that both know.

``python transformers_matrix_vllm.py [NAME ...]`` tries all kinds of ``architectures.yaml`` that merge (a minute each), or some,
and writes what it found into ``architectures_vllm.json`` and the pool's README. vLLM has a process of its own (``--serve``):
one import for all, and no state of it in the tests.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_WIDTHS = ("hidden_size", "n_embd", "d_model", "embedding_dim", "intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
SIZES = {**dict.fromkeys(_WIDTHS, 128), "head_dim": 32}
"""vLLM's attention on CPUs takes heads of 32 and more."""
NEW = 12


def souped(name: str, folder: Path) -> list[list[int]]:
    """Write two models of a kind (``0``, ``1``) and their mean (``soup``); return prompts."""
    from transformers_matrix import PROMPTS, Reference, write
    from transformers_tiny import Mean, pool

    from moco_core.models import Pool
    from moco_toolkit_checkpoints.local import local_engine

    for seed in (0, 1):
        write(name, folder / str(seed), seed, **SIZES)
    models = pool(str(folder / "0"), str(folder / "1"), cache=folder / "cache").models()
    soup = Pool(models).derive("soup", Mean(tuple(models)), models)
    local_engine(soup).export(soup, folder / "soup")
    reference = Reference.of(folder / "soup")
    return [reference.ids(p) for p in PROMPTS]


def said(folder: Path, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return what transformers says to each prompt alone, greedily."""
    import torch
    from transformers_matrix import Reference

    module = Reference.of(folder).module
    module.generation_config.update(do_sample=False, max_new_tokens=NEW, eos_token_id=None, pad_token_id=0)
    rows = [torch.tensor([ids]) for ids in prompts]
    return [module.generate(row, attention_mask=torch.ones_like(row))[0, row.shape[1] :].tolist() for row in rows]


def _line(error: Exception, folder: str = "") -> str:
    """Return an error's first sentence, without the temporary folder that it happened in."""
    said = str(error).replace(folder, "the model") if folder else str(error)
    return " ".join(f"{type(error).__name__}: {said}".split()).partition(". ")[0][:160]


class Served:
    """A process of vLLM. ``known`` are the classes it has."""

    def __enter__(self) -> Served:
        settings = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        self._child = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **settings, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
        )  # fmt: skip
        self.known: list[str] = self._answer()
        return self

    def __exit__(self, *exc: object) -> None:
        self._child.communicate()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        lines = (json.loads(line) for line in self._child.stdout if line.startswith('{"outcome"'))
        return next(lines, {"outcome": None})["outcome"]

    def ask(self, folder: Path, prompts: Sequence[Sequence[int]]) -> Any:
        """Return the replies' tokens, a line that says why there are none, or None where the process ended."""
        assert self._child.stdin is not None
        print(json.dumps({"folder": str(folder), "prompts": prompts}), file=self._child.stdin, flush=True)
        return self._answer()


def compare(names: Iterable[str], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield per kind ``yes``, ``unknown`` (no such class in vLLM), ``untried: ...``, ``refused: ...`` (with what becomes of one
    of the models that were merged), or what is wrong.
    """
    from transformers_matrix import RESULTS

    left = iter(names)
    classes = {n: row["class"] for n, row in json.loads(RESULTS.read_text("utf-8")).items()}
    with Served() as vllm:
        for name in left:
            if classes[name] not in vllm.known:
                yield name, "unknown"
                continue
            try:
                prompts = souped(name, folder / name)
            except Exception as error:  # a configuration that cannot have these widths
                yield name, "untried: " + _line(error)
                continue
            outcome = vllm.ask(folder / name / "soup", prompts)
            if outcome is None or isinstance(outcome, str):
                break  # a vLLM that gave up opens nothing after it
            if outcome == said(folder / name / "soup", prompts):
                yield name, "yes"
                continue
            alone = vllm.ask(folder / name / "0", prompts)
            differ = sum(a != b for a, b in zip(alone, said(folder / name / "0", prompts), strict=True))
            yield name, f"wrong: replies differ (of a model that was merged, {differ} of {len(prompts)})"
        else:
            return
    with Served() as vllm:
        refused = isinstance(vllm.ask(folder / name / "0", prompts), str)
    alone = "so is a model that was merged" if refused else "a model that was merged is not"
    yield name, f"{outcome} ({alone})" if outcome else "wrong: vLLM's process ended"
    yield from compare(left, folder)


def serve() -> None:
    """Answer jobs from standard input with vLLM, one line each."""
    from vllm import LLM, ModelRegistry, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    print(json.dumps({"outcome": sorted(ModelRegistry.get_supported_archs())}), flush=True)
    greedy = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True)
    for line in sys.stdin:
        job = json.loads(line)
        try:
            llm = LLM(job["folder"], dtype="float32", enforce_eager=True, max_model_len=128, max_num_seqs=8)
            replies = llm.generate([{"prompt_token_ids": p} for p in job["prompts"]], greedy, use_tqdm=False)
            outcome: Any = [list(r.outputs[0].token_ids) for r in replies]
            del llm
        except Exception as error:
            outcome = "refused: " + _line(error, job["folder"])
        gc.collect()
        cleanup_dist_env_and_memory()
        print(json.dumps({"outcome": outcome}), flush=True)


def main(names: Sequence[str]) -> None:
    from transformers_matrix import KINDS, README, RESULTS, SERVED, synced

    warnings.simplefilter("ignore")
    merging = [n for n, row in json.loads(RESULTS.read_text("utf-8")).items() if row["merge"] == "yes"]
    found: dict[str, str] = json.loads(SERVED.read_text("utf-8")) if SERVED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name, outcome in compare(names or merging, Path(folder)):
            print(name, outcome, flush=True)
            found[name] = outcome
            SERVED.write_text(json.dumps({n: found[n] for n in KINDS if n in found}, indent=1) + "\n", "utf-8")
    README.write_text(synced(README.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main(sys.argv[1:])
