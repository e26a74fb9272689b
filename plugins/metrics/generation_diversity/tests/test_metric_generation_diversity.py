"""Diversity measures in closed form, and which replies they are taken over."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from moco_core import CapabilityError, ConfigError, Example, Question, Reply, Score, Scored
from moco_metric_generation_diversity import (
    GenerationDiversity,
    Options,
    distinct_n,
    pairwise_distance,
    reference_distance,
    self_bleu,
    vendi_score,
)
from moco_toolkit_authoring import ScriptedPool, as_plugin, metric_checks, open_state

test_conformance = metric_checks("generation_diversity", settings=[{}, {"n": 1}])

AXES = [(1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 3.0)]


def test_distinct_counts_unique_ngrams() -> None:
    assert distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a b", "a b", "c d"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["one"], 2) == 0.0


def test_self_bleu_of_equal_and_disjoint_texts() -> None:
    pytest.importorskip("sacrebleu")
    same = "the quick brown fox jumps over the lazy dog"
    assert self_bleu([same, same, same]) == pytest.approx(100)
    assert self_bleu([same, "a slow green turtle sleeps near some busy cats"]) < 5


def test_distances_of_parallel_and_orthogonal_vectors() -> None:
    assert pairwise_distance(AXES) == pytest.approx(1)
    assert pairwise_distance([(1.0, 1.0), (2.0, 2.0)]) == pytest.approx(0)
    assert reference_distance((1.0, 0.0), [(1.0, 0.0), (0.0, 1.0)]) == pytest.approx(0.5)
    assert reference_distance((1.0, 0.0), [(-1.0, 0.0)]) == pytest.approx(2)


def test_vendi_score_is_the_effective_number() -> None:
    assert vendi_score(AXES) == pytest.approx(3)
    assert vendi_score([(1.0, 2.0)] * 5) == pytest.approx(1)
    # two equal vectors and one orthogonal: eigenvalues 2/3 and 1/3
    expected = math.exp(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)))
    assert vendi_score([(1.0, 0.0), (1.0, 0.0), (0.0, 1.0)]) == pytest.approx(expected)


def scored(reply: Reply, references: tuple[str, ...] = (), **options: Any) -> Score:
    item = Example(question=Question(id="q", prompt="Tell.", answer_kind="open"), references=references)
    pool = ScriptedPool({"encoder": ""})

    async def work() -> Score:
        metric = GenerationDiversity(Options(pool=as_plugin(pool), **options))
        async with open_state(metric=metric) as state:
            return await metric.score(item, reply, state.context("metric", item.question))

    return asyncio.run(work())


def test_measures_need_what_they_compare() -> None:
    alone, pair = Reply(text="a b"), Reply(text="a b", meta={"samples": ["a b", "a b"]})
    assert scored(alone, measure="pairwise").value is None
    assert scored(pair, measure="pairwise").value == pytest.approx(0)
    assert scored(pair, measure="vendi").value == pytest.approx(0.5)
    assert scored(alone, measure="reference_distance").value is None
    assert scored(alone, ("a b",), measure="reference_distance").value == pytest.approx(0)
    assert scored(Reply(text="<think>x y</think>a b c")).value == 1


def test_an_encoder_is_asked_for_in_one_line() -> None:
    with pytest.raises(ConfigError, match="pool: missing; measure: vendi needs an encoder"):
        Options(measure="vendi")
    with pytest.raises(CapabilityError, match="gives no embeddings"):
        pool = as_plugin(ScriptedPool({"m": ""}, capabilities=frozenset({"generate"})))
        GenerationDiversity(Options(measure="vendi", pool=pool)).check()


def test_mean_length_stands_in_the_extra_metrics() -> None:
    item = Example(question=Question(id="q", prompt="Tell.", answer_kind="open"))
    rows = [
        Scored(example=item, reply=Reply(text=t), score=scored(Reply(text=t))) for t in ("abcd", "<think>x</think>ab")
    ]
    assert GenerationDiversity(Options()).extra_metrics(rows) == {"characters": 3}
