"""The network: against the formula by hand, dense matrices, and what must not reach a prediction."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from moco_method_graph_routing.graph import Graph, Scaling, features, labels
from moco_method_graph_routing.network import Network
from moco_method_graph_routing.options import Options
from moco_method_graph_routing.training import edge_loss, router, train
from moco_toolkit_routing import Outcomes


def network(aggregation="mean", width=5, half=4, seed=0) -> Network:
    return Network(width, half, aggregation, torch.Generator().manual_seed(seed))


def tensors(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_gradients(net: Network) -> Network:
    for tensor in net.parameters.values():
        tensor.requires_grad_()
    return net


# ---------------------------------------------------------------- message passing


@pytest.mark.parametrize("aggregation", ["mean", "sum"])
def test_two_layers_equal_dense_matrices_by_hand(aggregation):
    """In evaluation, with the statistics of a fresh network (mean 0, variance 1)."""
    net = network(aggregation)
    p = {k: v.detach().numpy() for k, v in net.parameters.items()}
    x_q, d, f = tensors(6, 8), tensors(3, 5, seed=1), tensors(6, 3, 3, seed=2)
    visible = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=torch.float64)
    got = net.models(x_q, d, f, visible[None])[0].detach().numpy()
    q, m = x_q.numpy(), d.numpy() @ p["model"].T
    edge = np.maximum(f.numpy() @ p["edge"].T, 0)
    a = visible.numpy()
    for layer in "12":
        message = (q @ p[f"message{layer}"].T + p[f"message_bias{layer}"])[:, None, :]
        message = message + edge @ p[f"edge{layer}"].T + p[f"edge_bias{layer}"]
        total = (a[:, :, None] * message).sum(0)
        m = m + (total / np.maximum(a.sum(0), 1)[:, None] if aggregation == "mean" else total)
        q, m = (v / np.sqrt(1 + 1e-5) * p[f"gain{layer}"] + p[f"shift{layer}"] for v in (q, m))
        if layer == "1":
            q, m = np.maximum(q, 0), np.maximum(m, 0)
    assert got == pytest.approx(m, abs=1e-12)


def test_one_visible_edge_with_hand_set_weights_gives_the_formula():
    """x_m = 1, W = 2, b = 1, W_e = 3, b_e = 0, A picks the effect: 1 + (2 x_q + 1 + 3 f), twice, without normalisation."""
    net = network(width=1, half=1)
    one = {"model": 1.0, "message1": 0.0, "message2": 0.0, "edge1": 0.0, "edge2": 0.0}
    for name, value in one.items():
        net.parameters[name] = torch.full_like(net.parameters[name], value)
    net.parameters["edge"] = torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64)
    for layer, message in (("1", 2.0), ("2", 5.0)):
        net.parameters[f"message{layer}"] = message * torch.eye(2, dtype=torch.float64)
        net.parameters[f"edge{layer}"] = 3.0 * torch.eye(2, dtype=torch.float64)
        net.parameters[f"message_bias{layer}"] = torch.ones(2, dtype=torch.float64)
        net.statistics[f"variance{layer}"] = torch.full((2,), 1 - 1e-5, dtype=torch.float64)
    x_q = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    f = torch.tensor([[[9.0, 9.0, 0.5]]], dtype=torch.float64)
    got = net.models(x_q, torch.ones(1, 1, dtype=torch.float64), f, torch.ones(1, 1, 1, dtype=torch.float64))[0, 0]
    first = [1 + 2 * x + 1 + 3 * 0.5 for x in (0.5, 0.25)]
    assert got.tolist() == pytest.approx([a + 5 * x + 1 + 1.5 for a, x in zip(first, (0.5, 0.25), strict=True)])


def test_the_layer_is_that_of_torch_geometric():
    geometric = pytest.importorskip("torch_geometric.nn")
    net = network("mean")
    layer = geometric.GeneralConv(8, 8, in_edge_channels=8, aggr="mean").double()
    p = net.parameters
    with torch.no_grad():
        layer.lin_msg.weight.copy_(p["message1"])
        layer.lin_msg.bias.copy_(p["message_bias1"])
        layer.lin_edge.weight.copy_(p["edge1"])
        layer.lin_edge.bias.copy_(p["edge_bias1"])
    q, m, f = tensors(4, 8), tensors(2, 8, seed=1), tensors(4, 2, 8, seed=2)
    index = torch.tensor([[i for i in range(4) for _ in range(2)], [4 + j for _ in range(4) for j in range(2)]])
    wanted = layer(torch.cat([q, m]), index, f.reshape(8, 8))[4:]
    got = m + net._messages(q[None], f, torch.ones(1, 4, 2, dtype=torch.float64), "1")[0]
    assert torch.allclose(got, wanted)


def test_training_normalises_every_draw_over_its_own_nodes_as_torch_does():
    net = network()
    q, m = tensors(2, 6, 8), tensors(2, 3, 8, seed=1)
    got_q, got_m = net._normalised(q, m, "1", training=True)
    reference = torch.nn.BatchNorm1d(8).double()
    for draw in range(2):
        wanted = reference(torch.cat([q[draw], m[draw]])).detach()
        assert torch.allclose(torch.cat([got_q[draw], got_m[draw]]), wanted)
    assert torch.allclose(net.statistics["mean1"], 0.1 * torch.cat([q, m], 1).mean((0, 1)))


def test_the_order_of_models_permutes_their_scores():
    net = network()
    x_q, d, f, visible = tensors(6, 8), tensors(3, 5, seed=1), tensors(6, 3, 3, seed=2), torch.ones(1, 6, 3).double()
    order = [2, 0, 1]
    one = net.logits(x_q, net.models(x_q, d, f, visible))
    other = net.logits(x_q, net.models(x_q, d[order], f[:, order], visible))
    assert torch.allclose(one[..., order], other)


def test_a_model_without_any_edge_keeps_its_description_and_is_scored():
    net = network()
    x_q, d, f = tensors(4, 8), tensors(2, 5, seed=1), tensors(4, 2, 3, seed=2)
    got = net.models(x_q, d, f, torch.zeros(1, 4, 2, dtype=torch.float64))
    assert torch.isfinite(got).all() and not torch.allclose(got[0, 0], got[0, 1])


def test_the_mean_does_not_grow_with_the_graph():
    net = network("mean")
    x_q, d, f = tensors(4, 8), tensors(2, 5, seed=1), tensors(4, 2, 3, seed=2)
    once = net.models(x_q, d, f, torch.ones(1, 4, 2).double())
    twice = net.models(torch.cat([x_q, x_q]), d, torch.cat([f, f]), torch.ones(1, 8, 2).double())
    assert torch.allclose(once, twice)


# ---------------------------------------------------------------- what must not reach a prediction


def test_the_features_of_a_target_edge_do_not_reach_its_own_prediction():
    net = network()
    x_q, d, f = tensors(4, 8), tensors(2, 5, seed=1), tensors(4, 2, 3, seed=2)
    visible = torch.ones(1, 4, 2, dtype=torch.float64)
    visible[0, 1, 0] = 0
    changed = f.clone()
    changed[1, 0] += 100
    one, other = (net.logits(x_q, net.models(x_q, d, given, visible)) for given in (f, changed))
    assert torch.equal(one, other)
    visible[0, 1, 0] = 1
    assert not torch.equal(one, net.logits(x_q, net.models(x_q, d, changed, visible)))


def graph_of(scores, questions, models=None, costs=None, weights=(1.0, 0.0)) -> Graph:
    table = np.array(scores, dtype=float)
    outcomes = Outcomes(
        names=tuple(f"m{i}" for i in range(table.shape[1])),
        scores=tuple(map(tuple, table.T.tolist())),
        costs=tuple((float(c),) * len(table) for c in costs or [1] * table.shape[1]),
        subsets=("",) * len(table),
    )
    found = features(outcomes, weights, Scaling.of(outcomes))
    best, telling = labels(found[..., 0], 0.0)
    given = np.array(questions, dtype=float)
    return Graph(
        questions=given,
        tasks=np.zeros_like(given),
        models=np.eye(table.shape[1], given.shape[1]) if models is None else models,
        features=found,
        labels=best,
        known=np.ones_like(table),
        telling=telling,
    )


QUICK = Options(train_epochs=150, draws_per_step=8, learning_rate=0.02)


def clusters(count: int, seed: int = 0):
    """Two clusters of questions, each with a model of its own that alone is right."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 2
    questions = np.stack([np.where(kinds, -1.0, 1.0), np.where(kinds, 1.0, -1.0), np.zeros(count)], 1)
    return questions + rng.normal(0, 0.1, questions.shape), np.eye(2)[kinds]


