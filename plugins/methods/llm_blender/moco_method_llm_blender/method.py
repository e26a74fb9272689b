"""LLM-Blender: all models answer, a ranker compares the replies pair by pair, a fuser joins the best of them.

Jiang, Ren and Lin 2023, "LLM-Blender: Ensembling Large Language Models with Pairwise Ranking and Generative Fusion", arXiv
2306.02561 (ACL 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Example,
    Generation,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
)
from moco_core.converters import floats
from moco_method_llm_blender.fitting import Dev, expected, held_out, learn_fuser, learn_ranker, quality
from moco_method_llm_blender.fusing import fused_sheet
from moco_method_llm_blender.options import Options
from moco_method_llm_blender.rankers import HeadRanker, JudgeRanker, PairRanker, Ranker, RewardRanker, order
from moco_toolkit_answers import strip_reasoning
from moco_toolkit_discussion import model_problems
from moco_toolkit_quoting import ask
from moco_toolkit_training import kept, restore_trained, save_trained
from moco_toolkit_voting import ballots

__all__ = ["LlmBlender", "LlmBlenderSystem"]

_RANKER, _FUSER = "ranker", "fuser"


@attrs.frozen(kw_only=True)
class Candidate:
    """A reply, as it was written and as it is shown, and the places of the models that gave it."""

    generation: Generation
    text: str
    models: tuple[int, ...]


@attrs.frozen(eq=False, slots=False)
class LlmBlenderSystem(System):
    """The pool answers, ``judge`` compares and ``fuser`` fuses (names), or what was trained from them.

    ``skills`` are the models' dev means.
    """

    skills: tuple[float, ...] = attrs.field(converter=floats)
    judge: str
    fuser: str
    trained_ranker: Model | None = None
    trained_fuser: Model | None = None

    @cached_property
    def ranker(self) -> Ranker | None:
        """Who compares; None for a head that there was nothing to train on."""
        if self.options.ranker == "pair_head" and self.trained_ranker is None:
            return None
        return ranker_of(self.trained_ranker or self.pool.named(self.judge, "llm_blender.judge"), self.options)

    @cached_property
    def writer(self) -> Model:
        """Who fuses."""
        return self.trained_fuser or self.pool.named(self.fuser, "llm_blender.fuser")

    def state(self) -> Mapping[str, Any]:
        plain = System.state(attrs.evolve(self, trained_ranker=None, trained_fuser=None))
        return {**plain, "trained_ranker": kept(self.trained_ranker), "trained_fuser": kept(self.trained_fuser)}

    def save_files(self, folder: Path) -> None:
        for model, name in ((self.trained_ranker, _RANKER), (self.trained_fuser, _FUSER)):
            if model is not None:
                save_trained(model, folder / name)

    async def respond(self, question: Question, context: Context) -> Reply:
        options: Options = self.options
        replies = await context.gather(
            (context.generate(model, question) for model in self.pool), tolerate=ModelCallError
        )
        meta: dict[str, Any] = {}
        if failed := {m.name: str(r) for m, r in zip(self.pool, replies, strict=True) if isinstance(r, ModelCallError)}:
            meta["failed"] = failed
        candidates = _candidates(replies)
        if not candidates:
            first = next((r for r in replies if isinstance(r, Generation)), None)
            if first is None:
                raise replies[0]
            return Reply.of(first, final="empty", **meta)
        meta["candidates"] = [[self.pool[i].name for i in c.models] for c in candidates]
        if len(candidates) == 1:
            return self._handed_on(candidates[0], final="single", **meta)
        skills = [max(self.skills[i] for i in c.models) for c in candidates]
        texts = [c.text for c in candidates]
        ranking = await order(self.ranker, question, texts, skills, options, context)
        meta["ranking"] = {"order": list(ranking.places), **ranking.record(options.orders)}
        best = [candidates[place] for place in ranking.places[: options.k]]
        if len(best) == 1:
            return self._handed_on(best[0], final="best", **meta)
        fused, why = await self._fuse(question, [c.text for c in best], context)
        if fused is None:
            return self._handed_on(best[0], final="best", unfused=why, **meta)
        if options.verify and self.ranker is not None and await self._loses(question, fused, best[0], context):
            return self._handed_on(best[0], final="best", unfused="it loses to the best reply", **meta)
        return Reply.of(fused, final="fused", model=self.writer.name, **meta)

    async def _fuse(self, question: Question, texts: Sequence[str], context: Context) -> tuple[Generation | None, str]:
        """Return the fused reply, or None and why there is none."""
        sampling = self.options.greedy(context.sampling)
        sheet = fused_sheet(self.writer, question, texts, sampling.max_new_tokens)
        try:
            asked = await ask(context, self.writer, sheet, sampling, before=question.messages()[:-1])
        except ModelCallError as error:
            return None, str(error)
        (answer,) = ballots(context, question, [asked.reply.text])
        if not answer.parsed:
            return None, "it cannot be read"
        return asked.reply, ""

    async def _loses(self, question: Question, fused: Generation, best: Candidate, context: Context) -> bool:
        """Whether the ranker prefers the best reply to the fused one."""
        text = (strip_reasoning(fused.text) or "").strip()
        if text == best.text:
            return False
        options = attrs.evolve(self.options, aggregation="max_logits")
        assert self.ranker is not None
        ranking = await order(self.ranker, question, [text, best.text], [0.0, 0.0], options, context)
        return ranking.scores[1] > ranking.scores[0]

    def _handed_on(self, candidate: Candidate, **meta: Any) -> Reply:
        return Reply.of(candidate.generation, model=self.pool[candidate.models[0]].name, **meta)


def _candidates(replies: Sequence[Generation | ModelCallError]) -> list[Candidate]:
    """Return the distinct replies that say something, in the order of the models."""
    found: dict[str, Candidate] = {}
    for place, reply in enumerate(replies):
        text = (strip_reasoning(reply.text) or "").strip() if isinstance(reply, Generation) else ""
        if text and isinstance(reply, Generation):
            known = found.get(text) or Candidate(generation=reply, text=text, models=())
            found[text] = attrs.evolve(known, models=(*known.models, place))
    return list(found.values())


def ranker_of(model: Model, options: Options) -> Ranker:
    """Return the ranker that a model is asked as."""
    if options.ranker == "reward_model":
        return RewardRanker(model=reward_model(options))
    if options.ranker == "pairrm":
        return PairRanker(model=options.pair_ranker)
    if options.ranker == "pair_head":
        return HeadRanker(model=model, options=options)
    scored = options.verdict == "logprobs" or (options.verdict == "auto" and model.can("score"))
    return JudgeRanker(model=model, options=options, scored=scored)


def reward_model(options: Options) -> Model:
    """Return the reward model. Raises ConfigError if there is not exactly one that scores conversations."""
    pool: Sequence[Model] = options.reward_model.instance.pool if options.reward_model is not None else ()
    if len(pool) != 1 or not pool[0].can("reward"):
        raise ConfigError(
            f"reward_model: expected a pool of one model that scores conversations (capability 'reward'), got "
            f"{', '.join(m.name for m in pool) or 'none'}"
        )
    return pool[0]


class LlmBlender(Method[Options]):
    """All models answer; replies are ranked by comparing pairs in both orders, and the best are fused into one."""

    Options = Options
    system = LlmBlenderSystem
    level: ClassVar[Literal["text"]] = "text"
    title: ClassVar[str] = "Pairwise ranking and generative fusion"
    paper: ClassVar[str] = "arXiv 2306.02561"

    def needs(self) -> Needs:
        options = self.options
        own = {"judge": {"score"}, "pair_head": {"train", "reward"}}.get(options.ranker, {"reward"})
        trains = {"train"} if options.trains_ranker or options.train_fuser else set()
        return Needs(optional={*own, *trains}, check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options, ranking = self.options, self.options.comparisons(models)
        fuses = models > 1 and options.k > 1
        respond = models + ranking + fuses + (2 if fuses and options.verify else 0)
        fit = models * dev
        sample = min(dev, options.dev_sample)
        if options.trains_ranker:
            held = held_out(dev, options)
            sample = min(held or dev, options.dev_sample)
            stages = options.ranker_epochs + (options.ranker == "judge")
            fit += held * options.pairs_per_question * 2 * stages
        fit += sample * ranking * (2 if options.trains_ranker and options.ranker == "judge" else 1)
        fit += dev * ranking if options.train_fuser else 0
        return Cost(fit=fit, respond=respond)

    def cost_on(self, pool: Sequence[Model], dev: int, sampling: Sampling) -> Cost:
        options, cost = self.options, self.cost(len(pool), dev)
        judge, fuser = (_member(Pool(pool), name, 0) for name in (options.judge, options.fuser))
        return expected(cost, judge, fuser, dev, options)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> LlmBlenderSystem:
        options = self.options
        if not dev:
            if options.trains_ranker or options.train_fuser:
                raise ConfigError(
                    "llm_blender: trains on dev and there are no dev examples; raise the dev limit, or train nothing "
                    "(ranker=judge, train_fuser=false)"
                )
            judge, fuser = (_member(pool, name, 0) for name in (options.judge, options.fuser))
            return LlmBlenderSystem(pool, options, [0.0] * len(pool), judge.name, fuser.name)
        evaluation = await context.evaluate(pool, dev)
        skills, best = evaluation.means(), evaluation.best()
        context.note(dev_scores=dict(zip(evaluation.names, skills, strict=True)))
        judge, fuser = (_member(pool, name, best) for name in (options.judge, options.fuser))
        system = LlmBlenderSystem(pool, options, skills, judge.name, fuser.name)
        if len(pool) == 1:
            return system
        known = Dev.of(dev, evaluation, options, context)
        before = system.ranker
        if options.trains_ranker:
            ranker = await learn_ranker(judge, lambda model: ranker_of(model, options), known, options, context)
            system = attrs.evolve(system, trained_ranker=ranker)
        await self._tell(system, before, known, evaluation.scores[best], context)
        if options.train_fuser and options.k > 1:
            budget = options.greedy(context.sampling).max_new_tokens
            unseen = system.ranker if options.ranker == "pair_head" else before
            written = await learn_fuser(fuser, judge, unseen, known, options, budget, context)
            system = attrs.evolve(system, trained_fuser=written)
        return system

    async def _tell(
        self,
        system: LlmBlenderSystem,
        before: Ranker | None,
        dev: Dev,
        best_single: Sequence[float | None],
        context: Context,
    ) -> None:
        """Note how well the ranker ranks dev questions it did not see; for a judge that was trained, also before."""
        options = self.options
        where = list(dev.held if options.trains_ranker and dev.held else range(len(dev.examples)))
        rng = context.rng("llm_blender", "sample", options.seed)
        chosen = sorted(rng.sample(where, min(len(where), options.dev_sample)))
        if not chosen:
            return
        found = await quality(system.ranker, dev, chosen, best_single, options, context)
        context.note(ranking=found)
        if options.trains_ranker and options.ranker == "judge":
            context.note(ranking_untrained=await quality(before, dev, chosen, best_single, options, context))
        if found["unread"] and found["unread"] >= options.comparisons(2) * found["telling"]:
            context.warn(
                f"llm_blender: {found['unread']} comparisons of dev replies by {system.judge} cannot be read; where none can, "
                "the best dev model's reply comes first"
            )

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> LlmBlenderSystem:
        ranker = restore_trained(pool, state.get("trained_ranker"), folder / _RANKER)
        fuser = restore_trained(pool, state.get("trained_fuser"), folder / _FUSER)
        return LlmBlenderSystem(pool, self.options, **{**state, "trained_ranker": ranker, "trained_fuser": fuser})

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, out = self.options, []
        for key in ("judge", "fuser"):
            if getattr(options, key) != "best":
                out += model_problems(pool, [getattr(options, key)], key)
        if out:
            return out
        trained = {key for key, wanted in (("judge", options.trains_ranker), ("fuser", options.train_fuser)) if wanted}
        scored = {"judge"} if options.ranker == "judge" and options.verdict == "logprobs" else set()
        for key in sorted(trained | scored):
            name = getattr(options, key)
            members = pool if name == "best" else [Pool(pool).named(name)]
            for capability, keys in (("train", trained), ("score", scored)):
                poor = [m.name for m in members if key in keys and not m.can(capability)]
                if poor:
                    out.append(
                        f"{key}: {', '.join(poor)} cannot be it (capability {capability!r}); name another, or "
                        f"`moco list pool --can {capability}` names the pools whose models can"
                    )
        if options.ranker in ("reward_model", "pairrm"):
            try:
                ranker_of(pool[0], options)
            except ConfigError as error:
                out += error.problems
        return out


def _member(pool: Pool, name: str | int, best: int) -> Model:
    return pool[best] if name == "best" else pool.named(name, "llm_blender")
