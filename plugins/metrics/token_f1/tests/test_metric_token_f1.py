"""Token F1 against an independent definition, the tricky replies, and conformance."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import Answer, Example, Question, Reply, Scored
from moco_metric_token_f1 import Options, TokenF1
from moco_toolkit_authoring import metric_checks, score_of

test_conformance = metric_checks("token_f1", settings=[{}, {"fold_accents": False, "split_hyphens": False}])

SQUAD = Options(fold_accents=False, split_hyphens=False, split_cjk=False)


def example(*references: str) -> Example:
    return Example(question=Question(id="q", prompt="?", answer_kind="short"), references=references)


def score(reply: str, *references: str) -> float | None:
    return score_of(TokenF1(Options()), example(*references), reply).value


def squad_f1(prediction: str, gold: str) -> float:
    """The definition of SQuAD's evaluation, written from the paper's description (arXiv 1606.05250, section 6.1)."""

    def words(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", kept).split()

    p, g = words(prediction), words(gold)
    same = sum((Counter(p) & Counter(g)).values())
    if not p or not g:
        return float(p == g)
    if same == 0:
        return 0.0
    precision, recall = same / len(p), same / len(g)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        ("Salt Lake City, Utah", "Utah", 0.4),
        ("Salt Lake City, Utah", "Salt Lake City, Utah", 1.0),
        ("Beyoncé", "Beyonce", 1.0),
        ("Jean-Paul Sartre", "Jean Paul Sartre", 1.0),
        ("The Who", "The Who", 1.0),
        ("The Who", "the", 0.0),
        ("Paris", "", 0.0),
        ("東京都", "東京", 0.8),
        ("!!!", "!!!", 1.0),
    ],
)
def test_tricky_replies(gold: str, reply: str, value: float) -> None:
    assert score(reply, gold) == pytest.approx(value)


def test_the_best_reference_counts() -> None:
    assert score("Keran, Queen of Armenia", "Keran", "Keran, Queen of Armenia") == 1.0


def test_the_short_answer_is_scored_and_containment_is_told() -> None:
    scored = score_of(TokenF1(Options()), example("Jane Austen"), "It was written in 1813.\nThe answer is Jane Austen.")
    assert scored.value == 1.0
    assert scored.meta["contains"] is True
    wordy = score_of(TokenF1(Options()), example("Jane Austen"), "Surely Jane Austen wrote it, long ago.")
    assert 0 < (wordy.value or 0) < 1
    assert wordy.meta["contains"] is True


WORDS = st.lists(
    st.sampled_from(["the", "a", "Obama", "Barack", "New", "York", "U.S.", "(1776)", "it's", "well-known", "an"])
)


@settings(max_examples=400, deadline=None)
@given(WORDS, WORDS)
def test_agrees_with_the_definition(left: list[str], right: list[str]) -> None:
    prediction, gold = " ".join(left), " ".join(right)
    if not [w for w in re.sub(r"[^\w\s]", "", gold.lower()).split() if w not in ("a", "an", "the")]:
        return  # a reference that normalises to nothing is compared as it stands
    assert TokenF1(SQUAD).f1(prediction, gold) == pytest.approx(squad_f1(prediction, gold))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=120), st.text(max_size=60))
def test_never_raises_and_stays_in_range(reply: str, gold: str) -> None:
    metric, item = TokenF1(Options()), example(gold)
    first = metric.score(item, Reply(text=reply), None)  # type: ignore[arg-type]
    assert first == metric.score(item, Reply(text=reply), None)  # type: ignore[arg-type]
    assert 0 <= (first.value or 0) <= 1


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["Jane Austen", "Beyoncé", "The Who", "12 March 1984", "Jean-Paul Sartre", "東京都"]),
    st.sampled_from(["{}", "The answer is {}.", "Answer: {}", "It was long ago.\n{}"]),
    st.sampled_from(["", " ", "\n\n", "\t", "\r\n", "\u00a0"]),
    st.sampled_from(["", "*", "**", "***", "_", "__"]),
)
def test_space_and_emphasis_change_nothing(gold: str, frame: str, space: str, mark: str) -> None:
    reply = Reply(text=f"{space}{frame.format(mark + gold + mark)}{space}")
    assert TokenF1(Options()).score(example(gold), reply, None).value == 1.0  # type: ignore[arg-type]


def test_utilities_of_a_vote() -> None:
    """Three voters: S = 1 + 2/3 for both names of one person, 1 for another (arXiv 2402.05120's similarity vote)."""
    metric, question = TokenF1(Options()), example("x").question
    voters = [metric.read(question, t) for t in ("Barack Obama", "Obama", "Joe Biden")]
    support = [sum(metric.utility(question, a, b) for b in voters) for a in voters]
    assert support == pytest.approx([5 / 3, 5 / 3, 1])
    assert metric.utility(question, voters[0], Answer()) == 0


def test_containment_stands_in_the_extra_metrics() -> None:
    metric, rows = TokenF1(Options()), []
    for reply in ("I think that it is Paris, the capital of France.", "Lyon", "paris", ""):
        item = example("Paris")
        rows.append(Scored(example=item, reply=Reply(text=reply), score=score_of(metric, item, reply)))
    assert metric.extra_metrics(rows) == {"contains": 0.5}
