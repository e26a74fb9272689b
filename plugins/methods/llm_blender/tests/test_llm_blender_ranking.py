"""Rankings worked out by hand, and what is read out of a judge's verdict."""

from __future__ import annotations

import asyncio
import itertools
import random

import attrs
import pytest
from blended_replies import QUESTION
from scipy.stats import spearmanr

from moco_method_llm_blender.aggregates import bias, rank, scores, spearman
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.rankers import Ranker, order
from moco_method_llm_blender.verdicts import parse
from moco_toolkit_authoring import open_state


@attrs.frozen
class Given(Ranker):
    """Preferences between texts "0", "1", ... by a matrix, and how often it was asked."""

    matrix: list
    asked: list = attrs.field(factory=list)

    async def preferences(self, question, texts, pairs, context):
        self.asked.extend(pairs)
        return [self.matrix[int(texts[i])][int(texts[j])] for i, j in pairs]


def ranked(matrix, texts=None, skills=None, **options):
    """Return the texts in order, best first, and the ranking."""
    texts = texts or [str(i) for i in range(len(matrix))]
    ranker = Given(matrix)

    async def work():
        async with open_state() as state:
            context = state.context("respond", QUESTION)
            return await order(ranker, QUESTION, texts, skills or [0.0] * len(texts), Options(**options), context)

    found = asyncio.run(work())
    return [texts[i] for i in found.places], found, ranker.asked


def test_scores_of_three_candidates_are_those_worked_out_by_hand():
    m = [[0, 2, 1], [-2, 0, 3], [-1, -3, 0]]
    assert scores(m, "max_logits") == [6, 2, -8]
    assert scores(m, "max_wins") == [4, 2, 0]
    assert scores([[0, 0.0], [0.0, 0]], "max_wins") == [1, 1]  # a 0 is half a win in each order
    assert ranked(m)[1].scores == (6, 2, -8)


@pytest.mark.parametrize("b", [-7.0, -0.5, 0.0, 3.0, 100.0])
def test_a_bias_for_a_place_that_adds_to_every_preference_cancels(b):
    rng = random.Random(3)
    delta = [[float(rng.randint(-8, 8)) for _ in range(5)] for _ in range(5)]
    moved = [[value + b for value in row] for row in delta]
    assert scores(moved, "max_logits") == scores(delta, "max_logits")
    assert ranked(moved)[0] == ranked(delta)[0]
    own = [[delta[i][j] - delta[j][i] for j in range(5)] for i in range(5)]
    found = ranked([[v + b for v in row] for row in own])[1]
    assert found.record(2)["position_bias"] == b
    one = ranked([[100.0 + 0 * v for v in row] for row in own], orders=1)[1]  # the ablation does not cancel it
    assert one.scores[0] > one.scores[-1]


def test_a_judge_that_always_names_one_place_decides_nothing_and_dev_does():
    always = [[1.0] * 4 for _ in range(4)]
    found = ranked(always, skills=[0.2, 0.9, 0.9, 0.1])
    assert set(found[1].scores) == {0.0} and found[0] == ["1", "2", "0", "3"]
    assert found[1].record(2) == {"scores": [0.0] * 4, "unread": 0, "position_bias": 1.0, "same_place": 1.0}
    assert bias([[0.0]]) == (0.0, 0.0)


@pytest.mark.parametrize("how", ["max_logits", "max_wins", "bubble"])
def test_transitive_preferences_have_one_winner_whatever_the_order_of_the_models(how):
    worth = [1.0, 4.0, 2.5, 3.0]
    m = [[a - b for b in worth] for a in worth]
    for texts in itertools.permutations("0123"):
        first, _, asked = ranked(m, list(texts), aggregation=how)
        assert first[0] == "1"
        assert len(asked) == (6 if how == "bubble" else 12) == Options(aggregation=how).comparisons(4)
        if how != "bubble":
            assert first == ["1", "3", "2", "0"]


def test_ties_go_to_the_own_comparison_then_to_dev_and_cycles_to_dev():
    tied = [[0, 3, -3], [-3, 0, 3], [3, -3, 0]]
    assert scores(tied, "max_logits") == [0, 0, 0]
    assert rank([0, 0, 0], tied, [0.1, 0.2, 0.3]) == [2, 1, 0]  # a cycle
    assert rank([1, 1, 5], [[0, -1, 0], [1, 0, 0], [0, 0, 0]], [0.9, 0.1, 0]) == [2, 1, 0]  # 1 beats 0
    assert rank([1, 1 + 1e-12], [[0, 0], [0, 0]], [0.5, 0.5]) == [0, 1]
    assert rank([0, 1], [[0, 0], [0, 0]], [9, 0]) == [1, 0]


def test_the_rank_correlation_is_scipys():
    rng = random.Random(0)
    for _ in range(20):
        a, b = ([float(rng.randint(0, 4)) for _ in range(6)] for _ in range(2))
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman([1, 1], [0, 1]) is None


B = ("B", "**B**", '"B"', "(B)", "B.", " B\n", "Candidate B", "Answer: B", "Answer B", "Final: B", "After comparing, B")
B += ("Reply A is short. Verdict: B", "**Verdict:** Reply **B**", "The answer is B.")
A = ("A", "[A]", "Based on correctness, A is better", "Winner: Reply A", "I prefer A.")
UNCLEAR = (
    "Both",
    "",
    "A or B",
    "Both are equal",
    "A good reply",
    "neither a nor b",
    "Answer: A or B",
    "A and B",
    "ABBA",
)
UNCLEAR += ("A is better", "A's and so on", "Answer: A is wrong and B right")


@pytest.mark.parametrize(
    ("reply", "verdict"), [(text, v) for texts, v in ((A, 1), (B, -1), (UNCLEAR, 0)) for text in texts]
)
def test_a_verdict_is_read_where_it_is_clear_and_only_there(reply, verdict):
    assert parse(reply) == verdict
