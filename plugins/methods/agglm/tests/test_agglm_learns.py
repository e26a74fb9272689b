"""AggLM with weights: GRPO teaches a tiny aggregator the word that the right solution says and the majority does not.

The word is the same in every set: a model of this size learns in a few dozen updates to prefer it, not to read for it.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import random_checkpoints
import training_here

from moco_core import Answer, Example, Message, Metric, NoOptions, Pool, Question, Sampling, Score, build
from moco_method_agglm.method import Agglm
from moco_method_agglm.options import Options
from moco_method_agglm.prompts import Room
from moco_toolkit_authoring import ScriptedPool, open_state
from moco_toolkit_training import Demonstration, Sft

transformers = pytest.importorskip("moco_pool_transformers.pool", reason="the engine is a plugin of its own")
pytestmark = pytest.mark.slow  # more than a thousand rollouts of a model, if a tiny one

FRUIT = ("apple", "plum")
DEV = [Example(question=Question(id=f"d{i}", prompt=f"{i} which ?"), references=("plum",)) for i in range(16)]
OPTIONS = {
    "aggregator": "reader", "m": 4, "sets_per_question": 2, "checkpoints": 1, "num_generations": 8, "batch": 16, "epochs": 2.0,
    "learning_rate": 3e-3, "lora_r": 0, "val_fraction": 0.3, "solution_temperature": 0.0,
}  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)


class Named(Metric[NoOptions]):
    """The answer is the fruit that a reply ends with."""

    def read(self, question: Question, text: str) -> Answer:
        last = (text.split() or [""])[-1]
        return Answer(key=last, text=last, status="parsed") if last in FRUIT else Answer()

    def score(self, example: Example, reply: Any, context: Any) -> Score:
        answer = self.read(example.question, reply.text)
        return Score(value=float(answer.key == example.references[0]), answer=answer)


def words(texts: list[str]) -> Any:
    """A tokenizer with a token for every word of the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)})
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<s>", "</s>", "<unk>", *known])}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    out = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    out.chat_template = TEMPLATE
    return out


def test_grpo_raises_the_reward_of_the_marked_solution_on_held_out_sets(tmp_path, monkeypatch):
    training_here.train_here(monkeypatch)
    solvers = ScriptedPool({"sure": "sure plum", "guess": "maybe apple", "tip": "maybe apple"})
    room = Room(prompt=400, reply=3)

    def shown(number: int) -> tuple[Message, ...]:
        """A set as the aggregator will read them; the fourth solution is its own, and says nothing."""
        texts = ["sure plum", "maybe apple", "maybe apple", FRUIT[number % 2]]
        return room.messages(DEV[number].question, texts[number % 4 :] + texts[: number % 4])

    prompts = [shown(number) for number in range(len(DEV))]
    tok = words([*(m.content for prompt in prompts for m in prompt), *map(str, range(len(DEV)))])
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    base = random_checkpoints.write(tmp_path / "base", tok=tok, **sizes)
    local = {"models": [base], "device": "cpu", "cache": str(tmp_path / "hashes")}
    (random,) = transformers.TransformersPool(build(transformers.Options, local)).pool

    async def work() -> list[Any]:
        sampling = Sampling(temperature=0.0, max_new_tokens=3)
        async with open_state(metric=Named(NoOptions()), sampling=sampling) as state:
            notes: list[Any] = []
            state.on_note = lambda phase, note: notes.append(note)
            context = state.context("fit")
            # to begin with it writes one of two words, mostly that of the majority
            said = ("apple", "apple", "plum")
            rows = [Demonstration(messages=[*prompt, Message("assistant", one)]) for prompt in prompts for one in said]
            job = Sft(rows=rows, lora=None, learning_rate=4e-3, epochs=12, batch=16, min_steps=1)
            reader = await context.train(random, job, name="reader")
            await Agglm(build(Options, OPTIONS)).fit(Pool([reader, *solvers.models()]), DEV, context)
            return notes

    notes = asyncio.run(work())
    (held,) = [n for n in notes if "held_out_reward" in n]
    before, after = held["held_out_reward"].values()
    assert held["held_out_majority"] == 0 and held["chosen"] == "reader-agglm"
    assert before <= 0.5 and after >= before + 0.4, held
    rewards = [n["reward"] for n in notes if "reward" in n and "step" in n]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.3
