"""Tiny models on disk, and merging in this process."""

from __future__ import annotations

import json

import pytest
from mergekit_models import CONFORMANCE, module, tokenizer

from moco_method_mergekit import method as method_module


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three models near a base, one with a token more, and a LoRA adapter on the base."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("models")
    base = module(0)
    made = {"base": base, "ann": module(1, base), "bob": module(2, base), "wide": module(3, vocab=259)}
    for name, each in made.items():
        each.save_pretrained(root / name)
        tokenizer(*(["@@"] if name == "wide" else [])).save_pretrained(root / name)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(root / "lora")
    return root


@pytest.fixture(scope="module", autouse=True)
def here(folder):
    """Merging in this process, which has mergekit loaded; starting another takes seconds. Gives what starts another."""
    with pytest.MonkeyPatch.context() as patch:
        CONFORMANCE.append(folder)
        there = method_module.apart

        async def perform_here(task, out):
            from moco_method_mergekit import merging  # mergekit takes seconds to import: not while tests are collected

            merging.perform(json.loads(json.dumps(task)), out)

        patch.setattr(method_module, "apart", perform_here)
        yield there
