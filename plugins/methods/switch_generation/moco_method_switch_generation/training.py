"""Training a switcher: at sampled places of sampled answers, which writer of the next patch leads to the best answer?

Feng et al. 2025, arXiv 2510.09913. For every instance a dev question and a prefix of patches by random writers are drawn; every
writer then writes the next patch, random ones finish, and the writer whose answers are worth most is the label.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

import moco_toolkit_decoding as decoding
from moco_core import ConfigError, Context, Example, Message, Model, PromptTooLong, Reply, plain
from moco_method_switch_generation.options import Options
from moco_method_switch_generation.prompts import conversation, labels_of
from moco_method_switch_generation.writing import Writing, opened
from moco_toolkit_training import Demonstration, Lora, Sft

__all__ = ["Instance", "learn_switcher", "rows_of"]

VERSION = 1
"""Raised when the same dev examples, models and options give other instances."""
ATTEMPTS = 10
"""Prefixes drawn for an instance before it is given up: one that has ended has no next patch."""


@attrs.frozen(kw_only=True)
class Instance:
    """A place in an answer: the example, the patches before it as ``(writer, text)``, and what the answers of each writer of
    the next patch are worth.
    """

    example: Example
    patches: Sequence[tuple[int, str]]
    worth: Sequence[float]

    def best(self, tie: float) -> tuple[int, ...]:
        """Return the writers whose worth is within ``tie`` of the best; none where that is all of them."""
        top = max(self.worth)
        found = tuple(i for i, value in enumerate(self.worth) if value >= top - tie)
        return () if len(found) == len(self.worth) else found


class _Enough(Exception):
    """The prefix has its patches."""


class Planned:
    """A stub for the switcher: the writers of a plan in turn, then :class:`_Enough`, or with a generator any of ``writers``."""

    tokens = None

    def __init__(self, plan: Sequence[int], writers: int = 0, generator: random.Random | None = None) -> None:
        self.plan, self.writers, self.generator = list(plan), writers, generator

    async def choose(self, patches: Sequence[tuple[int, str]]) -> int:
        if self.plan:
            return self.plan.pop(0)
        if self.generator is None:
            raise _Enough
        return self.generator.randrange(self.writers)

    def close(self) -> None:
        pass


async def learn_switcher(
    base: Model, writers: Sequence[Model], options: Options, shared: bool, dev: Sequence[Example], context: Context
) -> Model | None:
    """Return ``base`` trained to name the writer of the next patch; None (with a warning) if dev tells nothing."""
    places = choices(options, len(writers), context.sampling.max_new_tokens)
    if places < 1:
        raise ConfigError(
            f"switcher=train: an answer of {context.sampling.max_new_tokens} tokens has too few patches of "
            f"{options.patch_size} to choose between; lower patch_size"
        )
    drawn: dict[str, list[int]] = {}
    chance = context.rng("switch_generation", "instances")
    for number in range(options.instances):
        drawn.setdefault(chance.choice(dev).id, []).append(number)

    async def work(example: Example, scope: Context) -> list[Instance]:
        found = [
            await _instance(writers, options, shared, example, number, places, scope) for number in drawn[example.id]
        ]
        return [instance for instance in found if instance is not None]

    parts = await context.each([e for e in dev if e.id in drawn], work, label="switcher's instances")
    found = [instance for part in parts for instance in part]
    telling = [instance for instance in found if instance.best(options.tie_eps)]
    best = [sum(i in instance.best(options.tie_eps) for instance in telling) for i in range(len(writers))]
    context.note(
        instances=len(found),
        labelled=len(telling),
        best_next={model.name: count for model, count in zip(writers, best, strict=True)},
    )
    if not telling:
        context.warn(
            "switch_generation: on dev every next writer leads to answers of equal worth, so that nothing can be learnt; "
            f"{base.name} chooses without training"
        )
        return None
    held = _held_out(telling, options.held_out, context.rng("switch_generation", "held_out"))
    names = [m.description or m.name for m in writers]
    job = Sft(
        rows=rows_of([i for i in telling if i.example.id not in held], names, options),
        held_out=rows_of([i for i in telling if i.example.id in held], names, options),
        keep_best=True,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        lora=Lora(r=options.lora_r, alpha=options.lora_alpha),
    )
    trained = await context.train(base, job, name=f"{base.name}-switcher")
    return None if trained is base else trained


def choices(options: Options, writers: int, tokens: int) -> int:
    """Return at how many places of an answer the switcher is asked, a patch of random writers left after each of them."""
    patches = math.ceil(tokens / options.patch_size)
    return patches - (2 if options.ends(writers) else 1)


def rows_of(instances: Sequence[Instance], names: Sequence[str], options: Options) -> list[Demonstration]:
    """Return what a switcher is trained on: the prompt that it will be asked, and a label for each writer that is best."""
    labels, out = labels_of(len(names)), []
    for instance in instances:
        asked = conversation(instance.example.question, names, instance.patches, tags=options.trace == "tags")
        begun = asked.pop().content + " " if asked[-1].role == "assistant" else ""
        out += [
            Demonstration(messages=[*asked, Message("assistant", begun + labels[i])])
            for i in instance.best(options.tie_eps)
        ]
    return out


def _held_out(instances: Sequence[Instance], share: float, chance: random.Random) -> set[str]:
    """Return the questions that are held out, whole ones; none if there is only one."""
    names = list(dict.fromkeys(instance.example.id for instance in instances))
    return set(chance.sample(names, max(1, round(share * len(names))))) if len(names) > 1 else set()


async def _instance(
    writers: Sequence[Model],
    options: Options,
    shared: bool,
    example: Example,
    number: int,
    places: int,
    scope: Context,
) -> Instance | None:
    """Return one instance; None if every prefix that was drawn had ended, or the question cannot be read."""
    each = math.ceil(options.rollouts / len(writers))
    sampling = attrs.evolve(scope.sampling, temperature=options.fit_temperature, top_p=options.fit_top_p)

    async def compute(spent: decoding.Spent) -> Mapping[str, Any] | None:
        @asynccontextmanager
        async def answer(plan: Planned, draws: random.Random) -> AsyncIterator[Writing]:
            inner = scope.on(example.question)
            async with opened(writers, example.question, options, shared, plan, inner, sampling, draws) as writing:
                yield writing
            spent.add(inner)

        async def rollout(i: int, n: int) -> str:
            draws = scope.rng("switch_generation", "rollout", number, i, n)
            async with answer(Planned([i], len(writers), draws), draws) as writing:
                writing.restore(state)
                return str((await writing.run())["text"])

        draws = scope.rng("switch_generation", "prefix", number)
        try:
            for _ in range(ATTEMPTS):
                drawn = [draws.randrange(len(writers)) for _ in range(draws.randrange(places))]
                async with answer(Planned(drawn), draws) as writing:
                    begun = await _begun(writing)
                if begun is not None:
                    break
            else:
                return None
            state, patches = begun
            texts = await scope.gather(rollout(i, n) for i in range(len(writers)) for n in range(each))
        except PromptTooLong:
            return None  # nothing can be learnt from a question that cannot be read
        return {"patches": patches, "texts": [texts[i * each : (i + 1) * each] for i in range(len(writers))]}

    what = {
        "kind": "switch_generation.instance",
        "version": VERSION,
        "question": [example.id, plain(example.question.messages())],
        "sampling": sampling.params(),
        "settings": options.deciding(),
        "instance": [number, places, each],
        "shared": shared,
        "seed": scope.seed,
    }
    found = await decoding.fit_once(scope, what, writers, compute)
    if found is None:
        return None
    worth = [[await _worth(example, text, options, scope) for text in texts] for texts in found["texts"]]
    return Instance(
        example=example,
        patches=[(int(i), str(text)) for i, text in found["patches"]],
        worth=[math.fsum(values) / len(values) for values in worth],
    )


async def _begun(writing: Writing) -> tuple[Mapping[str, Any], list[tuple[int, str]]] | None:
    """Write a prefix and return how far the answer is, and its patches; None if it has ended."""
    try:
        await writing.run()
    except _Enough:
        return writing.state(), writing.told_so_far()
    return None


async def _worth(example: Example, text: str, options: Options, scope: Context) -> float:
    """Return what an answer is worth: the metric's score, or the reward of question and answer."""
    judge = options.judge
    if judge is None:
        return (await scope.grade(example, Reply(text=text))).value or 0.0
    talk = (*example.question.messages(), Message("assistant", text))
    return (await scope.reward(judge, talk))[0]