def test_two_clusters_with_a_perfect_model_each_are_routed_without_a_mistake():
    questions, scores = clusters(40)
    graph = graph_of(scores, questions)
    net, kept = train(graph, range(16), range(16, 20), QUICK, 0)
    found = router(net, graph.only(range(16)))
    routes = [int(np.argmax(found.scores(graph.tasks[q], graph.questions[q]))) for q in range(20, 40)]
    assert routes == scores[20:].argmax(1).tolist() and kept.score == 1.0


def test_asking_one_question_gives_what_the_network_computes_for_all():
    questions, scores = clusters(12)
    graph = graph_of(scores, questions)
    net, _ = train(graph, range(8), range(8, 12), attrs.evolve(QUICK, train_epochs=3), 0)
    found = router(net, graph.only(range(8)))
    with torch.no_grad():
        x = net.questions(torch.tensor(graph.tasks), torch.tensor(graph.questions))
        wanted = net.logits(x, torch.tensor(found.models)[None])[0].sigmoid().numpy()
    got = [found.scores(graph.tasks[q], graph.questions[q]) for q in range(12)]
    assert np.array(got) == pytest.approx(wanted, abs=1e-12)


def test_questions_on_which_all_models_tie_have_no_gradient():
    graph = graph_of([[1, 1], [0, 0], [1, 0]], np.eye(3))
    assert graph.telling.tolist() == [False, False, True]
    net = with_gradients(network(width=3))
    x_q = net.questions(torch.tensor(graph.tasks), torch.tensor(graph.questions))
    given = [torch.tensor(v) for v in (graph.models, graph.features, graph.labels)]
    h_m = net.models(x_q, given[0], given[1], torch.ones(1, 3, 2).double(), training=True)
    targets = torch.tensor(graph.telling[:, None] * np.ones((3, 2)))[None]
    targets[0, 2] = 0  # all that is left are ties
    edge_loss(net.logits(x_q, h_m), given[2], targets).backward()
    assert all(t.grad is None or not t.grad.any() for t in net.parameters.values())


