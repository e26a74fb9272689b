"""What is learnt from dev: rankers from pairs of replies, fusers from gold answers; and what is told about a ranker."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core import Context, Cost, Evaluation, Example, Message, Model
from moco_method_llm_blender.aggregates import bias, spearman
from moco_method_llm_blender.fusing import fused_sheet, gold, messages
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.rankers import HeadRanker, JudgeRanker, Ranker, Ranking, order
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_routing import folds, holdout
from moco_toolkit_training import Demonstration, Duel, Lora, Rank, Sft, predicted_memory, stages

__all__ = [
    "Dev",
    "Pair",
    "expected",
    "held_out",
    "learn_fuser",
    "learn_ranker",
    "lora",
    "pairs_of",
    "quality",
    "ranker_job",
]

_LONGEST = 4096
"""Tokens of a row that a fuser of unknown context is trained on."""


@attrs.frozen(kw_only=True)
class Dev:
    """Dev with what every model said to it: ``texts[q]`` and ``scores[q]`` are distinct replies and their scores, ``skills[q]``
    the dev mean of the best model that gave each. ``learn`` and ``held`` are places of questions.
    """

    examples: Sequence[Example]
    texts: Sequence[Sequence[str]]
    scores: Sequence[Sequence[float]]
    skills: Sequence[Sequence[float]]
    learn: Sequence[int]
    held: Sequence[int]

    @classmethod
    def of(cls, dev: Sequence[Example], evaluation: Evaluation, options: Options, context: Context) -> Dev:
        """Gather distinct replies, and hold out a share of the questions, spread over those with and without pairs."""
        means = evaluation.means()
        found = [_distinct(evaluation, q, means) for q in range(len(dev))]
        strata = [max(s, default=0.0) - min(s, default=0.0) > options.eps for _, s, _ in found]
        learn, held = holdout(strata, options.val_fraction, context.rng("llm_blender", "split", options.seed))
        return cls(
            examples=dev,
            texts=[texts for texts, _, _ in found],
            scores=[scores for _, scores, _ in found],
            skills=[skills for _, _, skills in found],
            learn=learn,
            held=held,
        )


def held_out(dev: int, options: Options) -> int:
    """Return how many dev questions are held out."""
    return len(holdout([0] * dev, options.val_fraction, random.Random(0))[1])


def _distinct(evaluation: Evaluation, q: int, means: Sequence[float]) -> tuple[list[str], list[float], list[float]]:
    found: dict[str, tuple[float, float]] = {}
    for replies, scores, mean in zip(evaluation.replies, evaluation.scores, means, strict=True):
        text = (strip_reasoning(replies[q].text) or "").strip()
        if text:
            score, skill = found.get(text, (scores[q] or 0.0, mean))
            found[text] = (score, max(skill, mean))
    return list(found), [score for score, _ in found.values()], [skill for _, skill in found.values()]


@attrs.frozen(kw_only=True)
class Pair:
    """Two replies to the dev question at index ``question``; ``first`` says whether the first is the better one."""

    question: int
    a: str
    b: str
    first: bool


def pairs_of(dev: Dev, where: Sequence[int], options: Options, context: Context) -> list[Pair]:
    """Return up to ``pairs_per_question`` pairs of each question whose scores differ by more than ``eps``."""
    out = []
    for q in where:
        scores = dev.scores[q]
        telling = [(i, j) for j in range(len(scores)) for i in range(j) if abs(scores[i] - scores[j]) > options.eps]
        rng = context.rng("llm_blender", "pairs", options.seed, dev.examples[q].id)
        for i, j in rng.sample(telling, min(len(telling), options.pairs_per_question)):
            out.append(Pair(question=q, a=dev.texts[q][i], b=dev.texts[q][j], first=scores[i] > scores[j]))
    return out


def lora(options: Options) -> Lora | None:
    """Return the adapter that is trained; None for all weights."""
    return Lora(r=options.lora_r, alpha=options.lora_alpha, dropout=options.lora_dropout) if options.lora_r else None


def ranker_job(base: Model, dev: Dev, pairs: Sequence[Pair], options: Options, *, keep: int) -> Sft | Rank:
    """Return the training of a ranker on pairs, each in both orders, so that labels say nothing about places."""
    settings: dict[str, Any] = {
        "lora": lora(options),
        "learning_rate": options.ranker_learning_rate,
        "epochs": options.ranker_epochs,
        "batch": options.batch,
        "max_length": options.source_tokens + 2 * options.candidate_tokens + 128,
        "keep": keep,
        "seed": options.seed,
    }
    if options.ranker == "pair_head":
        head = HeadRanker(model=base, options=options)
        shown = [head.row(dev.examples[p.question].question, p.a, p.b) for p in pairs]
        rows = [Duel(query=q, a=a, b=b, label=float(p.first)) for (q, a, b), p in zip(shown, pairs, strict=True)]
        return Rank(rows=rows, both_orders=True, **settings)
    judge = JudgeRanker(model=base, options=options, scored=False)
    turns = []
    for p in pairs:
        question = dev.examples[p.question].question
        for a, b, first in ((p.a, p.b, p.first), (p.b, p.a, not p.first)):
            turns.append((*judge.messages(question, a, b), Message("assistant", "A" if first else "B")))
    return Sft(rows=[Demonstration(messages=turn) for turn in turns], **settings)


def fuser_job(fuser: Model, rows: Sequence[Demonstration], held: Sequence[Demonstration], options: Options) -> Sft:
    """Return the training of a fuser, of which the epoch with the lowest held-out loss is kept."""
    return Sft(
        rows=rows,
        held_out=held,
        keep_best=bool(held),
        lora=lora(options),
        learning_rate=options.fuser_learning_rate,
        epochs=options.fuser_epochs,
        batch=options.batch,
        max_length=fuser.context_length or _LONGEST,
        overlong="drop",
        seed=options.seed,
    )


def expected(cost: Cost, judge: Model, fuser: Model, dev: int, options: Options) -> Cost:
    """Return a cost with the tokens of all trainings at full length, and the most memory that one of them needs."""
    learn, none = dev - held_out(dev, options), Dev(examples=(), texts=(), scores=(), skills=(), learn=(), held=())
    tokens, memory = 0.0, 0
    if options.trains_ranker:
        job = ranker_job(judge, none, (), options, keep=1)
        passes = (
            2 if options.ranker == "pair_head" and options.train_fuser else 1
        )  # the two halves together are one more
        length = min(job.max_length, judge.context_length or job.max_length)
        tokens += passes * 2 * options.pairs_per_question * learn * job.epochs * length
        memory = predicted_memory(job, judge)
    if options.train_fuser and options.k > 1:
        written = fuser_job(fuser, (), (), options)
        tokens += learn * written.epochs * written.max_length
        memory = max(memory, predicted_memory(written, fuser))
    return attrs.evolve(cost, train_tokens=tokens, train_memory=memory)


async def learn_ranker(base: Model, make: Any, dev: Dev, options: Options, context: Context) -> Model | None:
    """Return the trained ranker with the most held-out pairs right, None where nothing is better than no training.

    ``make(model)`` is the ranker that a model is asked as. An untrained judge is among what is chosen from.
    """
    pairs = pairs_of(dev, dev.learn, options, context)
    context.note(ranker_pairs=len(pairs))
    if not pairs:
        context.warn("llm_blender: no dev question has two replies of different scores, so no ranker can be trained")
        return None
    trained = await context.train(
        base, ranker_job(base, dev, pairs, options, keep=options.ranker_epochs), name=f"{base.name}-ranker"
    )
    candidates = [*([base] if options.ranker == "judge" else []), *stages(trained)]
    held = pairs_of(dev, dev.held, options, context)
    if not held:
        context.warn("llm_blender: no held-out question has a pair to choose a ranker by; the last epoch is taken")
        return trained
    accuracies = await context.gather(_accuracy(make(model), dev, held, context) for model in candidates)
    best = max(range(len(candidates)), key=lambda i: (accuracies[i], i))
    context.note(
        held_out_pairs=len(held),
        pair_accuracy={m.name: round(a, 6) for m, a in zip(candidates, accuracies, strict=True)},
        ranker=candidates[best].name,
    )
    if candidates[best] is base:
        context.warn(f"llm_blender: training makes {base.name} no better a judge of held-out pairs; it stays as it is")
        return None
    return candidates[best]


async def _accuracy(ranker: Ranker, dev: Dev, pairs: Sequence[Pair], context: Context) -> float:
    """Return the share of pairs that both orders together get right; a tie counts half."""

    async def one(pair: Pair) -> float:
        example = dev.examples[pair.question]
        scope = context.on(example.question)
        found = await ranker.preferences(example.question, [pair.a, pair.b], [(0, 1), (1, 0)], scope)
        value = (found[0] or 0.0) - (found[1] or 0.0)
        return 0.5 if value == 0 else float((value > 0) is pair.first)

    return math.fsum(await context.gather(one(pair) for pair in pairs)) / len(pairs)


async def learn_fuser(
    fuser: Model, base: Model, ranker: Ranker | None, dev: Dev, options: Options, max_new_tokens: int, context: Context
) -> Model | None:
    """Return the trained fuser; None where there was nothing to train on.

    A question's best replies are found by a ranker that was not trained on it: the judge as it was before training, a
    reward model, or, of two heads that are trained on half of the questions each, the other one.
    """
    rankers: dict[int, Ranker | None] = dict.fromkeys([*dev.learn, *dev.held], ranker)
    if options.ranker == "pair_head" and ranker is not None:
        rng = context.rng("llm_blender", "folds", options.seed)
        parts = folds([0] * len(dev.learn), 2, rng)
        for number, part in enumerate(parts):
            rest = [dev.learn[k] for other in parts if other is not part for k in other]
            pairs = pairs_of(dev, rest, options, context)
            half: Ranker | None = None
            if pairs:
                job = ranker_job(base, dev, pairs, options, keep=1)
                model = await context.train(base, job, name=f"{base.name}-ranker-half{number + 1}")
                half = HeadRanker(model=model, options=options)
            rankers |= dict.fromkeys((dev.learn[k] for k in part), half)

    async def row(q: int) -> Demonstration | None:
        example, texts = dev.examples[q], dev.texts[q]
        scope = context.on(example.question)
        if len(texts) < 2:
            return None
        ranking = await order(rankers[q], example.question, texts, dev.skills[q], options, scope)
        best = [texts[place] for place in ranking.places[: options.k]]
        target = await gold(example, scope)
        if target is None:
            target = texts[max(range(len(texts)), key=lambda i: (dev.scores[q][i], -i))]
        sheet = fused_sheet(fuser, example.question, best, max_new_tokens)
        return Demonstration(messages=(*messages(example.question, sheet), Message("assistant", target)))

    rows = [r for r in await context.gather(row(q) for q in dev.learn) if r is not None]
    held = [r for r in await context.gather(row(q) for q in dev.held) if r is not None]
    job = fuser_job(fuser, rows, held, options)
    trained = await context.train(fuser, job, name=f"{fuser.name}-fuser")
    return None if trained is fuser else trained


async def quality(
    ranker: Ranker | None,
    dev: Dev,
    where: Sequence[int],
    best_single: Sequence[float | None],
    options: Options,
    context: Context,
) -> Mapping[str, Any]:
    """Return how well a ranker ranks dev replies: agreement with their scores, and what it makes of places.

    ``spearman`` is the mean over questions whose replies have different scores, ``top1`` the share of these whose first reply
    has the highest; ``top_score`` is what returning the first would score on all, beside the best single model and the oracle.
    """

    async def one(q: int) -> Ranking | None:
        example = dev.examples[q]
        if len(dev.texts[q]) < 2:
            return None
        return await order(ranker, example.question, dev.texts[q], dev.skills[q], options, context.on(example.question))

    found = list(zip(where, await context.gather(one(q) for q in where), strict=True))
    rankings = [(q, r) for q, r in found if r is not None]
    telling = [(q, r) for q, r in rankings if len(set(dev.scores[q])) > 1]
    complete = options.aggregation != "bubble"
    rhos = [rho for q, r in telling if complete and (rho := spearman(r.scores, dev.scores[q])) is not None]
    firsts = [dev.scores[q][r.places[0]] == max(dev.scores[q]) for q, r in telling]
    top = [dev.scores[q][r.places[0] if r else 0] if dev.texts[q] else 0.0 for q, r in found]
    biases = [bias(r.matrix) for _, r in rankings] if complete and options.orders == 2 else []
    return {
        "questions": len(where),
        "telling": len(telling),
        "spearman": _mean(rhos),
        "top1": _mean([float(ok) for ok in firsts]),
        "top_score": _mean(top),
        "best_single": _mean([best_single[q] or 0.0 for q in where]),
        "oracle": _mean([max(dev.scores[q], default=0.0) for q in where]),
        "position_bias": _mean([mean for mean, _ in biases]),
        "same_place": _mean([share for _, share in biases]),
        "unread": sum(r.unread for _, r in rankings),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(math.fsum(values) / len(values), 6) if values else None
