"""In-context routing: a model of the pool reads the question and one description per model, and names who answers.

No single origin; the nearest published forms are HuggingGPT (Shen et al., arXiv 2303.17580) and routing with benchmark
data (Shnitzer et al., arXiv 2309.15789). Contextual calibration: Zhao et al., arXiv 2102.09690.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from moco_core import (
    ConfigError,
    Context,
    Cost,
    Evaluation,
    Example,
    Method,
    Model,
    ModelCallError,
    Needs,
    Pool,
    Question,
    Reply,
    Sampling,
    System,
    option,
)
from moco_method_prompt_routing import prompts
from moco_method_prompt_routing.parse import parse_route, scoring_labels

__all__ = ["PromptRouting", "PromptRoutingOptions", "PromptRoutingSystem"]

_SELF_DESCRIPTION = (
    "In one short sentence, say what kinds of questions you are good at. Reply with the sentence and nothing else."
)


def _described(value: Any) -> str | None:
    return None if all(isinstance(text, str) and text.strip() for text in value) else "expected non-empty descriptions"


@attrs.frozen(kw_only=True)
class PromptRoutingOptions:
    """Who routes, what it is told about the models, and how its choice is read."""

    model_descriptions: tuple[str, ...] | None = option(
        None, check=_described, help="one description per candidate, in pool order; none makes them (see describe)"
    )
    describe: Literal["auto", "scores", "self", "name"] = option(
        "auto",
        help="descriptions if none are given: auto (the pool's own, else dev scores where there are any, else the "
        "name), scores (name and dev scores), self (each model describes itself once), name",
    )
    router: str | int = option("best_dev", help="who routes: best_dev, or a model's name or index")
    router_answers: bool = option(
        True, help="whether the router is a candidate itself; false keeps it for routing only"
    )
    decode: Literal["auto", "constrained", "generate"] = option(
        "auto", help="how the choice is read: label log-probabilities, or a reply; auto scores if the router can"
    )
    max_route_tokens: int = option(16, ge=1, help="budget of a routing reply; more for reasoning routers")
    route_temperature: float = option(0.0, ge=0, help="sampling of a routing reply")
    order: Literal["fixed", "shuffle", "cyclic_average"] = option(
        "fixed", help="order of the list; cyclic_average asks with every rotation and averages"
    )
    calibrate: bool = option(False, help="contextual calibration: subtract the scores that an empty question gets")
    fallback: str | int = option(
        "router", help="who answers after an unreadable choice: router, best_dev, or a model's name or index"
    )
    check_dev: bool = option(False, help="route the dev questions too, and warn if the best single model is better")
    seed: int = option(0, help="added to the run's seed for order=shuffle; replies are sampled with the run's alone")


@attrs.frozen(kw_only=True)
class _Route:
    """Where a question goes. ``shares`` are the candidates' probabilities, or their shares of the replies."""

    choice: int | None
    shares: tuple[float, ...] = ()
    reason: str = ""


