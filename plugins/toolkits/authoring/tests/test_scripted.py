"""The scripted models that everybody's tests stand on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moco_core import Example, ModelCallError, Pool, Question, Sampling
from moco_core.errors import PromptTooLong
from moco_core.types import Evaluation, Generation
from moco_toolkit_authoring import Faults, ScriptedPool, ScriptedServer, open_state, scripted_model


def ask(pool: Pool, *prompts: str, sampling: Sampling | None = None, model: int = 0) -> list[Generation]:
    async def work() -> list[Any]:
        async with open_state(sampling=sampling or Sampling()) as state:
            context = state.context("fit")
            return await context.gather((context.generate(pool[model], p) for p in prompts), tolerate=Exception)

    return asyncio.run(work())


def test_a_model_says_what_it_is_told_and_remembers_what_it_was_asked() -> None:
    source = ScriptedPool({"a": "yes", "b": lambda call: call.prompt.upper()})
    assert [r.text for r in ask(source.pool, "one", "two", model=1)] == ["ONE", "TWO"]
    assert ask(source.pool, "three")[0].text == "yes"
    assert sorted(source.prompts("b")) == ["one", "two"]
    assert source.prompts("a") == ["three"]


def test_a_queue_ends_with_a_clear_error() -> None:
    pool = Pool([scripted_model("a", ["first", ModelCallError("broken")])])
    assert ask(pool, "x")[0].text == "first"
    assert str(ask(pool, "y")[0]) == "broken"
    assert "a: the script has no reply left (2 were given); asked: 'z'" in str(ask(pool, "z")[0])


def test_stops_and_budgets_cut_as_decoding_does() -> None:
    pool = ScriptedPool({"a": "one two three four"}).pool
    (cut,) = ask(pool, "x", sampling=Sampling(max_new_tokens=2))
    assert (cut.text, cut.finish_reason, cut.usage.completion_tokens) == ("one two", "length", 2)
    (stopped,) = ask(pool, "x", sampling=Sampling(stop=("three", "four")))
    assert (stopped.text, stopped.finish_reason) == ("one two ", "stop")
    assert len(stopped.token_logprobs) == len(stopped.token_ids)


def test_faults_hit_the_calls_they_name() -> None:
    source = ScriptedPool({"a": "fine"}, faults=Faults(when=lambda call: "bad" in call.prompt))
    good, bad = ask(source.pool, "good", "bad")
    assert good.text == "fine"
    assert isinstance(bad, ModelCallError)


def test_a_dev_question_too_long_for_a_model_counts_as_wrong_and_other_errors_stop_the_evaluation() -> None:
    def reply(call: Any) -> Any:
        if "long" in call.prompt:
            return PromptTooLong("2000 tokens, 1024 at most")
        return ModelCallError("server gone") if "lost" in call.prompt else "The answer is yes"

    async def work(*prompts: str) -> tuple[Evaluation, list[str]]:
        pool = Pool([scripted_model("a", reply)])
        examples = [Example(question=Question(id=p, prompt=p), references=("yes",)) for p in prompts]
        async with open_state() as state:
            return await state.context("fit").evaluate(pool, examples), state.warnings

    table, warnings = asyncio.run(work("short", "long one", "long two"))
    assert table.scores == ((1.0, 0.0, 0.0),)
    assert [r.text for r in table.replies[0]] == ["The answer is yes", "", ""]
    assert warnings == ["a: dev questions that are too long for it count as empty replies"]
    with pytest.raises(ModelCallError, match="server gone"):
        asyncio.run(work("short", "lost"))


def test_running_out_of_memory_is_retried_in_smaller_batches() -> None:
    source = ScriptedPool({"a": "fine"}, faults=Faults(largest_batch=2))
    assert [r.text for r in ask(source.pool, *"abcdefg")] == ["fine"] * 7
    assert min(source.engine.batches) <= 2 < max(source.engine.batches)


@pytest.mark.parametrize("server", [False, True])
def test_both_kinds_of_engine_give_the_same(server: bool) -> None:
    source = ScriptedPool({"a": lambda call: f"{call.prompt} {call.seed}"}, engine=ScriptedServer() if server else None)
    replies = ask(source.pool, "x", "y", sampling=Sampling(temperature=1.0))
    expected = ask(
        ScriptedPool({"a": lambda call: f"{call.prompt} {call.seed}"}).pool,
        "x",
        "y",
        sampling=Sampling(temperature=1.0),
    )
    assert [r.text for r in replies] == [r.text for r in expected]


def test_scores_embeddings_and_rewards_depend_on_their_input_alone() -> None:
    pool = ScriptedPool({"a": "-"}).pool

    async def work() -> tuple[Any, ...]:
        async with open_state() as state:
            context = state.context("fit")
            score = await context.score(pool[0], "q", ["one two", "three"])
            near = await context.embed(pool[0], ["red car", "red cart", "blue sky"])
            return score, near

    (first, second), vectors = asyncio.run(work())
    assert len(first.token_logprobs) == 2 and len(second.token_logprobs) == 1
    assert first.logprob == pytest.approx(sum(first.token_logprobs))

    def product(a: Any, b: Any) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert product(vectors[0], vectors[1]) > product(vectors[0], vectors[2])
    assert asyncio.run(work()) == ((first, second), vectors)
