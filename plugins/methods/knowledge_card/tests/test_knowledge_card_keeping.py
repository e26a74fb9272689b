"""Which passages are kept: by relevance, length and truth."""

from __future__ import annotations

import math
import random
import re
from collections import Counter

import attrs
import pytest
from knowledge_cards import QUESTION, TEXT_ONLY, answers, ask, by_kind, card, kind, shown
from rank_bm25 import BM25Okapi
from sklearn.feature_extraction.text import TfidfVectorizer

from moco_core import Generation, Usage
from moco_method_knowledge_card.method import KnowledgeCard
from moco_method_knowledge_card.options import Options
from moco_method_knowledge_card.relevance import bm25, tfidf, words
from moco_method_knowledge_card.selecting import _cut, draw, ranked
from moco_method_knowledge_card.system import KnowledgeCardSystem
from moco_toolkit_authoring import ScriptedPool, run_method

TEXTS = [
    "Mercury is a metal that is liquid at room temperature.",
    "Iron rusts.",
    "The planet Mercury is near the sun, and it is hot.",
    "A liquid takes the shape of what holds it; a liquid metal too.",
    "Which is which? Nobody knows which.",
    "Bananas are yellow.",
    "",
]


@pytest.mark.parametrize("query", ["Which metal is liquid?", "planet and sun", "nothing in common here", "", "a I"])
def test_tfidf_is_that_of_scikit_learn(query):
    if not words(query):
        assert tfidf(query, TEXTS) == [0.0] * len(TEXTS)
        return
    matrix = TfidfVectorizer().fit_transform([query, *TEXTS])
    expected = (matrix[1:] @ matrix[0].T).toarray().ravel()
    assert tfidf(query, TEXTS) == pytest.approx(list(expected))
    best_first = sorted(range(len(TEXTS)), key=lambda i: -round(expected[i], 12))
    assert ranked(tfidf(query, TEXTS)) == best_first


@pytest.mark.parametrize("query", ["Which metal is liquid?", "planet planet sun", "nothing"])
def test_bm25_is_that_of_rank_bm25_with_an_idf_that_stays_positive(query):
    reference = BM25Okapi([words(text) for text in TEXTS])
    frequency = Counter(word for text in TEXTS for word in set(words(text)))
    reference.idf = {w: math.log(1 + (len(TEXTS) - n + 0.5) / (n + 0.5)) for w, n in frequency.items()}
    assert bm25(query, TEXTS) == pytest.approx(list(reference.get_scores(words(query))))
    assert min(bm25(query, TEXTS)) >= 0 and bm25(query, []) == []


@pytest.mark.parametrize("relevance", ["auto", "tfidf", "bm25", "embed"])
def test_the_most_relevant_passages_are_kept(relevance):
    facts = {
        "a": "bananas are yellow",
        "b": "which metal is liquid? mercury is",
        "c": "the metal is liquid",
        "d": "cats",
    }
    pool = ScriptedPool({"r": "the answer is A", **{name: card(text) for name, text in facts.items()}})
    reply = ask(pool, n3=2, relevance=relevance)
    assert set(shown(answers(pool)[0])) == {facts["b"], facts["c"]}
    assert all(row["relevance"] > 0 for row in reply.meta["passages"])
    assert sum(c.kind == "embed" for c in pool.history) == (relevance == "embed")


def test_ties_of_relevance_go_to_the_first_cards():
    pool = ScriptedPool({"r": "the answer is A", **{name: card(f"zzz{name}") for name in "abcd"}})
    ask(pool, n3=2)
    assert set(shown(answers(pool)[0])) == {"zzza", "zzzb"}


def test_long_passages_end_with_a_sentence():
    assert _cut("One two. Three four! Five six seven.", 22) == "One two. Three four!"
    assert _cut("One two. Three", 8) == "One two." and _cut("no sentence ends here", 13) == "no sentence"
    assert _cut("unbroken" * 4, 10) == "unbrokenun" and _cut("3.5 percent of it is", 12) == "3.5 percent"

    long = "Mercury is liquid. " * 3 + "And so on and so forth without end"
    written = Generation(text=long, usage=Usage(10, 40))
    pool = ScriptedPool({"r": "the answer is A", "a": card(lambda c: written)})
    ask(pool, max_passage_tokens=20)
    (text,) = shown(answers(pool)[0])
    assert long.startswith(text) and text.endswith("liquid.") and len(text) <= 20 * len(long) / 40
    untouched = ScriptedPool({"r": "the answer is A", "a": card(lambda c: attrs.evolve(written, usage=Usage(10, 20)))})
    ask(untouched, max_passage_tokens=20)
    assert shown(answers(untouched)[0]) == [long]