class PromptRoutingSystem(System):
    """A router, the candidates with their descriptions, and who answers if the choice cannot be read."""

    def __init__(
        self,
        pool: Pool,
        options: PromptRoutingOptions,
        router: Model,
        descriptions: Sequence[str],
        fallback: int,
    ) -> None:
        self.pool = pool
        self.options = options
        self.router = router
        self.candidates = _candidates(pool, options, router)
        self.descriptions = tuple(descriptions)
        self.fallback = fallback

    def state(self) -> Mapping[str, Any]:
        return {"router": self.router.name, "descriptions": list(self.descriptions), "fallback": self.fallback}

    async def respond(self, question: Question, context: Context) -> Reply:
        if len(self.candidates) == 1:
            model = self.candidates[0]
            return Reply.of(await context.generate(model, question), model=model.name, parsed=True)
        route = await self.route(question, context)
        choice = self.fallback if route.choice is None else route.choice
        model = self.candidates[choice]
        meta: dict[str, Any] = {"model": model.name, "parsed": route.choice is not None}
        if route.shares:
            meta["shares"] = {m.name: share for m, share in zip(self.candidates, route.shares, strict=True)}
        if route.reason:
            meta["reason"] = route.reason
        return Reply.of(await context.generate(model, question), **meta)

    async def route(self, question: Question, context: Context) -> _Route:
        """Ask the router, once per list order, and return its choice among the candidates."""
        count = len(self.candidates)
        if self.options.order == "cyclic_average":
            orders = [[(start + place) % count for place in range(count)] for start in range(count)]
        else:
            orders = [list(range(count))]
            if self.options.order == "shuffle":
                context.rng("prompt_routing", self.options.seed).shuffle(orders[0])
        scored = _scores(self.options, self.router)
        try:
            rows = await context.gather(
                (self._scored if scored else self._said)(question, order, number, context)
                for number, order in enumerate(orders)
            )
        except ModelCallError as error:
            return _Route(choice=None, reason=str(error))
        if scored:
            means = [math.fsum(row[i] for row in rows) / len(rows) for i in range(count)]
            return _Route(choice=max(range(count), key=lambda i: (means[i], -i)), shares=_softmax(means))
        named = Counter(choice for choice, _ in rows if choice is not None)
        if not named:
            return _Route(choice=None, reason=f"unparsed: {rows[0][1][:200]}")
        shares = tuple(named[i] / len(rows) for i in range(count)) if len(rows) > 1 else ()
        return _Route(choice=max(range(count), key=lambda i: (named[i], -i)), shares=shares)

    async def _scored(self, question: Question, order: Sequence[int], number: int, context: Context) -> list[float]:
        """Return log P(label | prompt) of every candidate, less that of an empty question if calibrated."""
        labels = scoring_labels(len(order))
        scores = await context.score(self.router, self._prompt(question.text(), order, labels), labels)
        values = [score.logprob for score in scores]
        if self.options.calibrate:
            empty = await context.score(self.router, self._prompt("", order, labels), labels)
            values = [value - score.logprob for value, score in zip(values, empty, strict=True)]
        by_candidate = dict(zip(order, values, strict=True))
        return [by_candidate[i] for i in range(len(order))]

    async def _said(
        self, question: Question, order: Sequence[int], number: int, context: Context
    ) -> tuple[int | None, str]:
        """Return the candidate that the router's reply names, if any, and the reply."""
        labels = prompts.default_labels(len(order))
        sampling = Sampling(temperature=self.options.route_temperature, max_new_tokens=self.options.max_route_tokens)
        prompt = self._prompt(question.text(), order, labels)
        reply = await context.generate(self.router, prompt, sampling, sample=number)
        place = parse_route(reply.text, len(order))
        return (None if place is None else order[place]), reply.text

    def _prompt(self, text: str, order: Sequence[int], labels: Sequence[str]) -> str:
        return prompts.route(text, [self.descriptions[i] for i in order], labels)


