"""The head: the loss against finite differences, what it learns of a toy grammar, and its thresholds."""

from __future__ import annotations

import asyncio

import pytest
import torch
from deferring_models import QUESTION, TOKENIZER, pool

from moco_method_co_llm.head import Positions, deferral_loss, train_head, weak_labels
from moco_method_co_llm.options import Options
from moco_method_co_llm.thresholds import candidates, threshold_for_fraction, youden
from moco_toolkit_authoring.harness import open_state
from moco_toolkit_decoding import auroc, open_session


def test_the_loss_at_its_limits_and_its_gradient():
    base, assistant = torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-0.3, -4.0, -0.5])
    assert torch.allclose(deferral_loss(torch.full((3,), -40.0), base, assistant), -base, atol=1e-6)
    assert torch.allclose(deferral_loss(torch.full((3,), 40.0), base, assistant), -assistant, atol=1e-6)
    u = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    p0, p1 = base.double(), assistant.double()
    deferral_loss(u, p0, p1).sum().backward()
    s = u.detach().sigmoid()
    posterior = s * p1.exp() / ((1 - s) * p0.exp() + s * p1.exp())
    assert torch.allclose(u.grad, s - posterior, atol=1e-12)
    assert u.grad[2].abs() < 1e-12  # equal probabilities: nothing to learn
    h = 1e-6
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = h
        slope = (deferral_loss(u + step, p0, p1) - deferral_loss(u - step, p0, p1)).sum() / (2 * h)
        assert float(slope.detach()) == pytest.approx(float(u.grad[i]), abs=1e-6)


def test_the_deferral_logit_is_no_part_of_the_vocabulary():
    models = pool(1, 2)

    async def main():
        async with open_state() as state:
            context = state.context("fit", QUESTION)
            step = await open_session(context, models[0], QUESTION)
            ids = step.vocabulary.encode(b"the lazy dog")
            traced = await step.trace(ids, hidden=True)
            seen = await step.peek(full=True)
            module = models[0].engine.loaded["m0"].module
            with torch.inference_mode():
                out = module(torch.tensor([[*step.opened.prompt, *ids]]), use_cache=False, output_hidden_states=True)
            return len(step.opened.prompt), ids, traced, seen, out

    start, ids, traced, seen, out = asyncio.run(main())
    assert float(seen.full.exp().sum()) == pytest.approx(1, abs=1e-5) and len(seen.full) == len(TOKENIZER)
    table = out.logits[0].log_softmax(-1)
    assert traced.logprobs == pytest.approx([float(table[start - 1 + n, t]) for n, t in enumerate(ids)], abs=1e-4)
    # the head reads the state that the next token is predicted from
    assert torch.allclose(traced.hidden, out.hidden_states[-1][0, start - 1 :], atol=1e-4)


def grammar(n=600):
    """A toy grammar: after the marker state only the assistant knows the next token; elsewhere only the base does."""
    g = torch.Generator().manual_seed(0)
    knows = torch.rand(n, generator=g) < 0.3
    hidden = torch.randn(n, 8, generator=g) * 0.3
    hidden[:, 0] += torch.where(knows, 2.0, -2.0)
    good, bad = torch.full((n,), -0.01), torch.full((n,), -6.0)
    target = torch.arange(n)
    return knows, Positions(
        hidden=hidden,
        base=torch.where(knows, bad, good),
        assistant=torch.where(knows, good, bad),
        base_top=torch.where(knows, target + 1, target),
        assistant_top=torch.where(knows, target, target + 1),
        target=target,
    )


@pytest.mark.parametrize("init", ["a", pytest.param("b", marks=pytest.mark.slow), "none"])
def test_the_head_learns_where_only_the_assistant_knows(init):
    knows, positions = grammar()
    head = train_head(positions, Options(init=init, learning_rate=0.05, epochs=150), torch.zeros(8))
    sigma = (positions.hidden @ head).sigmoid()
    assert sigma[knows].min() > 0.9 and sigma[~knows].max() < 0.1
    if init == "a":
        assert torch.equal(weak_labels(positions, "a").bool(), knows)
    assert torch.equal(head, train_head(positions, Options(init=init, learning_rate=0.05, epochs=150), torch.zeros(8)))


def test_calibration():
    g = torch.Generator().manual_seed(1)
    sigma = torch.rand(97, generator=g)
    for share in (0.0, 0.1, 0.5, 0.93, 1.0):
        eta = threshold_for_fraction(sigma, share)
        assert abs(float((sigma > eta).float().mean()) - share) <= 1 / 97
    differs = sigma > 0.6
    eta = youden(sigma, differs)
    assert torch.equal(sigma > eta, differs)
    assert youden(sigma, torch.zeros(97, dtype=torch.bool)) == 1.0


def test_youden_and_the_area_under_the_curve_equal_their_definitions():
    g = torch.Generator().manual_seed(3)
    for n in (2, 7, 60):
        sigma = (torch.rand(n, generator=g) * 10).round() / 10  # with ties
        wanted = torch.rand(n, generator=g) < 0.4
        wanted[0], wanted[1] = True, False
        yes, no = sigma[wanted].tolist(), sigma[~wanted].tolist()
        assert auroc(sigma.tolist(), wanted.tolist()) == pytest.approx(
            sum((a > b) + 0.5 * (a == b) for a in yes for b in no) / (len(yes) * len(no))
        )

        def rate(eta, yes=yes, no=no):
            return sum(a > eta for a in yes) / len(yes) - sum(b > eta for b in no) / len(no)

        best = max(rate(eta / 20 - 0.025) for eta in range(23))
        assert rate(youden(sigma, wanted)) == pytest.approx(max(best, 0.0))
    assert auroc([1.0, 2.0], [True, True]) is None


def test_thresholds_to_choose_from_begin_with_the_least_deferral():
    sigma = torch.linspace(0.1, 0.9, 9)
    found = candidates(sigma, sigma > 0.5, Options(quantiles=4))
    assert found[0] == 1.0 and found[-1] == 0.0 and found == sorted(found, reverse=True) and len(found) == 5
    noisy = sigma + 1e-8 * torch.randn(9, generator=torch.Generator().manual_seed(0))
    assert candidates(noisy, sigma > 0.5, Options(quantiles=4)) == found  # the last bits depend on the batch
