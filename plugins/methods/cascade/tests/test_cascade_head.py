"""The post-hoc deferral head against scikit-learn, its cross-fitting, and a cascade that needs it."""

from __future__ import annotations

import math
import random

import pytest

from moco_core import Example, Generation, Question, Usage, build
from moco_method_cascade.diagnostics import auroc
from moco_method_cascade.head import Head, features, fit_head
from moco_method_cascade.method import Cascade
from moco_method_cascade.options import Options
from moco_toolkit_authoring import ScriptedPool, example_questions, examples, run_method

pytest.importorskip("sklearn")


def generation(text: str, *logs: float) -> Generation:
    return Generation(text=text, token_logprobs=logs, usage=Usage(10, len(logs)))


def told(n: int, seed: int = 5) -> tuple[list[list[float]], list[bool]]:
    """Replies whose least certain token tells, noisily, whether the next level would do better."""
    rng = random.Random(seed)
    rows, keeps = [], []
    for _ in range(n):
        keep = rng.random() < 0.5
        rows.append([-rng.uniform(0.01, 0.5) for _ in range(rng.randint(3, 9))])
        rows[-1][0] = -rng.uniform(0.5, 2.0) if keep else -rng.uniform(1.5, 5.0)
        keeps.append(keep)
    return rows, keeps


def test_the_head_is_the_regression_that_scikit_learn_fits():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, keeps = told(60)
    head, _ = fit_head(rows, keeps)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit([features(r) for r in rows], keeps)
    expected = model.predict_proba([features(r) for r in rows])[:, 1]
    assert [head.confidence(r) for r in rows] == pytest.approx(list(expected), abs=1e-4)


def test_the_confidence_of_a_dev_row_comes_from_a_head_that_has_not_seen_it():
    rows, keeps = told(40)
    _, before = fit_head(rows, keeps)
    assert auroc(before, [float(k) for k in keeps]) > 0.8
    changed = [not k if j == 7 else k for j, k in enumerate(keeps)]
    head, after = fit_head(rows, changed)
    inside = [j for j in range(40) if j % 5 == 7 % 5]
    assert [after[j] for j in inside] == [before[j] for j in inside]  # the fold of row 7 is not trained on it
    assert any(after[j] != before[j] for j in range(40) if j not in inside)
    assert head.confidence(rows[7]) != after[7]


def test_a_head_says_nothing_without_log_probabilities_or_without_two_kinds_of_questions():
    rows, keeps = told(20)
    head, found = fit_head([None, *rows], [True, *keeps])
    assert math.isnan(found[0]) and math.isnan(head.confidence([])) and math.isnan(head.confidence([-math.inf, -1.0]))
    none, found = fit_head(rows, [True] * 20)
    assert none is None and all(map(math.isnan, found))


def test_a_cascade_with_heads_beats_the_least_certain_token_where_another_one_tells():
    """The weak model's first token is always unsure; its third one tells whether the strong model is needed."""
    rng = random.Random(1)
    dev = [Example(question=Question(id=f"d{j}", prompt=f"item <{j}>"), references=("a",)) for j in range(60)]
    easy = [rng.random() < 0.5 for _ in dev]
    noise = [rng.uniform(4, 6) for _ in dev]

    def weak(call):
        j = int(call.prompt.split("<")[1].split(">")[0])
        third = -0.05 if easy[j] else -0.9
        return generation(f"the answer is {'a' if easy[j] else 'b'}", -noise[j], -0.1, third, -0.1, third)

    pool = ScriptedPool({"weak": weak, "strong": "the answer is a"})

    def right(**options):
        method = Cascade(Options(**options))
        outcome = run_method(method, pool, dev=dev, questions=[e.question for e in dev], reload_with=method)
        return sum("is a" in text for text in outcome.texts.values()) / 60, outcome

    share = sum(easy) / 60
    plain, _ = right(confidence="chow_quantile", accept_fraction=share)
    headed, outcome = right(confidence="deferral", accept_fraction=share)
    assert headed > 0.95 > plain
    assert outcome.noted("levels")[0]["auroc"] > 0.99
    (head,) = outcome.state["heads"]
    assert build(Head, head).confidence([-5.0, -0.1, -0.05, -0.1, -0.05]) > 0.5


def test_a_level_that_the_next_one_never_beats_has_no_head_and_is_left_out():
    pool = ScriptedPool({"a": lambda c: generation("x", -1.0), "b": lambda c: generation("x", -1.0)})
    outcome = run_method(Cascade(Options(confidence="deferral")), pool, dev=examples(6), questions=example_questions(1))
    assert outcome.state == {"thresholds": ["inf"], "heads": [None]}
    assert any("b is better than a always or never" in w for w in outcome.warnings)