def test_long_passages_are_summarised_where_a_model_is_named():
    pool = ScriptedPool({"r": by_kind(shorter="in short"), "a": card("word " * 50), "b": card("brief")})
    ask(pool, max_passage_tokens=10, summarizer="r")
    assert sorted(shown(answers(pool)[0])) == ["brief", "in short"]
    mute = ScriptedPool({"r": by_kind(shorter=""), "a": card("One. " + "word " * 50)})
    ask(mute, max_passage_tokens=10, summarizer="r")
    assert shown(answers(mute)[0]) == ["One."]


class Known(KnowledgeCardSystem):
    """The second word of a passage is its truth."""

    async def facts(self, passages, question, context):
        return [float(text.split()[1]) for text in passages]


class Checked(KnowledgeCard):
    system = Known


def truths_shown(truths, **options):
    pool = ScriptedPool({"r": "the answer is A", **{f"c{i}": card(f"fact{i} {f}") for i, f in enumerate(truths)}})
    ask(pool, method=Checked, n2=50, **options)
    return [int(re.match(r"fact(\d+)", text)[1]) for text in shown(answers(pool)[0])]


def test_only_what_can_be_true_is_drawn():
    for seed in range(20):
        assert truths_shown([1, 0, 0, 0], n3=1, seed=seed) == [0]
    assert sorted(truths_shown([0.1, 0.9, 0.5], n3=3)) == sorted(truths_shown([0.1, 0.9, 0.5], n3=9)) == [0, 1, 2]
    assert truths_shown([0.1, 0.9, 0.5, 0.8], n3=2, selection="top") == [1, 3]


def test_choice_and_order_depend_on_seed_and_question_alone():
    truths = [0.5, 0.4, 0.3, 0.2, 0.6, 0.1]
    assert truths_shown(truths, n3=3) == truths_shown(truths, n3=3)
    drawn = [truths_shown(truths, n3=3, seed=seed) for seed in range(30)]
    assert all(len(set(d)) == 3 for d in drawn) and len({tuple(d) for d in drawn}) > 5
    pool = ScriptedPool(
        {"r": "the answer is A", "a": card("fact1 0.5"), "b": card("fact2 0.5"), "c": card("fact3 0.5")}
    )
    questions = [attrs.evolve(QUESTION, id=f"q{i}") for i in range(20)]
    outcome = run_method(Checked(Options(answerer=0, n3=2)), pool, questions=questions)
    assert len({tuple(p["text"] for p in r.meta["passages"]) for r in outcome.replies.values()}) > 3


def test_draws_are_in_proportion_to_truth_among_twice_as_many():
    """With n3=1 the two best are drawn among, 0.4 to 0.3; with n3=2, all three, the second from what the first left."""
    counts = Counter(draw([0.3, 0.1, 0.4], 1, random.Random(seed))[0] for seed in range(2000))
    assert set(counts) == {0, 2} and abs(counts[2] / 2000 - 4 / 7) < 0.04  # deviation 0.011
    pairs = Counter(tuple(draw([0.6, 0.4, 0.2], 2, random.Random(seed))) for seed in range(3000))
    assert abs(pairs[0, 1] / 3000 - 0.5 * 0.4 / 0.6) < 0.04 and abs(pairs[2, 0] / 3000 - 0.2 / 1.2 * 0.6) < 0.04
    assert draw([0.0, 0.0, 0.5], 2, random.Random(0)) == [2, 0] and draw([], 2, None) == []


@pytest.mark.parametrize("capabilities", [TEXT_ONLY, None])
def test_a_checker_is_asked_in_both_orders(capabilities):
    def true_of_b(call):  # writes the letter of "true" for what b wrote, always A otherwise
        return ("A" if "A) true" in call.prompt else "B") if "fact b" in call.prompt else "A"

    more = {} if capabilities is None else {"capabilities": capabilities}
    pool = ScriptedPool({"r": by_kind(check=true_of_b), "a": card("fact a"), "b": card("fact b")}, **more)
    reply = ask(pool, checker="r", n3=1, selection="top")
    asked = [c for c in pool.history if kind(c) == "check"]
    assert len(asked) == 4 and {c.kind for c in asked} == {"score" if capabilities is None else "generate"}
    if capabilities is not None:
        assert [(p["text"], p["truth"]) for p in reply.meta["passages"]] == [("fact b", 1.0)]
