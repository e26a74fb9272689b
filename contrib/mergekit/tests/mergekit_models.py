"""Tiny models to merge, and how one merge is fitted, saved and restored."""

from __future__ import annotations

import shutil

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from moco_core import Question, Sampling
from moco_core.options import build
from moco_method_mergekit.method import Mergekit
from moco_method_mergekit.options import Options
from moco_pool_transformers.pool import Options as PoolOptions
from moco_pool_transformers.pool import TransformersPool
from moco_toolkit_authoring import run_method

torch.set_num_threads(1)
GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
QUESTION = Question(id="q", prompt="abc")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"

CONFORMANCE = []
"""The folder of the models, for checks that are given no fixtures."""


def tokenizer(*more: str) -> PreTrainedTokenizerFast:
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *more]
    raw = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE)


def module(seed, near=None, vocab=258):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, bos_token_id=vocab - 2, eos_token_id=vocab - 1, **shape))
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.mul_(10.0 if p.ndim > 1 else 1.0)
            if near is not None:
                p.copy_(list(near.parameters())[i] + 0.3 * p)
    return made.eval()


def pool_of(folder, *names):
    entries = [{"model": str(folder / n), "name": n} for n in names or ("base", "ann", "bob", "wide")]
    lora = {"model": str(folder / "base"), "adapter": str(folder / "lora"), "name": "lora"}
    options = {"models": [*entries, *([] if names else [lora])], "device": "cpu", "cache": str(folder / ".hashes")}
    return TransformersPool(build(PoolOptions, options))


def config(method, base="base", models=("ann", "bob"), each=None, **parameters):
    """A configuration of two models, each with further parameters of its own."""
    listed = [{"model": m, **({"parameters": each} if each else {})} for m in models]
    based = {"base_model": base} if base else {}
    return {"merge_method": method, "models": listed, "parameters": parameters, "dtype": "float32", **based}


def fit(given, pool, check, run_seed=0, **options):
    """Fit, save and restore; ``check`` is given the restored system before it answers."""
    method = Mergekit(build(Options, {"config": given, **options}))
    return run_method(
        method,
        pool,
        questions=[QUESTION],
        sampling=GREEDY,
        seed=run_seed,
        reload_with=method,
        after_fit=check,
    )


def theirs(given, folder, out, seed=0):
    """What mergekit itself writes, given paths where the configuration has names."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    paths = {n: str(folder / n) for n in ("base", "ann", "bob", "wide")} | {
        "lora": f"{folder / 'base'}+{folder / 'lora'}"
    }

    def placed(node):
        if isinstance(node, dict):
            return {k: placed(v) for k, v in node.items()}
        return (
            [placed(v) for v in node]
            if isinstance(node, list)
            else paths.get(node, node)
            if isinstance(node, str)
            else node
        )

    shutil.rmtree(out, ignore_errors=True)
    options = MergeOptions(quiet=True, write_model_card=False, lora_merge_cache=str(out) + "-lora")
    torch.manual_seed(seed)
    run_merge(MergeConfiguration.model_validate(placed(given)), str(out), options)
    return load_file(out / "model.safetensors")
