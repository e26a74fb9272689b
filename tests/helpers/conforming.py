"""One plugin of each kind that passes every check; the broken ones are these with a single fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from moco_core import (
    Answer,
    Call,
    CapabilityError,
    Context,
    Cost,
    Dataset,
    DatasetFacts,
    Engine,
    Example,
    Generation,
    Inbox,
    Method,
    Metric,
    Model,
    ModelCallError,
    Needs,
    Pool,
    PoolSource,
    Question,
    Reply,
    Sampling,
    Score,
    Split,
    System,
    Usage,
    option,
)
from moco_core.types import digest


@attrs.frozen(kw_only=True)
class GoodOptions:
    """Options of all good plugins."""

    size: int = option(4, ge=1, le=100, help="a number")
    name: str = option("x", help="a text")


class GoodSystem(System):
    """Asks every model and joins what they say, best first."""

    def __init__(self, pool: Pool, order: Sequence[int]) -> None:
        self.pool = pool
        self.order = list(order)

    async def respond(self, question: Question, context: Context) -> Reply:
        models = [self.pool[i] for i in self.order]
        replies = await context.gather((context.generate(m, question) for m in models), tolerate=ModelCallError)
        answered = [r for r in replies if not isinstance(r, ModelCallError)]
        if not answered:
            raise replies[0]
        keys = [context.read(question, r.text).key for r in answered]
        chosen = next((i for i, key in enumerate(keys) if key is not None), 0)
        return Reply.of(answered[chosen], keys=keys)

    def state(self) -> Mapping[str, Any]:
        return {"order": self.order}


class GoodMethod(Method[GoodOptions]):
    """A method that keeps every promise."""

    Options = GoodOptions
    level = "text"
    title = "good"
    system = GoodSystem

    def needs(self) -> Needs:
        return Needs(capabilities={"generate"}, min_models=1)

    def cost(self, models: int, dev: int) -> Cost:
        return Cost(fit=models * dev, respond=models)

    async def fit(self, pool: Pool, dev: Sequence[Example], context: Context) -> GoodSystem:
        means = (await context.evaluate(pool, dev)).means()
        return self.system(pool, sorted(range(len(pool)), key=lambda i: (-means[i], i)))

    def restore(self, pool: Pool, state: Mapping[str, Any], folder: Path) -> GoodSystem:
        return self.system(pool, state["order"])


class GoodDataset(Dataset[GoodOptions]):
    """A dataset that keeps every promise."""

    Options = GoodOptions
    facts = DatasetFacts(title="good", metric="good_metric", licence="CC0-1.0", source="made up")

    def rows(self, split: Split) -> list[int]:
        return list(range(self.options.size) if split == "dev" else range(100, 100 + self.options.size))

    def examples(self, split: Split) -> Iterator[Example]:
        for number in self.rows(split):
            yield self.example(number)

    def example(self, number: int) -> Example:
        return Example(question=self.question(number), references=[str(number * 2)])

    def question(self, number: int) -> Question:
        return Question(id=f"n{number}", prompt=f"What is twice {number}?", meta={"length": number % 3})


class GoodMetric(Metric[GoodOptions]):
    """A metric that keeps every promise."""

    Options = GoodOptions

    def read(self, question: Question, text: str) -> Answer:
        words = text.casefold().split()
        return Answer(key=words[-1], text=words[-1], status="parsed") if words else Answer(status="unparsed")

    def score(self, example: Example, reply: Reply, context: Context) -> Score:
        answer = self.read(example.question, reply.text)
        return Score(value=float(answer.key in {r.casefold() for r in example.references}), answer=answer)


class GoodEngine(Engine):
    """Writes words that depend on the call alone."""

    def serve(self, model: Model, inbox: Inbox) -> None:
        while calls := inbox.take():
            inbox.resolve([(call, self.answer(call)) for call in calls if self.accepts(call, inbox)])

    def accepts(self, call: Call, inbox: Inbox) -> bool:
        if call.model.can(call.kind):
            return True
        inbox.reject(call, CapabilityError(f"cannot {call.kind}"))
        return False

    def answer(self, call: Call) -> Any:
        if call.kind == "embed":
            return tuple((1.0, float(len(text))) for text in call.input["texts"])
        return self.write(Sampling.from_params(call.params), digest(call.model.fingerprint, call.input, call.seed))

    def write(self, sampling: Sampling, salt: str) -> Generation:
        words = [salt[i : i + 3] for i in range(0, 45, 3)]
        finish: Any = "length" if len(words) > sampling.max_new_tokens else "eos"
        words = words[: sampling.max_new_tokens]
        text = " ".join(words)
        for stop in sampling.stop:
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        return Generation(
            text=text,
            finish_reason=finish,
            token_ids=[int(w, 16) for w in words],
            token_logprobs=[-0.5] * len(words),
            usage=Usage(3, len(words)),
        )


class GoodPool(PoolSource[GoodOptions]):
    """A pool that keeps every promise."""

    Options = GoodOptions
    engine_class: type[GoodEngine] = GoodEngine
    capabilities: frozenset[str] = frozenset({"generate", "logprobs", "embed"})

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.engine = self.engine_class()

    def models(self) -> Sequence[Model]:
        return [self.model(name, digest("good", name)) for name in ("one", "two")]

    def model(self, name: str, fingerprint: str) -> Model:
        return Model(name=name, fingerprint=fingerprint, capabilities=self.capabilities, engine=self.engine)
