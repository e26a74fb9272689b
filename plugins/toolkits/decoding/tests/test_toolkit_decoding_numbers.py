"""Combining, warping and sampling against closed forms and transformers' own processors."""

from __future__ import annotations

import math
import random

import pytest
import torch

from moco_core.types import Sampling
from moco_toolkit_decoding import Contrast, Mix
from moco_toolkit_decoding.sampling import Settings, _ranked, choose, first_argmax, pick

torch.set_num_threads(1)


def logits(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def scores(n=3, rows=4, size=50, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, size, generator=g) * 3 for _ in range(n)]


def test_two_distributions_in_closed_form():
    members = [logits([math.log(0.9), math.log(0.1)]), logits([math.log(0.1), math.log(0.9)])]
    w = (0.75, 0.25)
    assert Mix(kind="prob", weights=w)(members).exp().tolist()[0] == pytest.approx([0.7, 0.3], abs=1e-6)
    assert Mix(kind="logprob", weights=w)(members).exp().tolist()[0] == pytest.approx([0.75, 0.25], abs=1e-6)
    largest = [0.675, 0.225]
    expected = [x / sum(largest) for x in largest]
    assert Mix(kind="max", weights=w)(members).exp().tolist()[0] == pytest.approx(expected, abs=1e-6)


def test_logit_equals_logprob_equals_the_weighted_geometric_mean():
    members, w = scores(), (0.5, 0.3, 0.2)
    mean = sum(a * z.softmax(-1).log() for a, z in zip(w, members, strict=True)).softmax(-1)
    for kind in ("logit", "logprob"):
        assert (Mix(kind=kind, weights=w)(members).exp() - mean).abs().max() < 1e-6
    shifted = [z + c for z, c in zip(members, (5.0, -3.0, 100.0), strict=True)]
    assert torch.allclose(Mix(weights=w)(shifted), Mix(weights=w)(members), atol=1e-4)


@pytest.mark.parametrize("kind", ["prob", "logprob", "logit", "max"])
def test_one_hot_weights_are_that_member_and_order_does_not_matter(kind):
    members = scores()
    alone = Mix(kind=kind, weights=(0.0, 1.0, 0.0))(members)
    assert torch.allclose(alone, members[1].log_softmax(-1), atol=1e-5)
    a = Mix(kind=kind, weights=(0.5, 0.3, 0.2))(members)
    b = Mix(kind=kind, weights=(0.2, 0.5, 0.3))([members[2], members[0], members[1]])
    assert torch.allclose(a, b, atol=1e-5)


def test_member_temperatures_and_plausibility():
    members = scores(2)
    tempered = Mix(kind="prob", weights=(0.5, 0.5), temperatures=(2.0, 1.0))(members)
    expected = 0.5 * (members[0] / 2).softmax(-1) + 0.5 * members[1].softmax(-1)
    assert torch.allclose(tempered.exp(), expected, atol=1e-6)
    kept = Mix(kind="logprob", weights=(0.5, 0.5), plausibility=0.2)(members) > -math.inf
    best = torch.stack([m.softmax(-1) for m in members]).max(0).values
    assert torch.equal(kept, best >= 0.2 * best.max(-1, keepdim=True).values)


@pytest.mark.parametrize("kind", ["prob", "logprob", "max"])
def test_undefined_ids_have_no_mass_and_weaken_nobody(kind):
    members = scores(2, size=10)
    members[0][:, 7] = 50.0  # nearly all of its mass is on an id that the other does not know
    undefined = torch.zeros(10, dtype=torch.bool)
    undefined[7] = True
    got = Mix(kind=kind, weights=(0.5, 0.5))(members, undefined).exp()
    rest = [i for i in range(10) if i != 7]
    expected = Mix(kind=kind, weights=(0.5, 0.5))([m[:, rest] for m in members]).exp()
    assert got[:, 7].max() == 0
    assert torch.allclose(got[:, rest], expected, atol=1e-6)


def test_contrastive_decoding_in_closed_form():
    expert, amateur = logits([2.0, 1.0, 0.0]), logits([2.0, 0.0, 0.0])

    def cd(beta, plausibility=0.0):
        return Contrast(
            mode="cd_beta", members=2, base=0, experts=(0,), antis=(1,), beta=beta, plausibility=plausibility
        )([expert, amateur])

    assert first_argmax(cd(1.0)).tolist() == [0]  # (2, 2, 0): a tie goes to the lowest id
    assert (cd(1.0)[0, 0] - cd(1.0)[0, 1]).abs() < 1e-6
    assert first_argmax(cd(1.5)).tolist() == [1]  # (2, 2.5, 0)
    assert first_argmax(cd(1.5, 0.5)).tolist() == [0]  # only z >= 2 - 0.693 is plausible