class PromptRouting(Method[PromptRoutingOptions]):
    """One model reads the question and a description of every candidate; only the one it names is run."""

    Options = PromptRoutingOptions
    level = "api"
    title = "Prompt routing"
    paper = "in-context routing; cf. Shen et al. 2023, arXiv 2303.17580; Shnitzer et al. 2023, arXiv 2309.15789"

    def needs(self) -> Needs:
        return Needs(optional=frozenset(() if self.options.decode == "generate" else ("score",)), check=self._problems)

    def cost(self, models: int, dev: int) -> Cost:
        options = self.options
        candidates = models - (not options.router_answers)
        if candidates <= 1:
            return Cost(fit=models * dev if candidates < models and self._evaluates() else 0, respond=1)
        routing = candidates if options.order == "cyclic_average" else 1
        if options.calibrate and options.decode != "generate":
            routing *= 2
        fit = models * dev if self._evaluates() else 0
        fit += candidates if options.model_descriptions is None and options.describe == "self" else 0
        fit += dev * (routing + 1) if options.check_dev else 0
        return Cost(fit=fit, respond=routing + 1)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> PromptRoutingSystem:
        options = self.options
        if len(pool) == 1:
            return PromptRoutingSystem(pool, options, pool[0], [pool[0].name], 0)
        evaluation: Evaluation | None = None
        if self._evaluates():
            if not dev:
                raise ConfigError(
                    "prompt_routing: router, fallback, describe or check_dev asks for dev scores and there are no dev "
                    "examples; raise the dev limit, or name the router (prompt_routing.router)"
                )
            evaluation = await context.evaluate(pool, dev)
            context.note(dev_scores=dict(zip(evaluation.names, evaluation.means(), strict=True)))
        router = self._router(pool, evaluation)
        problems = self._candidate_problems(pool, router)
        if problems:
            raise ConfigError(problems)
        candidates = _candidates(pool, options, router)
        descriptions = await self._descriptions(candidates, pool, dev, evaluation, context)
        fallback = self._fallback(pool, candidates, router, evaluation)
        system = PromptRoutingSystem(pool, options, router, descriptions, fallback)
        context.note(
            router=router.name, descriptions=dict(zip((m.name for m in candidates), descriptions, strict=True))
        )
        if options.check_dev and evaluation is not None:
            await self._check(system, dev, evaluation, context)
        return system

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> PromptRoutingSystem:
        router = pool.named(state["router"], "prompt_routing.router")
        return PromptRoutingSystem(pool, self.options, router, state["descriptions"], int(state["fallback"]))

    # ---------------------------------------------------------------- choices of the fit

    def _evaluates(self) -> bool:
        options = self.options
        scores = options.model_descriptions is None and options.describe == "scores"
        return options.router == "best_dev" or options.fallback == "best_dev" or scores or options.check_dev

    def _router(self, pool: Pool, evaluation: Evaluation | None) -> Model:
        wanted = self.options.router
        if wanted != "best_dev":
            return pool.named(wanted, "prompt_routing.router")
        assert evaluation is not None  # _evaluates() holds for best_dev
        able = [i for i, model in enumerate(pool) if self.options.decode != "constrained" or model.can("score")]
        means = evaluation.means()
        return pool[max(able, key=lambda i: (means[i], -i))]

    def _fallback(self, pool: Pool, candidates: Sequence[Model], router: Model, evaluation: Evaluation | None) -> int:
        """Return which candidate answers after an unreadable choice: as asked, else the best on dev, else the first."""
        wanted = self.options.fallback
        if wanted == "router" and any(model is router for model in candidates):
            return _index(candidates, router)
        if wanted not in ("router", "best_dev"):
            model = pool.named(wanted, "prompt_routing.fallback")
            return _index(candidates, model)
        if evaluation is None:
            return 0
        means = dict(zip(evaluation.names, evaluation.means(), strict=True))
        return max(range(len(candidates)), key=lambda i: (means[candidates[i].name], -i))

    async def _descriptions(
        self,
        candidates: Sequence[Model],
        pool: Pool,
        dev: Sequence[Example],
        evaluation: Evaluation | None,
        context: Context,
    ) -> list[str]:
        options = self.options
        if options.model_descriptions is not None:
            return list(options.model_descriptions)
        if options.describe == "self":
            sampling = attrs.evolve(context.sampling, temperature=0.0, max_new_tokens=64)
            said = await context.gather(
                (context.generate(model, _SELF_DESCRIPTION, sampling) for model in candidates), tolerate=ModelCallError
            )
            texts = ["" if isinstance(reply, ModelCallError) else reply.text.strip() for reply in said]
            return [text or model.description or model.name for text, model in zip(texts, candidates, strict=True)]
        if options.describe == "name":
            return [model.name for model in candidates]
        if options.describe == "auto" and all(model.description.strip() for model in candidates):
            return [model.description for model in candidates]
        if evaluation is None:
            return [model.description.strip() or model.name for model in candidates]
        return [_score_card(model, pool, dev, evaluation) for model in candidates]

    async def _check(
        self, system: PromptRoutingSystem, dev: Sequence[Example], evaluation: Evaluation, context: Context
    ) -> None:
        """Compare the routed dev mean with the best single model's; warn, and change nothing."""

        async def one(example: Example, scope: Context) -> float:
            reply = await system.respond(example.question, scope)
            return (await scope.grade(example, reply)).value or 0.0

        routed = await context.each(dev, one, label="routing dev")
        mean, best = math.fsum(routed) / len(routed), max(evaluation.means())
        context.note(routed_dev_score=mean, best_single_dev_score=best)
        if mean < best:
            context.warn(
                f"prompt_routing: on dev, routing scores {mean:.3f} and the best single model "
                f"({evaluation.names[evaluation.best()]}) {best:.3f}"
            )

    # ---------------------------------------------------------------- what is asked of the pool

    def _problems(self, pool: Sequence[Model]) -> list[str]:
        options, known = self.options, Pool(pool)
        if len(pool) < 2:
            return []
        out: list[str] = []
        for key in ("router", "fallback"):
            wanted = getattr(options, key)
            if wanted not in ("best_dev", "router"):
                try:
                    known.named(wanted, key)
                except ConfigError as error:
                    out.append(str(error))
        if out:
            return out
        router = None if options.router == "best_dev" else known.named(options.router)
        if options.decode == "constrained":
            able = [router] if router is not None else list(known)
            if not any(model.can("score") for model in able):
                who = f"the router {router.name!r}" if router is not None else "no model of the pool"
                cannot = "cannot score" if router is not None else "can score"
                out.append(
                    f"{who} {cannot} continuations (capability 'score'); choose another router or decode=generate"
                )
        return out + self._candidate_problems(known, router)

    def _candidate_problems(self, pool: Pool, router: Model | None) -> list[str]:
        options, count = self.options, len(pool) - (not self.options.router_answers)
        out = []
        given = options.model_descriptions
        if given is not None and len(given) != count:
            out.append(f"model_descriptions: {count} models to choose from need as many descriptions, got {len(given)}")
        if options.fallback not in ("router", "best_dev") and not options.router_answers and router is not None:
            if pool.named(options.fallback) is router:
                out.append("fallback: the router does not answer here (router_answers=false); name another model")
        return out


