"""Training the aggregator: sets of solutions from dev, GRPO with the metric as reward, a checkpoint by held-out sets."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from moco_core import (
    CapabilityError,
    Context,
    Cost,
    Example,
    Model,
    ModelCallError,
    Pool,
    Reply,
    Sampling,
    digest,
    plain,
)
from moco_method_agglm.drawing import Solution, draw, ratio, shuffled
from moco_method_agglm.options import Options
from moco_method_agglm.prompts import VERSION, Room
from moco_method_agglm.sets import CandidateSet, mixture, plan
from moco_toolkit_quoting import CHARACTERS_PER_TOKEN
from moco_toolkit_routing import holdout
from moco_toolkit_training import Completion, Grpo, Lora, Task, predicted_memory, stages

__all__ = ["Learnt", "expected", "held_out", "job_of", "learn", "require_room"]

_FULL = 1 - 1e-9
_NEVER = 1 << 30


@attrs.frozen(kw_only=True)
class Learnt:
    """What fitting gives: the aggregator (None: as it was), its characters per token, a digest of what it was trained on."""

    trained: Model | None = None
    ratio: float
    data: str = ""


def held_out(dev: int, options: Options) -> int:
    """Return how many dev questions are held out."""
    return len(holdout([0] * dev, options.val_fraction, random.Random(0))[1])


def expected(cost: Cost, aggregator: Model, dev: int, options: Options, run: Sampling) -> Cost:
    """Return a cost with the tokens of training on every set at full length, and its memory."""
    room = Room.of(aggregator, options.max_prompt, options.final(run).max_new_tokens)
    sets = (dev - held_out(dev, options)) * options.sets_per_question
    job = grpo(room, options, rows=(), judge=None, judged_by=None)
    return attrs.evolve(
        cost,
        train_tokens=sets * options.epochs * options.num_generations * room.total,
        train_memory=predicted_memory(job, aggregator),
    )


async def learn(pool: Pool, aggregator: Model, dev: Sequence[Example], options: Options, context: Context) -> Learnt:
    """Draw sets, train on their mixture and choose among the stages of the training and its start."""
    places = {example.id: place for place, example in enumerate(dev)}
    drawn = await context.each(
        dev, lambda e, scope: _sets(pool, aggregator, places[e.id], e, options, scope), label="solutions of dev"
    )
    sets, known = [s for found, _ in drawn for s in found], min(seen for _, seen in drawn)
    strata = [any(s.hard for s in found) for found, _ in drawn]
    rng = context.rng("agglm", "split", options.seed)
    inner, outer = (set(part) for part in holdout(strata, options.val_fraction, rng))
    chosen = mixture(
        [s for s in sets if s.question in inner], options.easy_ratio, options.max_easy, options.skip_unsolvable, rng
    )
    held = [s for s in sets if s.question in outer]
    context.note(sets=_counts(sets), trained_on=_counts(chosen), held_out=_counts(held))
    if not any(s.hard for s in sets if s.question in inner):
        context.warn(
            "agglm: the majority is right in every set that could be trained on, so there is little to learn; "
            f"{len(chosen)} easy sets are used"
        )
    room = require_room(aggregator, dev, options, options.size(len(pool)), context.sampling, known)
    job = job_of([(dev[s.question], s.texts) for s in chosen], room, options, context)
    trained = await context.train(aggregator, job, name=f"{aggregator.name}-agglm")
    data = digest(plain(job.rows))
    if trained is aggregator:
        return Learnt(ratio=known, data=data)
    best = await _choose([aggregator, *stages(trained)], held, dev, room, options, context)
    return Learnt(trained=None if best is aggregator else best, ratio=known, data=data)


def require_room(
    aggregator: Model,
    dev: Sequence[Example],
    options: Options,
    m: int,
    run: Sampling,
    known: float = CHARACTERS_PER_TOKEN,
) -> Room:
    """Return the aggregator's room. Raises CapabilityError, with the numbers, if m solutions do not fit beside a question."""
    room = Room.of(aggregator, options.max_prompt, options.final(run).max_new_tokens, known)
    for example in dev:
        if problem := room.problem(example.question, m):
            raise CapabilityError(f"agglm.aggregator: {aggregator.name} cannot read {m} solutions: {problem}")
    return room


