"""Routers that are models themselves: an encoder with a label head, or a causal language model that is read at one token.

Training and asking render a question by the same call, so that a router is asked what it was trained on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import CAPABILITIES, ConfigError, Context, Example, Message, Model, Pool, Question
from moco_method_trained_router.fitting import Learnt
from moco_method_trained_router.lesson import Lesson
from moco_method_trained_router.options import Options
from moco_toolkit_quoting import fence, transcript
from moco_toolkit_routing import folds, holdout, route_prompt, scoring_labels
from moco_toolkit_training import Classify, Demonstration, Labelled, Lora, Sft, predicted_memory

__all__ = ["Asker", "base_of", "base_problems", "learn_model", "predicted"]

QUESTION = 60
"""Tokens of a question, as a guess for what a plan says."""
_RATINGS = scoring_labels(5)
"""How well the weak model would do, from badly (1) to well (5); from 2 on it suffices."""


@attrs.frozen(kw_only=True)
class Asker:
    """How a router of this kind is shown a question, and how its probabilities are read."""

    options: Options
    descriptions: tuple[str, ...]

    def prompt(self, question: Question) -> str:
        """Return what the router reads."""
        text = transcript(question)
        if self.options.router == "encoder":
            return text
        if self.options.mode == "nway":
            return route_prompt(text, self.descriptions, self.labels)
        about = " ".join(self.descriptions[0].split())
        return (
            f"How well would this model answer the question? Model: {about}\n{fence('question', text)}\n"
            f"Reply with a rating from {_RATINGS[0]} (badly) to {_RATINGS[-1]} (well) and nothing else."
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The tokens that causal_lm says."""
        return scoring_labels(len(self.descriptions)) if self.options.mode == "nway" else _RATINGS

    @property
    def classes(self) -> int:
        """How many outputs the router has; an encoder tells the strong model's win, a tie, and the weak one's win apart."""
        binary = 3 if self.options.router == "encoder" else len(_RATINGS)
        return len(self.descriptions) if self.options.mode == "nway" else binary

    async def values(self, model: Model, question: Question, context: Context) -> list[float]:
        """Return one probability per model; none where the router's output is of another form. Raises ModelCallError."""
        if self.options.router == "encoder":
            logits = await context.reward(model, [Message("user", self.prompt(question))])
        else:
            found = await context.score(model, self.prompt(question), self.labels)
            logits = tuple(score.logprob for score in found)
        shares = _softmax(logits)
        if len(shares) != self.classes:
            return []
        if self.options.mode == "nway":
            return shares
        if self.options.router == "encoder":  # strong wins, tie, weak wins
            strong = 1 - shares[1] - shares[2]
        else:
            strong = 1 - math.fsum(shares[1:])
        return [1 - strong, strong]

    def rows(self, dev: Sequence[Example], lesson: Lesson, where: Sequence[int]) -> list[Any]:
        """Return what the router is trained on, for the questions that say something."""
        out: list[Any] = []
        for q in where:
            prompt, target = self.prompt(dev[q].question), lesson.targets[q]
            if self.options.mode == "binary":
                label = _outcome(lesson.scores[q], self.options.tie_eps)
                if self.options.router == "encoder":
                    out.append(Labelled(messages=prompt, label=label))
                else:
                    rating = 0 if label == 0 else 1 + round(3 * min(1.0, max(0.0, lesson.scores[q][0])))
                    out.append(Demonstration.of(prompt, _RATINGS[rating]))
            elif target is None:
                continue
            elif self.options.router == "encoder":
                out.append(Labelled(messages=prompt, label=target))
            else:  # a label token each for all who are best
                out += [Demonstration.of(prompt, self.labels[i]) for i, share in enumerate(target) if share]
        return out

    def job(self, dev: Sequence[Example], lesson: Lesson, train: Sequence[int], held: Sequence[int]) -> Classify | Sft:
        """Return the training that makes a router of a model."""
        options = self.options
        settings: dict[str, Any] = {
            "rows": self.rows(dev, lesson, train),
            "held_out": self.rows(dev, lesson, held),
            "epochs": options.in_force("epochs"),
            "batch": int(options.in_force("batch")),
            "learning_rate": options.in_force("learning_rate"),
            "weight_decay": options.in_force("weight_decay"),
            "keep_best": True,
            "seed": options.seed,
        }
        if options.router == "encoder":
            return Classify(classes=self.classes, lora=None, **settings)
        lora = Lora(r=options.lora_r, alpha=options.lora_alpha, dropout=options.lora_dropout)
        return Sft(lora=lora if options.lora_r else None, **settings)