def _candidates(pool: Pool, options: PromptRoutingOptions, router: Model) -> tuple[Model, ...]:
    return tuple(model for model in pool if options.router_answers or len(pool) == 1 or model is not router)


def _scores(options: PromptRoutingOptions, router: Model) -> bool:
    return options.decode == "constrained" or (options.decode == "auto" and router.can("score"))


def _index(models: Sequence[Model], wanted: Model) -> int:
    return next(i for i, model in enumerate(models) if model is wanted)


def _score_card(model: Model, pool: Pool, dev: Sequence[Example], evaluation: Evaluation) -> str:
    """Describe a model by its name, its own description and its dev scores, overall and per subset."""
    row = evaluation.scores[_index(pool, model)]
    groups: dict[str, list[float]] = {}
    for example, score in zip(dev, row, strict=True):
        if score is not None and example.question.subset:
            groups.setdefault(example.question.subset, []).append(score)
    text = f"{model.name}{f', {model.description.strip()}' if model.description.strip() else ''}"
    known = [score for score in row if score is not None]
    if known:
        text += f"; dev score {math.fsum(known) / len(known):.2f}"
    if len(groups) > 1:
        parts = (f"{name} {math.fsum(scores) / len(scores):.2f}" for name, scores in sorted(groups.items()))
        text += f" ({', '.join(parts)})"
    return text


def _softmax(values: Sequence[float]) -> tuple[float, ...]:
    top = max(values)
    if math.isinf(top):
        return tuple(1 / len(values) for _ in values)
    weights = [math.exp(value - top) for value in values]
    return tuple(weight / math.fsum(weights) for weight in weights)