def test_contrast_degenerate_cases():
    base, expert, anti = scores()
    same = Contrast(members=3, base=0, experts=(1,), antis=(2,), plausibility=0.0)
    assert torch.allclose(same([base, expert, expert]), base.log_softmax(-1), atol=1e-5)
    none = Contrast(members=3, base=0, experts=(1,), antis=(2,), alpha=0.0, plausibility=0.0)
    assert torch.allclose(none([base, expert, anti]), base.log_softmax(-1), atol=1e-5)
    for threshold in (0.0, 0.3, 1.0):
        masked = Contrast(members=3, base=0, experts=(1,), antis=(2,), alpha=0.0, plausibility=threshold)
        assert torch.equal(first_argmax(masked([base, expert, anti])), first_argmax(base))
    for alpha in (0.5, 3.0):
        strict = Contrast(members=3, base=0, experts=(1,), antis=(2,), alpha=alpha, plausibility=1.0)
        assert torch.equal(first_argmax(strict([base, expert, anti])), first_argmax(base))


@pytest.mark.parametrize("mode", ["dexperts", "cd", "cd_beta"])
def test_constants_added_to_logits_change_nothing(mode):
    members = scores()
    contrast = Contrast(
        mode=mode, members=3, base=0, experts=(1,), antis=(2,), alpha=0.7, amateur_temperature=0.5, plausibility=0.1
    )
    shifted = [z + c for z, c in zip(members, (4.0, -2.0, 9.0), strict=True)]
    a, b = contrast(members), contrast(shifted)
    assert torch.equal(a.isinf(), b.isinf())
    assert torch.allclose(a.exp(), b.exp(), atol=1e-5)


def test_beta_form_is_dexperts_with_the_expert_as_base():
    expert, anti = scores(2)
    beta = Contrast(mode="cd_beta", members=2, base=0, experts=(0,), antis=(1,), beta=0.8, plausibility=0.1)
    experts = Contrast(mode="dexperts", members=2, base=0, experts=(0,), antis=(1,), alpha=0.8, plausibility=0.1)
    assert torch.allclose(beta([expert, anti]).exp(), experts([expert, anti]).exp(), atol=1e-6)


def test_several_experts_are_a_mean():
    base, e, a = scores()
    one = Contrast(members=3, base=0, experts=(1,), antis=(2,), plausibility=0.0)([base, e, a])
    two = Contrast(members=5, base=0, experts=(1, 3), antis=(2, 4), plausibility=0.0)([base, e, a, e, a])
    assert torch.allclose(one, two, atol=1e-5)


# -------------------------------------------------------------------- sampling


class Fixed(random.Random):
    """A generator that gives one number for ever."""

    def __init__(self, number):
        super().__init__(0)
        self.number = number

    def random(self):
        return self.number


def drawn(z, settings, numbers):
    """One token per row, all rows with the same settings and row i with the number ``numbers[i]``."""
    of = Settings.of([settings] * len(numbers), z.device)
    return choose(z, of, [Fixed(u) for u in numbers]).tolist()


def inverted(z, settings, u):
    """The definition: sort by logit, then id; filter one after the other; first place whose cumulative mass reaches u."""
    logits = z.double().tolist()
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if settings.top_k:
        order = order[: settings.top_k]
    mass = [math.exp((logits[i] - logits[order[0]]) / settings.temperature) for i in order]
    kept, total = 0, sum(mass)
    while settings.top_p < 1 and sum(mass[:kept]) < settings.top_p * total:
        kept += 1
    order, mass = (order[:kept], mass[:kept]) if kept else (order, mass)
    mass = [m for m in mass if m >= settings.min_p]
    place, reached = 0, mass[0]
    while reached < u * sum(mass) and place < len(mass) - 1:
        place += 1
        reached += mass[place]
    return order[place]


FILTERS = [
    Sampling(temperature=0.7),
    Sampling(temperature=1.3, top_k=7),
    Sampling(temperature=0.8, top_p=0.6),
    Sampling(temperature=1.5, min_p=0.1),
    Sampling(temperature=2.5, top_k=150, top_p=0.95),
    Sampling(temperature=0.9, top_k=20, top_p=0.9, min_p=0.05),
]


def test_greedy_ties_go_to_the_lowest_id():
    assert first_argmax(logits([0.0, 3.0, 3.0, 1.0], [5.0, 5.0, 5.0, 5.0])).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("settings", FILTERS)