async def _sets(
    pool: Pool, aggregator: Model, place: int, example: Example, options: Options, context: Context
) -> tuple[list[CandidateSet], float]:
    """Return one question's sets, and the aggregator's characters per token as its solutions tell them."""
    planned = plan(len(pool), options.size(len(pool)), options.sets_per_question)
    everything = [place for part in planned for place in part]
    solutions = await draw(pool, everything, example.question, context, options.solving(context.sampling))

    async def right(solution: Solution) -> bool:
        if solution.generation is None:
            return False
        return await full(example, Reply.of(solution.generation), context)

    marks = dict(zip(map(id, solutions), await context.gather(right(s) for s in solutions), strict=True))
    waiting, out = iter(solutions), []
    for number, part in enumerate(planned):
        shown = shuffled([next(waiting) for _ in part], number, options.seed, context)
        if shown:
            out.append(
                CandidateSet(
                    question=place,
                    number=number,
                    texts=tuple(s.text for s in shown),
                    keys=tuple(s.answer.key for s in shown),
                    right=tuple(marks[id(s)] for s in shown),
                )
            )
    return out, ratio(aggregator, example.question, solutions)


async def full(example: Example, reply: Reply, context: Context) -> bool:
    """Return whether the run's metric gives a reply the full score."""
    value = (await context.grade(example, reply)).value
    return value is not None and value >= _FULL


def job_of(rows: Sequence[tuple[Example, Sequence[str]]], room: Room, options: Options, context: Context) -> Grpo:
    """Return the training on (example, solutions shown), whose reward is 1 for a completion with the full score, else 0."""
    by_id = {example.id: example for example, _ in rows}

    async def judge(completions: Sequence[Completion]) -> list[float]:
        async def one(completion: Completion) -> float:
            example = by_id[completion.task.extra["example"]]
            return float(await full(example, Reply(text=completion.text), context.on(example.question)))

        return await context.gather(one(completion) for completion in completions)

    tasks = [
        Task(prompt=room.messages(e.question, texts), extra={"example": e.id, "reference": digest(plain(e))})
        for e, texts in rows
    ]
    metric = context.metric
    judged_by = {
        "metric": type(metric).__qualname__,
        "options": plain(getattr(metric, "options", None)),
        "prompt": VERSION,
    }
    return grpo(room, options, rows=tasks, judge=judge, judged_by=judged_by)


def grpo(room: Room, options: Options, **rows: Any) -> Grpo:
    """Return the training with the settings of the options."""
    return Grpo(
        lora=Lora(r=options.lora_r, alpha=options.lora_alpha, dropout=options.lora_dropout) if options.lora_r else None,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch=options.batch,
        group=options.num_generations,
        beta=options.beta,
        epsilon=options.epsilon,
        temperature=options.temperature,
        max_new_tokens=room.reply,
        max_length=room.total,
        overlong="drop",  # a prompt that is longer than was reckoned: its question is never cut
        keep=options.checkpoints,
        patience=_NEVER,  # easy sets alone have no spread; what then comes of it, held-out sets tell
        seed=options.seed,
        **rows,
    )


async def _choose(
    candidates: Sequence[Model],
    held: Sequence[CandidateSet],
    dev: Sequence[Example],
    room: Room,
    options: Options,
    context: Context,
) -> Model:
    """Return the candidate with the most held-out sets right; the later one of equals, the last one without any set."""
    if not held:
        context.warn("agglm: no dev question is left to choose a checkpoint by; the last one is taken")
        return candidates[-1]
    sampling = options.final(context.sampling)

    async def one(item: tuple[CandidateSet, Model]) -> bool:
        candidates_set, model = item
        example = dev[candidates_set.question]
        scope = context.on(example.question)
        try:
            reply = await scope.generate(model, room.messages(example.question, candidates_set.texts), sampling)
        except ModelCallError:
            return False
        return await full(example, Reply.of(reply), scope)

    right = await context.gather(one((s, model)) for model in candidates for s in held)
    rows = [right[i * len(held) : (i + 1) * len(held)] for i in range(len(candidates))]
    rewards = [sum(row) / len(held) for row in rows]
    best = max(range(len(candidates)), key=lambda i: (rewards[i], i))
    majority = sum(not s.hard for s in held) / len(held)
    context.note(
        held_out_reward={m.name: round(r, 6) for m, r in zip(candidates, rewards, strict=True)},
        held_out_hard={
            m.name: sum(ok for ok, s in zip(row, held, strict=True) if s.hard)
            for m, row in zip(candidates, rows, strict=True)
        },
        held_out_majority=majority,
        chosen=candidates[best].name,
    )
    if best == 0:
        context.warn(
            f"agglm: no stage of the training is better on held-out sets than the untrained {candidates[0].name} "
            f"({rewards[0]:.3f}), which is kept"
        )
    return candidates[best]


def _counts(sets: Sequence[CandidateSet]) -> Mapping[str, Any]:
    """Return what the fit log says of sets."""
    hard = [s for s in sets if s.hard]
    return {
        "sets": len(sets),
        "hard": len(hard),
        "unsolvable": sum(not s.solvable for s in hard),
        "questions": len({s.question for s in sets}),
    }
