"""The routers on embeddings: against closed forms, autograd by hand, finite differences and scikit-learn."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from moco_method_trained_router.choosing import calibrated, choose
from moco_method_trained_router.descent import fit_mf, fit_mlp, mf_scores, mlp_logits, pairs
from moco_method_trained_router.heads import HEADS, MatrixFactorisation, Mlp, Ranking
from moco_method_trained_router.lesson import Lesson
from moco_method_trained_router.options import Options
from moco_method_trained_router.ranking import battles, ratings, weights

KINDS = ["embedding_mlp", "mf", "sw_ranking"]


def separable(count: int, models: int = 3, *, winner=None, seed: int = 0) -> Lesson:
    """Questions around one direction per model, whose model alone is right."""
    rng = random.Random(seed)
    inputs, targets, scores = [], [], []
    for q in range(count):
        kind = q % models
        inputs.append(tuple(float(i == kind) + rng.gauss(0, 0.05) for i in range(models + 2)))
        right = kind if winner is None else winner
        scores.append(tuple(float(i == right) for i in range(models)))
        targets.append(scores[-1])
    return Lesson(inputs=inputs, targets=targets, scores=scores)


def routes(head, lesson: Lesson, rows) -> list[int]:
    return [int(np.argmax(head.probabilities(lesson.inputs[q]))) for q in rows]


# ---------------------------------------------------------------- what the card asks of every kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_separable_dev_is_routed_without_a_mistake_where_it_was_not_seen(kind):
    lesson = separable(60)
    options = Options(router=kind, epochs=40, learning_rate=0.01)
    head, _ = HEADS[kind].fit(lesson, range(30), range(30, 40), options, 0)
    assert routes(head, lesson, range(40, 60)) == [q % 3 for q in range(40, 60)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_wins_everywhere_is_sent_everything(kind):
    lesson = separable(40, winner=1)
    head, _ = HEADS[kind].fit(lesson, range(30), range(30, 40), Options(router=kind, epochs=60, learning_rate=0.01), 0)
    assert routes(head, lesson, range(40)) == [1] * 40


@pytest.mark.parametrize("kind", ["embedding_mlp", "mf"])
def test_what_is_held_out_is_in_no_training_batch(kind):
    lesson = separable(20)
    changed = Lesson(
        inputs=[v if q < 14 else tuple(-9.0 * x for x in v) for q, v in enumerate(lesson.inputs)],
        targets=[t if q < 14 else t[::-1] for q, t in enumerate(lesson.targets)],
        scores=[s if q < 14 else s[::-1] for q, s in enumerate(lesson.scores)],
    )
    one, other = (
        HEADS[kind].fit(given, range(14), range(14, 20), Options(router=kind, epochs=1), 0)[0].arrays
        for given in (lesson, changed)
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("fit", [fit_mlp, fit_mf])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(fit):
    lesson, options = separable(20), Options(router="mf" if fit is fit_mf else "embedding_mlp", epochs=3)
    first, same, other = (fit(lesson, range(15), range(15, 20), options, seed)[0] for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


# ---------------------------------------------------------------- the MLP


def test_the_gradient_of_the_soft_label_loss_is_that_worked_out_by_hand():
    """d loss / d b2 = mean(softmax - y); d loss / d w1 back through the ReLU."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 4)), rng.dirichlet(np.ones(3), size=7)
    p = {
        "w1": rng.normal(size=(5, 4)),
        "b1": rng.normal(size=5),
        "w2": rng.normal(size=(3, 5)),
        "b2": rng.normal(size=3),
    }
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in p.items()}
    torch.nn.functional.cross_entropy(mlp_logits(torch.tensor(x), tensors), torch.tensor(y)).backward()
    before = x @ p["w1"].T + p["b1"]
    logits = np.maximum(before, 0) @ p["w2"].T + p["b2"]
    shares = np.exp(logits - logits.max(1, keepdims=True))
    error = (shares / shares.sum(1, keepdims=True) - y) / len(x)
    back = (error @ p["w2"]) * (before > 0)
    assert tensors["b2"].grad.numpy() == pytest.approx(error.sum(0))
    assert tensors["w2"].grad.numpy() == pytest.approx(error.T @ np.maximum(before, 0))
    assert tensors["w1"].grad.numpy() == pytest.approx(back.T @ x)
    assert tensors["b1"].grad.numpy() == pytest.approx(back.sum(0))