def test_a_draw_inverts_the_distribution_that_the_filters_leave(settings, dtype):
    g = random.Random(3)
    for size in (50, 1000):  # one size below and one above what is sorted at first
        z = scores(1, rows=30, size=size)[0].to(dtype).float()  # bfloat16 has few values: many ties
        numbers = [g.random() for _ in range(30)]
        assert drawn(z, settings, numbers) == [inverted(row, settings, u) for row, u in zip(z, numbers, strict=True)]


def test_the_order_of_candidates_is_that_of_a_stable_sort():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 3000, generator=generator)
    rows[1] = rows[1].bfloat16().float()  # many equal logits
    rows[2, ::3], rows[2, 1::3] = 0.0, -0.0  # which are equal, too
    rows[3, ::7], rows[3, 1::7] = -math.inf, math.inf
    rows[4] *= 1e-42  # below the smallest normal number
    rows[5] *= 1e37
    assert torch.equal(_ranked(rows), rows.sort(dim=-1, descending=True, stable=True).indices)


def test_of_equal_logits_at_the_border_the_lowest_ids_are_kept():
    z = logits([1.0, 4.0, 4.0, 4.0, 4.0, 0.0])
    for settings in (Sampling(temperature=1.0, top_k=2), Sampling(temperature=1.0, top_p=0.45)):
        assert {drawn(z, settings, [u / 40])[0] for u in range(40)} == {1, 2}
    many = torch.zeros(1, 1000)  # more ties than are sorted at first
    assert {drawn(many, Sampling(temperature=1.0, top_k=3), [u / 40])[0] for u in range(40)} == {0, 1, 2}


@pytest.mark.parametrize("settings", FILTERS)
def test_filters_are_those_of_transformers(settings):
    from transformers import LogitsProcessorList, MinPLogitsWarper
    from transformers import TemperatureLogitsWarper as Temperature
    from transformers import TopKLogitsWarper as TopK
    from transformers import TopPLogitsWarper as TopP

    processors = LogitsProcessorList([Temperature(settings.temperature)])
    if settings.top_k:
        processors.append(TopK(settings.top_k))
    if settings.top_p < 1:
        processors.append(TopP(settings.top_p))
    if settings.min_p:
        processors.append(MinPLogitsWarper(settings.min_p))
    z = scores(1, rows=20, size=400)[0]
    ordered, ids = processors(None, z).softmax(-1).double().sort(dim=-1, descending=True, stable=True)
    numbers = [(i + 0.5) / 20 for i in range(20)]
    places = [int((row.cumsum(-1) < u).sum()) for row, u in zip(ordered, numbers, strict=True)]
    assert drawn(z, settings, numbers) == [int(ids[i, place]) for i, place in enumerate(places)]


def test_a_row_drawn_in_a_batch_is_the_row_drawn_alone():
    z = scores(1, rows=8, size=60)[0].log_softmax(-1)
    settings = [Sampling(temperature=0.5 + 0.1 * i, top_p=0.9) if i % 3 else Sampling() for i in range(8)]
    together = [random.Random(i) if i % 3 else None for i in range(8)]
    alone = [random.Random(i) for i in range(8)]
    for _ in range(50):
        batch = choose(z, Settings.of(settings, z.device), together).tolist()
        single = [
            int(choose(z[i : i + 1], Settings.of(settings[i : i + 1], z.device), [alone[i]])[0]) for i in range(8)
        ]
        assert batch == single


def test_draws_follow_the_distribution():
    z = logits([math.log(0.5), math.log(0.3), math.log(0.2)])
    g, n = random.Random(7), 6000
    counts = [0, 0, 0]
    for token in drawn(z.expand(n, 3), Sampling(temperature=1.0), [g.random() for _ in range(n)]):
        counts[token] += 1
    chi = sum((c - n * p) ** 2 / (n * p) for c, p in zip(counts, (0.5, 0.3, 0.2), strict=True))
    assert chi < 13.8  # 0.999 quantile with two degrees of freedom


def test_extreme_numbers_stay_inside():
    z = logits([0.0, -math.inf, 1.0])
    assert drawn(z.expand(2, 3), Sampling(temperature=1.0), [0.0, 1 - 1e-16]) == [2, 0]


@pytest.mark.parametrize("settings", [Sampling(), Sampling(temperature=1.0)])
def test_rows_without_a_finite_maximum_are_marked_and_the_others_are_not(settings):
    z = logits([0.0, math.nan, 1.0], [0.0, math.inf, 1.0], [-math.inf] * 3, [0.0, 5.0, -math.inf])
    of = Settings.of([settings] * 4, z.device)
    tokens, logprobs = pick(z, of, [Fixed(0.5) for _ in range(4)])
    assert tokens.tolist() == [3, 3, 3, 1]
    assert float(logprobs[3]) == pytest.approx(-math.log1p(math.exp(-5)), abs=1e-6)
