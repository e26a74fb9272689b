"""What a fitted merge is written as is an ordinary checkpoint or adapter: transformers, peft, mergekit and vLLM load it."""

import importlib.util
import json
import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moco_core.models import Pool
from moco_toolkit_checkpoints.local import local_engine
from moco_toolkit_merging import Consensus, Merge, SourceRef, export_merge

PROMPT = list(range(65, 81))
MARGIN = 1e-3


@pytest.fixture
def written(factory, tmp_path):
    """A DARE-TIES merge of two adapters as a checkpoint, and a sum of both as an adapter; widths that vLLM can serve."""
    base = factory.model("base", 7, hidden_size=64, intermediate_size=96, num_attention_heads=2)
    pool = Pool(factory.pool(*(factory.adapter(n, base, i, rank=8) for i, n in enumerate(("one", "two")))).models())
    rule = Consensus(weights=(1.0, 1.0), density=(0.5, 0.5), seed=1)
    full, lora = tmp_path / "full", tmp_path / "lora"
    merge = Merge.weights(rule, list(pool), SourceRef.of(pool[0], base=True))
    export_merge(pool, merge, full, title="Full", method="dare_ties")
    export_merge(pool, Merge.adapters((0.7, -0.2), list(pool)), lora, title="Sum", method="lorahub")
    return pool, merge, full, lora


def test_the_folders_hold_what_the_hub_expects(factory, written):
    pool, merge, full, lora = written
    assert {p.name for p in full.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert {p.name for p in lora.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    for folder, library in ((full, "transformers"), (lora, "peft")):
        head, text = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
        assert f"library_name: {library}" in head and "- merge" in head
        recipe = json.loads(text.split("```json\n")[1].split("\n```")[0])
        assert Merge.load(recipe).dump() == recipe == json.loads((folder / "moco_recipe.json").read_text())["merge"]
        assert all(f"`{m.name}` (fingerprint `{m.fingerprint[:16]}`)" in text for m in pool)
    again = AutoModelForCausalLM.from_pretrained(full)
    weights = local_engine(pool[0]).weights(merge.model(pool, "again"))
    assert all(torch.equal(p, weights.get(n)) for n, p in again.named_parameters())
    assert AutoTokenizer.from_pretrained(full)("abc").input_ids == factory.tokenizer()("abc").input_ids


def test_mergekit_merges_the_checkpoint_and_the_adapter_on_it(written, tmp_path):
    config_module = pytest.importorskip("mergekit.config")
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    _, _, full, lora = written
    entries = [{"model": m, "parameters": {"weight": 0.5}} for m in (str(full), f"{full}+{lora}")]
    config = config_module.MergeConfiguration.model_validate(
        {"merge_method": "linear", "models": entries, "dtype": "float32"}
    )
    options = MergeOptions(quiet=True, write_model_card=False, lora_merge_cache=str(tmp_path / "cache"))
    run_merge(config, str(tmp_path / "theirs"), options)
    theirs = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").named_parameters())
    plain = dict(AutoModelForCausalLM.from_pretrained(full).named_parameters())
    tuned = dict(composed(full, lora).merge_and_unload().named_parameters())
    assert all(torch.allclose(theirs[n], (plain[n] + tuned[n]) / 2, atol=1e-6) for n in plain)
    assert any(not torch.equal(plain[n], tuned[n]) for n in plain)


def composed(full, lora):
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(full), lora).eval()


# vLLM and what it imports warn at their own pace
@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_serves_the_checkpoint_and_the_adapter_on_it(written, monkeypatch):
    for name, value in {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on a CPU: the model runs in this process
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }.items():
        monkeypatch.setenv(name, os.environ.get(name, value))
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    _, _, full, lora = written
    engine = LLM(
        str(full),
        dtype="float32",
        enforce_eager=True,
        max_model_len=64,
        max_num_seqs=2,
        enable_lora=True,
        max_lora_rank=16,
        disable_log_stats=True,
    )
    try:
        for module, request in (
            (AutoModelForCausalLM.from_pretrained(full).eval(), None),
            (composed(full, lora), LoRARequest("sum", 1, str(lora))),
        ):
            params = SamplingParams(temperature=0.0, max_tokens=8, logprobs=0, ignore_eos=True)
            (out,) = engine.generate({"prompt_token_ids": PROMPT}, params, lora_request=request, use_tqdm=False)
            said = out.outputs[0]
            row = torch.tensor([[*PROMPT, *said.token_ids]])
            with torch.no_grad():
                expected = module(row).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
            for place, (token, scores) in enumerate(zip(said.token_ids, said.logprobs, strict=True)):
                assert scores[token].logprob == pytest.approx(float(expected[place, token]), abs=MARGIN)
                assert float(expected[place].max() - expected[place, token]) <= MARGIN
    finally:
        engine.llm_engine.engine_core.shutdown()