def test_asking_one_question_gives_what_training_computes_for_a_batch():
    lesson = separable(12)
    arrays, _ = fit_mlp(lesson, range(12), [], Options(epochs=3), 0)
    z = (np.array(lesson.inputs) - arrays["mean"]) / arrays["scale"]
    logits = mlp_logits(torch.tensor(z), {k: torch.tensor(v) for k, v in arrays.items()})
    for objective, wanted in ((False, logits.softmax(1)), (True, logits.sigmoid())):
        head = Mlp(arrays, objective)
        got = [head.probabilities(v) for v in lesson.inputs]
        assert np.array(got) == pytest.approx(wanted.numpy(), abs=1e-12)


def test_the_epoch_that_is_kept_is_the_best_on_what_was_held_out():
    lesson = separable(40)
    _, kept = fit_mlp(lesson, range(30), range(30, 40), Options(epochs=100, patience=5, learning_rate=0.05), 0)
    assert kept.score == 1.0 and kept.epoch <= kept.epochs < 100
    _, last = fit_mlp(lesson, range(30), [], Options(epochs=4), 0)
    assert (last.epoch, last.epochs, last.score) == (4, 4, None)


def test_expected_scores_are_learnt_where_they_are_asked_for():
    """Two models that are right on 3 of 4 and 1 of 4 questions that look alike."""
    scores = [(float(q % 4 != 0), float(q % 4 == 0)) for q in range(40)]
    lesson = Lesson(inputs=[(1.0, 0.0)] * 40, targets=scores, scores=scores)
    head, _ = Mlp.fit(
        lesson, range(40), [], Options(objective="score", epochs=400, learning_rate=0.01, weight_decay=0.0), 0
    )
    assert head.probabilities((1.0, 0.0)) == pytest.approx([0.75, 0.25], abs=0.02)


# ---------------------------------------------------------------- matrix factorisation


def test_swapping_two_models_turns_the_probability_around():
    lesson = separable(12)
    arrays, _ = fit_mf(lesson, range(12), [], Options(router="mf", epochs=2), 0)
    head = MatrixFactorisation(arrays)
    scores = head.scores(lesson.inputs[0])
    for i in range(3):
        for j in range(3):
            beats = [1 / (1 + math.exp(b - a)) for a, b in ((scores[i], scores[j]), (scores[j], scores[i]))]
            assert sum(beats) == pytest.approx(1, abs=1e-12)
            shares = head.probabilities(lesson.inputs[0])
            assert shares[i] / (shares[i] + shares[j]) == pytest.approx(beats[0])


def test_the_score_is_the_formula_of_the_paper_and_its_gradient_that_of_differences():
    rng = np.random.default_rng(1)
    models, project, weight = rng.normal(size=(3, 4)), rng.normal(size=(4, 5)), rng.normal(size=4)
    question = rng.normal(size=5)
    arrays = {"models": models, "project": project, "weight": weight}
    wanted = [weight @ ((v / np.linalg.norm(v)) * (project @ question)) for v in models]
    assert MatrixFactorisation(arrays).scores(question) == pytest.approx(wanted)
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in arrays.items()}

    def loss(given):
        scores = mf_scores(torch.tensor(question)[None], given)[0]
        return -torch.nn.functional.logsigmoid(scores[2] - scores[0])

    loss(tensors).backward()
    for name, step in (("models", (0, 1)), ("project", (2, 3)), ("weight", (1,))):
        values = []
        for sign in (1, -1):
            moved = {k: torch.tensor(v) for k, v in arrays.items()}
            moved[name][step] += sign * 1e-6
            values.append(float(loss(moved)))
        assert float(tensors[name].grad[step]) == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-6)


def test_ties_are_no_pairs():
    lesson = Lesson(inputs=[()] * 2, targets=[()] * 2, scores=[(1.0, 0.0, 1.0), (0.5, 0.45, 0.0)])
    assert pairs(lesson, [0, 1], 0.1) == [(0, 0, 1), (0, 2, 1), (1, 0, 2), (1, 1, 2)]


# ---------------------------------------------------------------- similarity-weighted ranking


