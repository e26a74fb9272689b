"""Reward model: what the model is shown, what is told beside the score, and comparison with a baseline."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from moco_core import CapabilityError, ConfigError, DatasetError, Example, Question, Reply, Score, Scored
from moco_metric_reward_model import Options, RewardModel
from moco_toolkit_authoring import ScriptedPool, as_plugin, metric_checks, open_state


def beside(reply: str, id: str) -> Example:
    return Example(question=Question(id=id, prompt="Tell a story.", answer_kind="open"), meta={"baseline": reply})


# a reward has no range of its own, wins have
test_conformance = metric_checks(
    "reward_model",
    settings=[{"report": "win_rate", "baseline": "dataset"}],
    examples=[beside("Once upon a time.", "a"), beside("No.", "b")],
    pool=lambda: ScriptedPool({"judge": ""}).pool,
)

ITEM = Example(question=Question(id="q1", prompt="Tell a story.", system="Be kind.", answer_kind="open"))


def scored(*replies: str, item: Example = ITEM, **options: Any) -> tuple[list[Score], ScriptedPool]:
    pool = ScriptedPool({"judge": ""})

    async def work() -> list[Score]:
        metric = RewardModel(Options(pool=as_plugin(pool), **options))
        async with open_state(metric=metric) as state:
            context = state.context("metric", item.question)
            return [await metric.score(item, Reply(text=r), context) for r in replies]

    return asyncio.run(work()), pool


def test_the_model_reads_the_whole_conversation_without_reasoning() -> None:
    (score,), pool = scored("<think>plan</think>Once upon a time.")
    call = pool.history[0]
    assert call.kind == "reward"
    assert [(m.role, m.content) for m in call.messages] == [
        ("system", "Be kind."),
        ("user", "Tell a story."),
        ("assistant", "Once upon a time."),
    ]
    assert score.meta["characters"] == len("Once upon a time.")
    assert score.value is not None


def test_empty_replies_are_scored() -> None:
    (score,), pool = scored("")
    assert score.value is not None
    assert pool.history[0].messages[-1].content == ""


def test_one_reply_is_scored_once() -> None:
    (first, second, other), pool = scored("a", "a", "b")
    assert first.value == second.value != other.value
    assert len(pool.history) == 2


def test_win_rate_against_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "baseline.jsonl"
    path.write_text(json.dumps({"id": "q1", "text": "b"}) + "\n")
    (a, b), _ = scored("a", "b")
    assert a.value is not None and b.value is not None
    (win, tie), _ = scored("a", "b", baseline=str(path), report="win_rate")
    assert win.value == float(a.value > b.value)
    assert tie.value == 0.5
    assert win.meta["baseline"] == b.value
    (plain,), _ = scored("a", baseline=str(path))
    assert plain.value == a.value


def test_win_rate_against_the_replies_that_the_dataset_brings() -> None:
    own = Example(question=ITEM.question, meta={"baseline": "<think>hm</think>b"})
    (a, b), _ = scored("a", "b")
    (win, tie), _ = scored("a", "b", item=own, baseline="dataset", report="win_rate")
    assert (win.value, tie.value) == (float((a.value or 0) > (b.value or 0)), 0.5)
    with pytest.raises(DatasetError, match="question 'q1': the dataset brings no baseline reply"):
        scored("a", baseline="dataset")


def test_extra_metrics_are_mean_length_reward_and_win_rate(tmp_path: Path) -> None:
    path = tmp_path / "baseline.jsonl"
    path.write_text(json.dumps({"id": "q1", "text": "b"}) + "\n")
    scores, _ = scored("a", "b", baseline=str(path), report="win_rate")
    rows = [Scored(example=ITEM, reply=Reply(text="x"), score=s) for s in scores]
    extra = RewardModel(Options()).extra_metrics(rows)
    win = float(scores[0].meta["reward"] > scores[1].meta["reward"])
    assert extra["win_rate"] == (win + 0.5) / 2
    assert extra["characters"] == 1
    assert extra["reward"] == pytest.approx((scores[0].meta["reward"] + scores[1].meta["reward"]) / 2)
    plain, _ = scored("abc")
    rows = [Scored(example=ITEM, reply=Reply(text="x"), score=s) for s in plain]
    assert RewardModel(Options()).extra_metrics(rows) == {"characters": 3}


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match=r"metric\.pool: model 'm' cannot score a conversation"):
        pool = as_plugin(ScriptedPool({"m": ""}, capabilities=frozenset({"generate"})))
        RewardModel(Options(pool=pool)).check()
    with pytest.raises(ConfigError, match="baseline: missing"):
        Options(report="win_rate")
    with pytest.raises(ConfigError, match=r"metric\.label: expected less than 1"):
        scored("a", label=3)
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "q1"}\n')
    with pytest.raises(DatasetError, match="row 1: expected an object with the fields id and text"):
        scored("a", baseline=str(path))
    path.write_text('{"id": "other", "text": "x"}\n')
    with pytest.raises(DatasetError, match="no reply with id 'q1'"):
        scored("a", baseline=str(path))
