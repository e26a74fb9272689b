"""Multi-agent fine-tuning.

Subramaniam et al., "Multiagent Finetuning: Self Improvement with Diverse Reasoning Chains", arXiv 2501.05707 (ICLR 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import ConfigError, Context, Cost, Example, Method, Model, Needs, Pool, Question, Reply, Sampling, System
from moco_method_multiagent_finetuning.debating import Agents, conclude, debate
from moco_method_multiagent_finetuning.fitting import hold, job
from moco_method_multiagent_finetuning.options import Options
from moco_toolkit_discussion import model_problems
from moco_toolkit_training import kept, predicted_memory, restore_trained, save_trained
from moco_toolkit_voting import OPEN_KINDS, metric_utility

__all__ = ["MultiagentFinetuning", "MultiagentFinetuningSystem"]

_PROMPT = 128
"""Tokens that a question is taken to have where trainings are predicted."""


@attrs.frozen(eq=False, slots=False)
class MultiagentFinetuningSystem(System):
    """The agents: a generator and a critic each. ``outcome`` says what fitting came to: ``trained``, ``nothing_trained``
    (no model had enough examples) or ``no_iterations``.
    """

    generators: tuple[Model, ...]
    critics: tuple[Model, ...]
    outcome: str

    @property
    def agents(self) -> Agents:
        return Agents(
            generators=self.generators,
            critics=self.critics,
            summarizers=summarizers(self.pool, self.options, len(self.critics)),
        )

    async def respond(self, question: Question, context: Context) -> Reply:
        reply = conclude(await debate(self.agents, question, self.options, context))
        return attrs.evolve(reply, meta={**reply.meta, "outcome": self.outcome})

    def state(self) -> Mapping[str, Any]:
        return {
            "generators": [kept(model) for model in self.generators],
            "critics": [kept(model) for model in self.critics],
            "outcome": self.outcome,
        }

    def save_files(self, folder: Path) -> None:
        for model in {model.name: model for model in (*self.generators, *self.critics)}.values():
            save_trained(model, folder / model.name)


class MultiagentFinetuning(Method[Options]):
    """Agents debate; each one's generator and critic are trained on its own words that the majority upholds, and again."""

    Options = Options
    system = MultiagentFinetuningSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Multi-agent fine-tuning"
    paper: ClassVar[str] = "arXiv 2501.05707"

    def needs(self) -> Needs:
        optional = {"embed", "score"} if self.options.diversity == "full" else set()
        return Needs(capabilities=frozenset({"generate", "train"}), optional=optional, check=self._problems)

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        wanted = self.options.summarizer
        return [] if wanted is None else model_problems(pool, [wanted], "summarizer")

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        agents = options.num_agents or models
        summaries = agents * (options.rounds - 1) if options.summarize and agents > 1 else 0
        talk = agents * options.rounds + summaries
        debated = min(dev, options.train_size or dev)
        measured = 0
        if options.diversity == "full":
            measured = (options.iterations + 1) * (1 + agents * (agents - 1)) + agents
        return Cost(fit=debated * (options.iterations * talk + measured), respond=talk)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        """Trainings as if every agent were right in every round and no dialogue were left out."""
        options = self.options
        agents, reply = options.num_agents or len(pool), options.sampling(sampling).max_new_tokens
        first = min(options.max_length, _PROMPT + reply)
        # every later turn asks again, and quotes about as much as a reply
        whole = (
            min(options.max_length, first + (options.rounds - 1) * (_PROMPT + 2 * reply)) if options.rounds > 1 else 0
        )
        rows = min(dev, options.train_size or dev) * agents * options.iterations
        return attrs.evolve(
            self.cost(len(pool), dev),
            train_tokens=rows * (first + whole) * options.epochs,
            train_memory=max(predicted_memory(job((), options), model) for model in pool),
        )

    def learns(self) -> bool:
        """Return False: references of dev are never read, and a placebo would be the method itself."""
        return False

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> MultiagentFinetuningSystem:
        options = self.options
        count = options.num_agents or len(pool)
        roots = tuple(pool[n % len(pool)] for n in range(count))
        agents = Agents(generators=roots, critics=roots, summarizers=summarizers(pool, options, count))
        if not options.iterations:
            return MultiagentFinetuningSystem(pool, options, roots, roots, "no_iterations")
        if not dev:
            raise ConfigError(
                "multiagent_finetuning: agents are trained on debates of dev questions and there are none; raise the dev "
                "limit, or set iterations=0"
            )
        for example in dev:
            question = example.question
            if question.answer_kind in OPEN_KINDS and metric_utility(context.metric, question, []) is None:
                raise ConfigError(
                    f"multiagent_finetuning: answers of the kind {question.answer_kind!r} (dev question {question.id!r}) "
                    "cannot be compared, so no majority can be learnt from; choose a metric that grades them, or iterations=0"
                )
        agents, trained = await hold(agents, roots, [e.question for e in dev], options, context)
        outcome = "trained" if trained else "nothing_trained"
        context.note(outcome=outcome)
        if not trained:
            context.warn(
                "multiagent_finetuning: outcome nothing_trained: no model had min_examples of its own replies that a "
                "majority upholds; the agents debate as they came"
            )
        return MultiagentFinetuningSystem(pool, options, agents.generators, agents.critics, outcome)

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> MultiagentFinetuningSystem:
        opened: dict[str, Model | None] = {}

        def models(what: str) -> tuple[Model, ...]:
            for saved in state[what]:  # agents that share a model share it again: places of one model draw apart
                if saved["name"] not in opened:
                    opened[saved["name"]] = restore_trained(pool, saved, folder / saved["name"])
            found = [opened[saved["name"]] for saved in state[what]]
            return tuple(model for model in found if model is not None)

        return MultiagentFinetuningSystem(pool, self.options, models("generators"), models("critics"), state["outcome"])


def summarizers(pool: Pool, options: Options, agents: int) -> tuple[Model, ...]:
    """Return who sums up for every agent: the named model, else the agent's own of the pool."""
    if options.summarizer is not None:
        return (pool.named(options.summarizer, "summarizer"),) * agents
    return tuple(pool[n % len(pool)] for n in range(agents))
