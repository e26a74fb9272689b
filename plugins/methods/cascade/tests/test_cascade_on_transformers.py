"""Chow scores on a real (tiny, random) language model, against torch's own cross-entropy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from random_checkpoints import write

from moco_core import Question, Sampling
from moco_core.models import Pool
from moco_core.options import build
from moco_method_cascade.method import Cascade
from moco_method_cascade.options import Options
from moco_method_cascade.quantiles import chow_average, chow_quantile, chow_sum
from moco_toolkit_authoring import open_state, run_method

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
engine = pytest.importorskip("moco_pool_transformers")

SAMPLING = Sampling(temperature=0.0, max_new_tokens=24)
QUESTIONS = [Question(id=f"q{i}", prompt="word " * (1 + 7 * i) + "?") for i in range(8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama without a chat template."""
    torch.set_num_threads(1)
    return write(tmp_path_factory.mktemp("tiny"), 0, template=None)


def pool(folder: str, tmp_path: Path) -> Pool:
    cls = engine.moco_pool()
    entries = [{"model": folder, "name": "weak"}, {"model": folder, "name": "strong"}]
    options = build(cls.Options, {"models": entries, "device": "cpu", "dtype": "float32", "cache": str(tmp_path)})
    return Pool(cls(options).models())


def test_chow_scores_equal_the_cross_entropy_of_the_reply(folder: str, tmp_path: Path) -> None:
    async def replies():
        async with open_state(sampling=SAMPLING) as state:
            model = pool(folder, tmp_path)[0]
            root = state.context("respond")
            return await root.each(QUESTIONS, lambda q, scope: scope.generate(model, q))

    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for question, reply in zip(QUESTIONS, asyncio.run(replies()), strict=True):
        prompt = tokenizer(question.text())["input_ids"]
        assert reply.usage.prompt_tokens == len(prompt)
        ids = torch.tensor([prompt + list(reply.token_ids)])
        with torch.inference_mode():
            logits = module(ids).logits[0, len(prompt) - 1 : -1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="none")
        assert chow_sum(reply.token_logprobs) == pytest.approx(-losses.sum().item(), abs=1e-4, rel=1e-5)
        assert chow_average(reply.token_logprobs) == pytest.approx(-losses.mean().item(), abs=1e-5)
        assert chow_quantile(reply.token_logprobs, 0.0) == pytest.approx(-losses.max().item(), abs=1e-5)


def test_a_confidence_does_not_depend_on_its_batch_mates(folder: str, tmp_path: Path) -> None:
    """One question at a time and eight together, prompts of 5 to 250 tokens."""
    method = Cascade(Options(select="fixed", thresholds=1.0, confidence="chow_sum"))

    def confidences(in_flight: int) -> list[float]:
        outcome = run_method(
            method, pool(folder, tmp_path), questions=QUESTIONS, sampling=SAMPLING, in_flight=in_flight
        )
        return [outcome.replies[q.id].meta["levels"][0]["confidence"] for q in QUESTIONS]

    alone, together = confidences(1), confidences(8)
    assert len({round(value, 6) for value in alone if value is not None}) >= 6
    assert alone == pytest.approx(together, abs=1e-5)
