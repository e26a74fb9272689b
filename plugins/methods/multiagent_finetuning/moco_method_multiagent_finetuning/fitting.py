"""Iterations of debating and training: each starts from the models of the one before, whose adapters are trained further."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from moco_core import Context, Generation, Model, ModelCallError, Question
from moco_method_multiagent_finetuning.debating import Agents, debate
from moco_method_multiagent_finetuning.diversity import alike, apart
from moco_method_multiagent_finetuning.lessons import Lesson, lessons, mixture
from moco_method_multiagent_finetuning.options import Options
from moco_toolkit_discussion import Talk
from moco_toolkit_training import Demonstration, Lora, Sft

__all__ = ["hold", "job"]


def job(rows: Sequence[Demonstration], options: Options) -> Sft:
    """Return the training of one model in one iteration."""
    lora = Lora(r=options.lora_r, alpha=options.lora_alpha, dropout=options.lora_dropout) if options.lora_r else None
    return Sft(
        rows=rows,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch=options.batch,
        warmup=options.warmup,
        max_length=options.max_length,
        lora=lora,
        seed=options.seed,
    )


async def hold(
    agents: Agents, roots: Sequence[Model], questions: Sequence[Question], options: Options, context: Context
) -> tuple[Agents, bool]:
    """Return the agents after all iterations, and whether any model was trained. Killed, it goes on where it stopped."""
    rng = context.rng("multiagent_finetuning", "questions", options.seed)
    size = min(len(questions), options.train_size or len(questions))
    questions = [questions[place] for place in sorted(rng.sample(range(len(questions)), size))]
    names = [f"{root.name}-{n}" if len(set(roots)) < len(roots) else root.name for n, root in enumerate(roots)]
    trained = False
    for iteration in range(1, options.iterations + 1):
        talks = await _debates(agents, questions, options, context, iteration)
        if not talks:
            continue
        found, counts = lessons(talks)
        context.note(iteration=iteration, **counts, **alike(talks), **await _apart(talks, agents, options, context))
        after = await _train(agents, found, names, iteration, options, context)
        trained = trained or after != agents
        agents = after
    if options.diversity == "full":
        said = await _first_replies(agents, questions, options, context)
        embedder = next((m for m in roots if m.can("embed")), None)
        context.note(iteration=options.iterations + 1, **await apart(said, agents.generators, embedder, context))
    return agents, trained


async def _debates(
    agents: Agents, questions: Sequence[Question], options: Options, context: Context, iteration: int
) -> list[Talk]:
    """Hold a debate on every question; those that nobody answered are left out."""

    async def one(question: Question, scope: Context) -> Talk | ModelCallError:
        try:
            return await debate(agents, question, options, scope)
        except ModelCallError as error:
            return error

    found = await context.each(questions, one, label=f"debates of iteration {iteration}")
    talks = [talk for talk in found if isinstance(talk, Talk)]
    if len(talks) < len(found):
        context.warn(f"multiagent_finetuning: {len(found) - len(talks)} dev questions had no debate: every call failed")
    return talks


async def _train(
    agents: Agents, found: Sequence[Lesson], names: Sequence[str], iteration: int, options: Options, context: Context
) -> Agents:
    """Train every agent's generator and critic on its own examples, or one pair of models on everybody's."""
    if options.agents == "shared":
        found = [
            Lesson(
                generation=[row for lesson in found for row in lesson.generation],
                corrected=[row for lesson in found for row in lesson.corrected],
                kept=[row for lesson in found for row in lesson.kept],
            )
        ]
    work = []
    for n, lesson in enumerate(found):
        rng = context.rng("multiagent_finetuning", "mixture", options.seed, iteration, n)
        dialogues = mixture(lesson, options.w, rng)
        context.note(iteration=iteration, agent=names[n], **lesson.counts(), dialogues=len(dialogues))
        if dialogues and bool(lesson.corrected) != bool(lesson.kept) and options.w not in (0, 1):
            side = "corrected" if lesson.corrected else "kept"
            context.note(iteration=iteration, agent=names[n], only=side)
        work += [
            (agents.generators[n], lesson.generation, f"{names[n]}-generator{iteration}"),
            (agents.critics[n], dialogues, f"{names[n]}-critic{iteration}"),
        ]

    async def one(model: Model, rows: Sequence[Demonstration], name: str) -> Model:
        if len(rows) < options.min_examples:
            return model
        return await context.train(model, job(rows, options), name=name)

    models: list[Model] = await context.gather(one(*each) for each in work)
    times = len(agents.generators) if options.agents == "shared" else 1
    return attrs.evolve(agents, generators=tuple(models[::2]) * times, critics=tuple(models[1::2]) * times)


async def _apart(talks: Sequence[Talk], agents: Agents, options: Options, context: Context) -> dict[str, Any]:
    if options.diversity != "full":
        return {}
    embedder = next((m for m in agents.summarizers if m.can("embed")), None)
    return await apart([(talk.question, talk.texts[0]) for talk in talks], agents.generators, embedder, context)


async def _first_replies(
    agents: Agents, questions: Sequence[Question], options: Options, context: Context
) -> list[tuple[Question, list[str | None]]]:
    """Return every generator's reply to every question."""
    sampling = options.sampling(context.sampling)

    async def one(question: Question, scope: Context) -> tuple[Question, list[str | None]]:
        replies = await scope.gather(
            (scope.generate(model, question, sampling) for model in agents.generators), tolerate=ModelCallError
        )
        return question, [reply.text if isinstance(reply, Generation) else None for reply in replies]

    return await context.each(questions, one, label="first replies")
