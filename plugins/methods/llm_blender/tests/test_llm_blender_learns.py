"""LLM-Blender with weights: a head that is trained on dev finds the right reply where the judge that it was made of cannot."""

from __future__ import annotations

import pytest
import random_checkpoints
import training_here

from moco_core import Answer, Example, Metric, NoOptions, Pool, Question, Sampling, Score, build
from moco_method_llm_blender.method import LlmBlender
from moco_method_llm_blender.options import Options
from moco_pool_transformers.pool import Options as PoolOptions
from moco_pool_transformers.pool import TransformersPool
from moco_toolkit_authoring import ScriptedPool, run_method

pytestmark = pytest.mark.slow  # the libraries of the training take a good part of a minute to import


class Says(Metric[NoOptions]):
    """Right is what gives an answer."""

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed") if text else Answer()

    def score(self, example, reply, context):
        return Score(value=float("answer is" in reply.text))


def turn(number: int, of: int = 3):
    """A model that is right on every third question."""

    def say(call):
        asked = int(call.transcript.split()[-1])
        return f"The answer is {asked}." if asked % of == number else f"the lazy dog {number} runs away"

    return say


def test_a_trained_head_finds_the_right_reply_on_questions_that_it_never_saw(tmp_path, monkeypatch):
    training_here.train_here(monkeypatch)
    base = random_checkpoints.write(tmp_path / "judge", hidden_size=32, intermediate_size=64, num_attention_heads=1)
    local = {"models": [base], "device": "cpu", "cache": str(tmp_path / "hashes")}
    (judge,) = TransformersPool(build(PoolOptions, local)).pool
    solvers = ScriptedPool({f"m{i}": turn(i) for i in range(3)})
    asked = [Example(question=Question(id=str(i), prompt=f"Say {i}"), references=("",)) for i in range(24)]

    def right(**options) -> tuple[float, dict]:
        given = {
            "judge": "judge",
            "fuse": False,
            "ranker_learning_rate": 1e-2,
            "ranker_epochs": 3,
            "lora_r": 4,
            **options,
        }
        outcome = run_method(
            LlmBlender(build(Options, given)),
            Pool([*solvers.models(), judge]),
            dev=asked[:15],
            questions=[e.question for e in asked[15:]],
            metric=Says(NoOptions()),
            sampling=Sampling(temperature=0.0, max_new_tokens=12),
        )
        return sum("answer is" in r.text for r in outcome.replies.values()) / 9, outcome.noted("ranking")

    untrained, before = right(verdict="logprobs")
    trained, after = right(ranker="pair_head")
    assert trained == 1.0 and after["top1"] == 1.0 and after["spearman"] > before["spearman"]
    assert untrained <= 0.5  # of four replies one is right