def predicted(pool: Sequence[Model], options: Options, descriptions: Sequence[str], dev: int) -> dict[str, float]:
    """Predict what training takes (``Cost.train_tokens`` and ``train_memory``): a router, and one for each fold of dev."""
    base = base_of(pool, options)
    if base is None or not dev:
        return {}
    asker = Asker(options=options, descriptions=tuple(descriptions))
    tokens = QUESTION + len(asker.prompt(Question(id="", prompt=""))) / 4
    routers = 1 + (options.parts - 1 if options.parts > 1 else 0)  # a fold's router lacks the fold
    rows = (1 - options.val_fraction) * dev
    job = asker.job([], Lesson(inputs=[], targets=[], scores=[]), [], []) if options.router == "causal_lm" else None
    labelled: tuple[Labelled, ...] = (Labelled(messages="", label=0),)
    head = Classify(rows=labelled, classes=2, lora=None, batch=int(options.in_force("batch")))
    return {
        "train_tokens": options.in_force("epochs") * routers * rows * tokens,
        "train_memory": predicted_memory(job or head, base),
    }


async def learn_model(
    base: Model,
    asker: Asker,
    dev: Sequence[Example],
    lesson: Lesson,
    strata: Sequence[Any],
    seed: int,
    context: Context,
) -> tuple[Model | None, Learnt]:
    """Train the router on dev less a held-out share, and one more per fold; None if there was nothing to train on."""
    options, everything = asker.options, list(range(len(dev)))

    async def fit(rows: Sequence[int], seed: int, name: str) -> tuple[Model | None, list[int]]:
        inner, outer = holdout([strata[q] for q in rows], options.val_fraction, random.Random(seed))
        train, held = [rows[k] for k in inner], [rows[k] for k in outer]
        model = await context.train(base, asker.job(dev, lesson, train, held), name=name)
        return (None if model is base else model), held

    async def ask(model: Model | None, rows: Sequence[int]) -> list[list[float]]:
        if model is None:
            return [[] for _ in rows]
        told = await context.each(
            [dev[q] for q in rows], lambda e, scope: asker.values(model, e.question, scope), label="routing dev"
        )
        return [row if all(map(math.isfinite, row)) else [] for row in told]

    model, held = await fit(everything, seed, f"{base.name}-router")
    parts: list[list[int]] = []
    values: list[list[float]] = [[] for _ in everything]
    if options.parts > 1 and len(dev) > 1:
        parts = folds(strata, options.parts, random.Random(seed))
        for number, part in enumerate(parts, 1):
            rest = [q for q in everything if q not in set(part)]
            other, _ = await fit(rest, seed + number, f"{base.name}-router-fold{number}")
            for q, row in zip(part, await ask(other, part), strict=True):
                values[q] = row
    return model, Learnt(held=held, held_values=await ask(model, held), parts=parts, values=values if parts else ())


def base_of(pool: Sequence[Model], options: Options) -> Model | None:
    """Return who is trained: the named member, else the smallest that can be, an encoder first for router=encoder."""
    if options.base != "auto":
        return Pool(pool).named(options.base, "base")
    able = [model for model in pool if model.can("train")]
    if options.router == "causal_lm":
        able = [model for model in able if model.can("score")]
    first = {m.name: i for i, m in enumerate(pool)}
    silent = options.router == "encoder"
    return min(
        able,
        key=lambda m: (silent and m.can("generate"), m.parameters or math.inf, first[m.name]),
        default=None,
    )


def base_problems(pool: Sequence[Model], options: Options) -> list[str]:
    """Return what keeps a member from being trained as the router, one sentence each."""
    try:
        base = base_of(pool, options)
    except ConfigError as error:
        return list(error.problems)
    needed = ("train", "score") if options.router == "causal_lm" else ("train",)
    advice = "the transformers engine can (pip install moco-pool-transformers); or choose router=embedding_mlp"
    if base is None:
        what = " and ".join(f"{CAPABILITIES[name]} (capability {name!r})" for name in needed)
        return [f"router: {options.router}: no model of the pool can {what}; {advice}"]
    return [
        f"base: model {base.name!r} cannot {CAPABILITIES[name]} (capability {name!r}); {advice}"
        for name in needed
        if not base.can(name)
    ]


def _outcome(scores: Sequence[float], tie: float) -> int:
    """Return 0 if the strong model wins, 1 for a tie, 2 if the weak one wins."""
    weak, strong = scores
    return 0 if strong > weak + tie else 2 if weak > strong + tie else 1


def _softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    if not math.isfinite(top):
        return [math.nan] * len(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / math.fsum(weights) for weight in weights]
