"""Jobs are values: equal ones have one fingerprint, wrong ones are refused in one line, and a scripted model takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from moco_core import ConfigError, Message, Model, Pool
from moco_toolkit_authoring import ScriptedPool, open_state
from moco_toolkit_training import (
    Classify,
    Completion,
    Demonstration,
    Dpo,
    Duel,
    Grpo,
    Job,
    Labelled,
    Lora,
    Preference,
    Rank,
    Reward,
    Sft,
    Task,
    kept,
    pairing,
    restore_trained,
    save_trained,
)


async def lengths(completions: Sequence[Completion]) -> list[float | None]:
    return [float(len(c.text) + c.task.extra.get("bonus", 0)) for c in completions]


ROW = Demonstration.of("What is 2 + 2?", "4")
PAIR = Preference(prompt="Hi", chosen="Hello", rejected="No")
JOBS: list[Job] = [
    Sft(rows=[ROW]),
    Dpo(rows=[PAIR]),
    Grpo(rows=[Task(prompt="Write.", extra={"bonus": 10})], judge=lengths, judged_by="length"),
    Classify(rows=[Labelled(messages="a text", label=1)], classes=2),
    Reward(rows=[PAIR]),
    Rank(rows=[Duel(query="q", a="x", b="y", label=1.0)]),
]


def test_jobs_of_all_services_have_fingerprints_of_their_own_that_name_no_object() -> None:
    assert len({job.fingerprint for job in JOBS}) == len({job.service for job in JOBS}) == 6
    again = attrs.evolve(JOBS[2], judge=lambda completions: lengths(completions))
    assert again.fingerprint == JOBS[2].fingerprint  # what gives the reward is told by `judged_by`
    assert attrs.evolve(JOBS[2], judged_by="another").fingerprint != JOBS[2].fingerprint


def test_every_setting_and_row_decides_the_fingerprint_and_a_default_said_aloud_does_not() -> None:
    base = Sft(rows=[ROW])
    assert Sft(rows=(ROW,), learning_rate=1e-4).fingerprint == base.fingerprint
    others: list[dict[str, Any]] = [
        {"rows": [ROW, ROW]},
        {"rows": [Demonstration.of("What is 2 + 2?", "5")]},
        {"lora": None},
        {"lora": Lora(r=8)},
        {"seed": 1},
        {"epochs": 1},
        {"overlong": "drop"},
        {"held_out": [ROW]},
    ]
    assert len({base.fingerprint, *(attrs.evolve(base, **o).fingerprint for o in others)}) == 1 + len(others)
    assert (base.rate, attrs.evolve(base, lora=None).rate, attrs.evolve(base, learning_rate=3e-3).rate) == (
        1e-4,
        1e-5,
        3e-3,
    )


def test_demonstrations_train_the_last_turn_or_those_that_are_named() -> None:
    talk = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d")]
    assert Demonstration(messages=talk).turns == (3,)
    assert Demonstration(messages=talk, trained=(3, 1)).turns == (1, 3)
    with pytest.raises(ConfigError, match="trains on turn 2, which is not one of the assistant's"):
        _ = Demonstration(messages=talk, trained=(2,)).turns


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda: Grpo(rows=[], judge=lengths, judged_by=0, temperature=0), "grpo: temperature must be above 0, got 0"),
        (lambda: Grpo(rows=[], judge=lengths, judged_by=0, group=1), "grpo: group must be at least 2, got 1"),
        (
            lambda: Grpo(rows=[], judge=lengths, judged_by=0, batch=20),
            "grpo: batch .20 completions. must be a multiple",
        ),
        (lambda: Dpo(rows=[], beta=0), "dpo: beta must be above 0"),
        (lambda: Sft(rows=[], epochs=0), "sft: epochs must be above 0"),
        (lambda: Lora(r=0), "lora: r must be at least 1, got 0"),
        (lambda: Classify(rows=[Labelled(messages="x", label=2)], classes=2), "the label 2 is none of 2 classes"),
        (lambda: Classify(rows=[Labelled(messages="x", label=(0.5, 0.6))], classes=2), "is no distribution over 2"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(wrong: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        wrong()


def test_soft_labels_and_hard_ones_become_probabilities() -> None:
    assert Labelled(messages="x", label=1).probabilities(3) == (0.0, 1.0, 0.0)
    assert Labelled(messages="x", label=[0.25, 0.75]).probabilities(2) == (0.25, 0.75)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.service)
def test_a_scripted_model_takes_every_job_and_gives_what_a_trained_one_gives(job: Job) -> None:
    source = ScriptedPool({"a": "no reply"}, learn=lambda taught, before: learnt)

    def learnt(call: Any) -> Any:
        return (0.25, -0.25) if call.kind == "reward" else "a reply"

    async def work() -> Model:
        async with open_state() as state:
            context = state.context("fit")
            model = await context.train(source.pool[0], job)
            if job.service in ("classify", "reward", "rank"):
                assert not model.can("generate")
                assert await context.reward(model, pairing("q", "x", "y")) == (0.25, -0.25)
            else:
                said = (await context.generate(model, "What is 2 + 2?")).text
                assert said == "a reply"
            return model

    assert asyncio.run(work()).sources == (source.pool[0],)
    assert [(name, done) for name, done in source.trainings] == [("a", job)]


def test_what_was_trained_in_rounds_is_kept_with_its_pool_alone(tmp_path: Path) -> None:
    """The rounds between are not in the pool: the first model, or the nearest that is, is what it is opened on."""

    def add(taught: Any, before: Any) -> Any:
        return lambda call: (
            f"{before if isinstance(before, str) else before(call)}+{taught['rows'][0]['messages'][-1]['content']}"
        )

    def rounds() -> ScriptedPool:
        return ScriptedPool({"a": "start", "b": "other"}, learn=add)

    async def work() -> None:
        async with open_state() as run:
            context = run.context("fit")
            source = rounds()
            models = [source.pool[0]]
            for number in range(3):
                job = Sft(rows=[Demonstration.of("q", str(number))])
                models.append(await context.train(models[-1], job, name=f"round{number}"))
            save_trained(models[3], tmp_path / "kept")
            save_trained(models[0], tmp_path / "nothing")
            state = json.loads(json.dumps([kept(model) for model in models]))
            assert state[3]["bases"] == ["round1", "round0", "a"] and state[0] == {"name": "a"} and kept(None) is None
            for pool in (rounds().pool, Pool([models[2], rounds().pool[1]])):
                again = restore_trained(pool, state[3], tmp_path / "kept")
                assert again is not None and again.fingerprint == models[3].fingerprint
                assert (await context.generate(again, "q")).text == "start+0+1+2"
            fresh = rounds().pool
            assert restore_trained(fresh, state[0], tmp_path / "nothing") is fresh[0]
            with pytest.raises(ConfigError, match="trained model: no model 'a' in the pool"):
                restore_trained(Pool(fresh[1:]), state[3], tmp_path / "kept")

    asyncio.run(work())
    assert not (tmp_path / "nothing").exists()


def test_a_scripted_model_asks_for_rewards_and_its_history_has_them() -> None:
    notes: list[Any] = []

    async def work() -> None:
        async with open_state() as state:
            state.on_note = lambda phase, note: notes.append(note)
            await state.context("fit").train(ScriptedPool({"a": "four"}).pool[0], JOBS[2])

    asyncio.run(work())
    assert notes[0]["reward"] == 14.0  # four letters, and the bonus of the task
