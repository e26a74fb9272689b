"""Training the deferral head on cached positions: the base model and the assistant are frozen and read everything once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

import moco_toolkit_decoding as decoding
from moco_core import Context, Example, Model, Pool, Reply
from moco_core.errors import ConfigError
from moco_core.types import Sampling

if TYPE_CHECKING:
    from moco_method_co_llm import CoLLMOptions

__all__ = ["Positions", "deferral_loss", "fit_head", "threshold_for_fraction", "train_head", "weak_labels", "youden"]


@attrs.frozen(eq=False)
class Positions:
    """Teacher-forced scores at T target positions.

    ``hidden`` float32 (T, H); ``base`` and ``assistant`` float32 (T,): log-probabilities of the target token;
    ``base_top``, ``assistant_top`` and ``target`` int64 (T,).
    """

    hidden: Tensor
    base: Tensor
    assistant: Tensor
    base_top: Tensor
    assistant_top: Tensor
    target: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Positions]) -> Positions:
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in attrs.fields(cls)))


def deferral_loss(u: Tensor, base: Tensor, assistant: Tensor) -> Tensor:
    """The marginal negative log-likelihood per position: -log((1 - sigma(u)) P_0 + sigma(u) P_1).

    ``u`` are deferral logits g.h, ``base`` and ``assistant`` log-probabilities of the target; all (T,). The gradient in u is
    sigma(u) minus the posterior probability that the assistant wrote the token.
    """
    keep = torch.nn.functional.logsigmoid(-u) + base
    defer = torch.nn.functional.logsigmoid(u) + assistant
    return -torch.logaddexp(keep, defer)


def weak_labels(positions: Positions, init: str) -> Tensor:
    """Return float labels (T,): a: the assistant alone is right; b: the base model is wrong."""
    wrong = positions.base_top != positions.target
    right = positions.assistant_top == positions.target
    return (wrong & right if init == "a" else wrong).float()


def train_head(positions: Positions, options: CoLLMOptions, start: Tensor, seed: int = 0) -> Tensor:
    """Return g, float32 (H,), trained on weak labels and then on the marginal likelihood; everything else is constant."""
    generator = torch.Generator().manual_seed(seed)
    head = start.detach().clone().float().requires_grad_()
    labels = weak_labels(positions, options.init) if options.init != "none" else None
    weights = None if labels is None else 1 + (options.init_pos_weight - 1) * labels

    def on_labels(u: Tensor, i: Tensor) -> Tensor:
        assert labels is not None and weights is not None
        return torch.nn.functional.binary_cross_entropy_with_logits(u, labels[i], weight=weights[i])

    def on_likelihood(u: Tensor, i: Tensor) -> Tensor:
        return deferral_loss(u, positions.base[i], positions.assistant[i]).mean()

    for loss in ([on_labels] if labels is not None else []) + [on_likelihood]:
        optimiser = torch.optim.AdamW([head], lr=options.learning_rate, weight_decay=0.0)
        steps = options.epochs * max(1, -(-len(positions.target) // options.batch))
        warm = max(1, int(options.warmup_ratio * steps))

        def share(step: int, warm: int = warm, steps: int = steps) -> float:
            return min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        for _ in range(options.epochs):
            order = torch.randperm(len(positions.target), generator=generator)
            for index in order.split(options.batch):
                optimiser.zero_grad()
                loss(positions.hidden[index] @ head, index).backward()
                optimiser.step()
                schedule.step()
    return head.detach()


def threshold_for_fraction(sigma: Tensor, share: float) -> float:
    """Return the threshold above which a share of ``sigma`` lies, exact up to one position."""
    ordered = sigma.sort(descending=True).values
    count = round(share * len(ordered))
    if count == 0:
        return 1.0
    if count == len(ordered):
        return 0.0
    return float((ordered[count - 1] + ordered[count]) / 2)


def youden(sigma: Tensor, differs: Tensor) -> float:
    """Return the threshold with the largest true minus false positive rate for "the assistant's top token differs".

    Equal values are decided together; 1 (never defer) if the label never or always holds. Ties: less deferral.
    """
    positives, negatives = int(differs.sum()), int((~differs).sum())
    if not positives or not negatives:
        return 1.0
    best, eta = 0.0, 1.0
    for value in sigma.unique().sort(descending=True).values.tolist():
        above = sigma >= value
        rate = float((above & differs).sum()) / positives - float((above & ~differs).sum()) / negatives
        if rate > best + 1e-12:
            best, eta = rate, value
    below = sigma[sigma < eta]
    if eta == 1.0 and best == 0.0:
        return 1.0
    return float((eta + below.max()) / 2) if len(below) else max(0.0, eta - 1e-6)


# -------------------------------------------------------------------- on the models


async def fit_head(
    pool: Pool, base: int, assistant: int, options: CoLLMOptions, dev: Sequence[Example], context: Context
) -> tuple[list[float], float]:
    """Return the head and the threshold."""
    models = (pool[base], pool[assistant])
    texts = await _targets(models[1], options, dev, context)
    if not texts:
        raise ConfigError(
            "targets: no dev example gives a text to learn from; use targets=gold with references, or another assistant"
        )

    async def one(pair: tuple[Example, str], scope: Context) -> Positions | None:
        return await _positions(models, pair[0], pair[1], options, scope)

    async def each(example: Example, scope: Context) -> Positions | None:
        return await one((example, texts[example.id]), scope)

    usable = [e for e in dev if e.id in texts]
    found = await context.each(usable, each, label="scoring targets")
    kept = [(e, p) for e, p in zip(usable, found, strict=True) if p is not None and len(p.target)]
    if not kept:
        raise ConfigError(f"max_seq_length: no dev example fits into {options.max_seq_length} tokens; raise it")
    # held-out examples are spread over dev, so that an ordered dev split loses no kind of question
    held = max(1, round(options.held_out * len(kept))) if len(kept) > 1 else 0
    stride = len(kept) / held if held else 0
    chosen = {int(i * stride) for i in range(held)}
    training = [p for i, (_, p) in enumerate(kept) if i not in chosen]
    start = await decoding.inspect(context, models[0], _mean_output_embedding)
    head = train_head(Positions.joined(training), options, start, seed=context.rng("co_llm", "head").getrandbits(31))
    context.note(positions=sum(len(p.target) for p in training), examples=len(training), held_out=held)
    if options.deferral_threshold is not None:
        return head.tolist(), options.deferral_threshold
    held_rows = [row for i, row in enumerate(kept) if i in chosen] or kept
    eta = await _calibrate(pool, base, assistant, options, head, held_rows, context)
    context.note(threshold=eta)
    return head.tolist(), eta


def _mean_output_embedding(loaded: Any) -> Tensor:
    """The head starts in the middle of the tokens: the mean of the output embedding, float32 (H,)."""
    getter = getattr(loaded.module, "get_output_embeddings", None)
    layer = getter() if getter is not None else None
    if layer is None:
        width = getattr(loaded.module, "width", 0) or loaded.module.config.hidden_size
        return torch.zeros(width)
    mean: Tensor = layer.weight.detach()[: loaded.vocab if hasattr(loaded, "vocab") else None].float().mean(0).cpu()
    return mean


async def _targets(assistant: Model, options: CoLLMOptions, dev: Sequence[Example], context: Context) -> dict[str, str]:
    """Return the text to learn from, by example id."""
    gold = {e.id: e.references[0] for e in dev if e.references and e.references[0]}
    if options.targets == "gold":
        return gold
    greedy: Sampling = attrs.evolve(context.sampling, temperature=0.0)

    async def ask(example: Example, scope: Context) -> str | None:
        reply = await scope.generate(assistant, example.question, greedy)
        score = (await scope.grade(example, Reply.of(reply))).value
        return (
            reply.text if score is not None and score >= 0.5 and reply.text and reply.finish_reason == "eos" else None
        )

    replies = await context.each(dev, ask, label="assistant replies")
    accepted = {e.id: text for e, text in zip(dev, replies, strict=True) if text}
    return accepted or (gold if options.targets == "auto" else {})


async def _positions(
    models: Sequence[Model], example: Example, text: str, options: CoLLMOptions, scope: Context
) -> Positions | None:
    sessions = await scope.gather(decoding.open_session(scope, m, example.question) for m in models)
    try:
        vocabulary = sessions[0].vocabulary
        size = min(s.vocabulary.size for s in sessions)
        ids = [*vocabulary.encode(text.encode()), *sorted(vocabulary.ends)[:1]]
        if any(len(s.opened.prompt) + len(ids) > options.max_seq_length for s in sessions):
            return None
        mine, theirs = await scope.gather(
            [sessions[0].trace(ids, hidden=True, size=size), sessions[1].trace(ids, size=size)]
        )
    finally:
        for session in sessions:
            session.close()
    n = len(ids)
    return Positions(
        hidden=mine.hidden[:n],
        base=torch.tensor(mine.logprobs),
        assistant=torch.tensor(theirs.logprobs),
        base_top=torch.tensor(mine.top_ids[:n]),
        assistant_top=torch.tensor(theirs.top_ids[:n]),
        target=torch.tensor(ids),
    )


async def _calibrate(
    pool: Pool,
    base: int,
    assistant: int,
    options: CoLLMOptions,
    head: Tensor,
    held: Sequence[tuple[Example, Positions]],
    context: Context,
) -> float:
    from moco_method_co_llm import CoLLMSystem

    rows = Positions.joined([p for _, p in held])
    sigma = (rows.hidden @ head).sigmoid()
    if options.calibration == "fraction":
        return threshold_for_fraction(sigma, options.target_fraction)
    if options.calibration == "youden":
        return youden(sigma, rows.assistant_top != rows.base_top)
    best, eta = -float("inf"), 1.0
    shares = sorted({i / options.quantiles for i in range(options.quantiles + 1)})
    for value in dict.fromkeys(threshold_for_fraction(sigma, s) for s in shares):  # from never deferring on
        system = CoLLMSystem(pool, options, base, assistant, head.tolist(), value)
        mean = await decoding.mean_score(system, [e for e, _ in held], context, label=f"threshold {value:.3f}")
        context.note(threshold=value, score=mean)
        if mean > best:  # equal scores stay with less deferral
            best, eta = mean, value
    return eta
