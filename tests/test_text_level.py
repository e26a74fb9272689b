"""Methods that exchange text, beside each other: where one is another's special case, and how many batches they make."""

from __future__ import annotations

import hashlib
import json
import os

import attrs
import pytest

from moco_core import Sampling
from moco_core.catalogue import Catalogue
from moco_core.options import build
from moco_toolkit_authoring import ScriptedPool, example_questions, examples, run_method

MODELS = [f"m{i}" for i in range(5)]


def method(name, **options):
    cls = Catalogue(os.environ).load("method", name)
    return cls(build(cls.Options, options))


def hashed(call):
    """A reply that depends on everything that was asked."""
    seen = hashlib.sha256(repr((call.model, call.transcript, call.seed)).encode()).hexdigest()
    return f"because {seen} the answer is {seen[0]}"


def asked(pool):
    return sorted(
        json.dumps([c.model, [(m.role, m.content) for m in c.messages], dict(c.params), c.seed], sort_keys=True)
        for c in pool.history
    )


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_interaction_on_a_complete_graph_with_a_summary_is_multiagent_refine(rounds):
    """The same prompts, sampling and seeds, and so the same cached calls; the same replies."""
    pools, texts = [], []
    for name, options in (
        ("multiagent_refine", {}),
        ("structured_interaction", {"topology": "complete", "labels": "shuffled", "output": "summarizer"}),
    ):
        pools.append(ScriptedPool(dict.fromkeys(MODELS, hashed)))
        settings = {**options, "rounds": rounds, "seed": 4}
        outcome = run_method(
            method(name, **settings), pools[-1], dev=examples(3), questions=example_questions(6), seed=2
        )
        texts.append(outcome.texts)
    assert texts[0] == texts[1] and asked(pools[0]) == asked(pools[1])


def test_feedback_without_rounds_and_with_a_vote_is_majority_vote():
    replies = []
    for name, options in (
        ("majority_vote", {"temperature": 0.7, "top_p": 0.9, "tie": "order"}),
        ("multiagent_feedback", {"rounds": 0, "final": "vote"}),
    ):
        pool = ScriptedPool(dict.fromkeys(MODELS, hashed))
        outcome = run_method(method(name, **options), pool, questions=example_questions(24))
        replies.append((outcome.texts, asked(pool)))
    assert replies[0] == replies[1]


def batches(name, questions=60, **options):
    """Engine batches of a run over five models, all questions at once."""
    pool = ScriptedPool(dict.fromkeys(MODELS, hashed))
    asked = [attrs.evolve(example_questions(1)[0], id=f"q{i}", prompt=f"question {i}") for i in range(questions)]
    outcome = run_method(method(name, **options), pool, questions=asked, sampling=Sampling(max_new_tokens=64))
    assert len(outcome.replies) == questions
    return len(pool.engine.batches)


@pytest.mark.parametrize(
    ("name", "options", "turns"),
    [
        ("multiagent_refine", {"summarizer": "vote", "rounds": 2}, 3),
        # with all others as reviewers; where a question needs only some models, it goes on before the rest has answered
        ("multiagent_feedback", {"final": "vote", "rounds": 1, "feedback_count": 4}, 3),
        ("multiagent_feedback", {"summarizer": 0, "rounds": 1, "feedback_count": 4}, 4),
        ("structured_interaction", {"output": "vote", "rounds": 4, "topology": "chain"}, 5),
        ("knowledge_card", {"answerer": 0, "n1": 2, "checker": 1}, 3),
    ],
)
def test_questions_overlap_in_every_round(name, options, turns):
    """As many batches as a vote makes, times the turns that a question takes: no round waits for another question."""
    assert batches(name, **options) <= turns * batches("majority_vote")