def test_the_loss_is_the_cross_entropy_of_target_edges_alone():
    logits, wanted = tensors(2, 3, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).double()
    targets = torch.zeros(2, 3, 2, dtype=torch.float64)
    targets[0, 0, 1] = targets[1, 2, 0] = 1
    by_hand = [-torch.log(1 - logits[0, 0, 1].sigmoid()), -torch.log(logits[1, 2, 0].sigmoid())]
    assert float(edge_loss(logits, wanted, targets)) == pytest.approx(float(sum(by_hand)) / 2)


def test_held_out_questions_reach_no_update():
    questions, scores = clusters(12)
    graph = graph_of(scores, questions)
    changed = attrs.evolve(graph, questions=graph.questions.copy(), labels=graph.labels.copy())
    changed.questions[8:] *= -3
    changed.labels[8:] = 1 - changed.labels[8:]
    once = attrs.evolve(QUICK, train_epochs=1)
    one, other = (train(g, range(8), range(8, 12), once, 0)[0].state() for g in (graph, changed))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    questions, scores = clusters(12)
    graph, short = graph_of(scores, questions), attrs.evolve(QUICK, train_epochs=3)
    one, same, other = (train(graph, range(8), range(8, 12), short, seed)[0].state() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["question"], other["question"])


def test_two_dev_questions_are_enough_to_fit():
    questions, scores = clusters(2)
    net, kept = train(graph_of(scores, questions), [0], [1], attrs.evolve(QUICK, train_epochs=2), 0)
    assert kept.epochs == 2 and all(torch.isfinite(t).all() for t in net.state().values())


# ---------------------------------------------------------------- edges


def test_an_edge_has_utility_cost_and_effect_and_the_best_ones_are_labelled():
    graph = graph_of([[1, 1], [0, 1]], np.eye(2), costs=[1, 3], weights=(0.5, 0.5))
    assert graph.features.tolist() == [[[0.5, 0, 1], [0, 1, 1]], [[0, 0, 0], [0, 1, 1]]]
    assert graph.labels.tolist() == [[1, 0], [1, 1]] and graph.telling.tolist() == [True, False]
    same = graph_of([[1, 1]], np.eye(1, 2), costs=[2, 2], weights=(0.2, 0.8))
    assert same.features[0].tolist() == [[0.2, 0, 1], [0.2, 0, 1]]  # no cost signal