def bradley_terry(scores: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """Ratings by scikit-learn: every battle twice, a tie as one win each way, features +-ln 10, no intercept, no penalty."""
    x, y, w = [], [], []
    for row, weight in zip(scores, omega, strict=True):
        for i in range(len(row)):
            for j in range(i):
                feature = np.zeros(len(row))
                feature[i], feature[j] = math.log(10), -math.log(10)
                won = [1, 1] if row[i] > row[j] else [0, 0] if row[i] < row[j] else [1, 0]
                x += [feature, feature]
                y += won
                w += [weight, weight]
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg")
    found = 400 * model.fit(np.array(x), y, sample_weight=np.array(w) / np.mean(w)).coef_[0]
    return found - found.mean()


def test_ratings_are_the_logistic_regression_of_scikit_learn():
    rng = np.random.default_rng(3)
    scores = (rng.random((30, 4)) < [0.3, 0.5, 0.6, 0.8]).astype(float)
    for omega in (np.full(30, 7.0), rng.uniform(1, 100, 30)):
        assert ratings(battles(scores, omega)) == pytest.approx(bradley_terry(scores, omega), abs=1e-6 * 400)


def test_equal_similarities_weigh_all_battles_alike():
    rng = np.random.default_rng(4)
    scores = (rng.random((20, 3)) < 0.5).astype(float)
    head = Ranking({"vectors": np.tile([1.0, 2.0], (20, 1)), "scores": scores})
    assert head.ratings((0.5, 1.0)) == pytest.approx(bradley_terry(scores, np.ones(20)), abs=1e-6 * 400)
    shares = head.probabilities((0.5, 1.0))
    a, b = head.ratings((0.5, 1.0))[:2]
    assert shares[0] / (shares[0] + shares[1]) == pytest.approx(1 / (1 + 10 ** ((b - a) / 400)))


def test_the_weight_of_a_battle_is_the_formula_of_the_paper():
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]])
    assert weights(vectors, np.array([2.0, 0.0])) == pytest.approx([100.0, 10 * 10**0.6, 1.0])
    assert weights(vectors[2:], np.array([1.0, 0.0])) == pytest.approx([100.0])  # nobody points that way: all alike


def test_two_models_with_wins_and_ties_have_their_odds_as_ratings():
    """Three wins, one loss, two ties: odds (3 + 1) / (1 + 1)."""
    scores = np.array([[1, 0]] * 3 + [[0, 1]] + [[1, 1]] * 2, dtype=float)
    a, b = ratings(battles(scores, np.ones(6)))
    assert a - b == pytest.approx(400 * math.log10(2), abs=1e-6) and a + b == pytest.approx(0)


# ---------------------------------------------------------------- thresholds and costs


BINARY = Options(mode="binary")


def test_the_threshold_is_inclusive_and_its_ends_send_everything_one_way():
    probabilities = [k / 10 for k in range(11)]
    counts = []
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0, 1.01):
        counts.append(sum(choose((1 - p, p), (0, 1), alpha, BINARY) for p in probabilities))
    assert counts == [11, 8, 6, 3, 1, 0]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.37, 0.5, 0.9, 0.99])
def test_calibrating_at_a_fraction_gives_that_share_to_within_one_question(fraction):
    rng = random.Random(1)
    wins = [rng.random() for _ in range(41)]
    alpha = calibrated(wins, [0.0] * 41, [1.0] * 41, Options(mode="binary", strong_fraction=fraction))
    assert abs(sum(p >= alpha for p in wins) - fraction * 41) <= 1


def test_calibrating_by_score_takes_the_best_that_the_share_allows():
    wins, weak, strong = [0.9, 0.8, 0.7, 0.6, 0.1], [0, 1, 0, 0, 1], [1, 0, 1, 1, 0]

    def alpha(share):
        return calibrated(wins, weak, strong, Options(mode="binary", calibrate="score", strong_fraction=share))

    assert alpha(0.8) == 0.6 and alpha(0.5) == 0.9 and alpha(0.1) > 0.9
    assert calibrated([0.5, 0.5], [0, 0], [1, 1], Options(mode="binary", calibrate="score", strong_fraction=0.5)) > 0.5
    assert calibrated([], [], [], BINARY) == 0.5


def test_a_growing_cost_term_moves_choices_to_cheaper_models():
    values, costs = [0.5, 0.3, 0.2], (1.0, 0.5, 0.1)
    assert [choose(values, costs, None, Options(cost_weight=w)) for w in (0.0, 0.35, 0.5, 9.0)] == [0, 2, 2, 2]
    assert [choose(values, costs, None, Options(cost_weight=w)) for w in (0.41,)] == [2]
    assert choose([0.4, 0.4, 0.2], costs, None, Options()) == 1
    assert choose([math.nan, 1, 0], costs, None, Options()) is None and choose([], costs, None, BINARY) is None
