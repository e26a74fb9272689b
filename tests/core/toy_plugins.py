"""A whole toy world in one file: pool, dataset, metric and methods, for tests of the core (``--plugin toy_plugins.py``).

Questions are additions. Model i of the pool is right unless the sum is divisible by a number of its own, so voting beats
every single model. Every served call is appended to the file named by ``$TOY_LOG``.
"""

import os
import time
from collections import Counter

import attrs

from moco_core import (
    Answer,
    Dataset,
    DatasetFacts,
    Engine,
    Example,
    Generation,
    Method,
    Metric,
    Model,
    ModelCallError,
    Needs,
    PoolSource,
    PromptTooLong,
    Question,
    Reply,
    Score,
    System,
    Usage,
    option,
)


class ToyEngine(Engine):
    def __init__(self, options):
        self.options = options

    def facts(self):
        return {"engine": "toy", "batch": self.options.batch}

    def serve(self, model, inbox):
        while calls := inbox.take(self.options.batch):
            if inbox.cancelled:
                return
            time.sleep(self.options.delay)
            results = []
            for call in calls:
                prompt = call.input["messages"][-1][1]
                if self.options.fails and self.options.fails in prompt:
                    inbox.reject(call, ModelCallError(f"{model.name}: refuses this prompt"))
                    continue
                if self.options.too_long and self.options.too_long in prompt:
                    inbox.reject(call, PromptTooLong(f"{model.name}: 9 tokens, the context has 8"))
                    continue
                results.append((call, self.answer(model, prompt)))
            if path := os.environ.get("TOY_LOG"):
                with open(path, "a") as log:
                    log.writelines(f"{c.model.name}\t{c.input['messages'][-1][1]}\n" for c, _ in results)
            inbox.resolve(results)

    def answer(self, model, prompt):
        a, b = (int(w) for w in prompt.split() if w.isdigit())
        total = a + b
        wrong = total % model.info["blind"] == 0
        return Generation(text=f"It is {total + model.info['blind'] if wrong else total}", usage=Usage(5, 3))


@attrs.frozen(kw_only=True)
class ToyPoolOptions:
    models: int = option(3, ge=0, le=9, help="how many models")
    delay: float = option(0.0, ge=0, help="seconds per batch")
    batch: int = option(64, ge=1, help="largest batch")
    fails: str = option("", help="prompts that hold this text fail")
    too_long: str = option("", help="prompts that hold this text are longer than the models' context")
    api_key: str = option("", help="a secret, to see that it is masked")


class ToyPool(PoolSource):
    """Models that add, each blind to some sums."""

    Options = ToyPoolOptions

    def models(self):
        engine = ToyEngine(self.options)
        blind = (3, 5, 7, 11, 13, 17, 19, 23)
        return [
            Model(
                name=f"toy{i}",
                fingerprint=f"toy-{blind[i]}",
                capabilities={"generate"},
                engine=engine,
                info={"blind": blind[i]},
                description=f"adds, blind to multiples of {blind[i]}",
            )
            for i in range(self.options.models)
        ]


@attrs.frozen(kw_only=True)
class ToysOptions:
    size: int = option(40, ge=0, help="questions per split")
    duplicate: bool = option(False, help="repeat an id")
    overlap: bool = option(False, help="share an id between the splits")


class Toys(Dataset):
    """Additions."""

    Options = ToysOptions
    facts = DatasetFacts(title="Toy additions", metric="toy_match")

    def examples(self, split):
        start = 0 if split == "dev" else 1000
        for i in range(self.options.size):
            number = start + i
            key = "same" if self.options.duplicate or (self.options.overlap and i == 0) else f"t{number}"
            yield Example(
                question=Question(id=key, prompt=f"{number} + {i}", subset="even" if number % 2 == 0 else "odd"),
                references=(str(number + i),),
            )


class ToyMatch(Metric):
    """The last word of the reply is the answer."""

    def read(self, question, text):
        words = text.split()
        if not words or not words[-1].isdigit():
            return Answer()
        return Answer(key=words[-1], text=words[-1], status="parsed")

    def score(self, example, reply, context):
        answer = self.read(example.question, reply.text)
        return Score(value=float(answer.key in example.references), answer=answer)

    def extra_metrics(self, rows):
        return {"largest": max((float(r.score.answer.key or 0) for r in rows), default=0.0)}


class ToyVoteSystem(System):
    def __init__(self, pool):
        self.pool = pool

    async def respond(self, question, context):
        replies = await context.gather(context.generate(m, question) for m in self.pool)
        keys = [context.read(question, r.text).key for r in replies]
        winner = Counter(k for k in keys if k).most_common(1)[0][0]
        return Reply.of(replies[keys.index(winner)], votes=keys)


@attrs.frozen(kw_only=True)
class ToyVoteOptions:
    rounds: int = option(1, ge=1, help="does nothing", paper="2")
    raises: bool = option(False, help="fail in fit")


class ToyVote(Method):
    """Majority of the models."""

    Options = ToyVoteOptions
    level = "text"

    def needs(self):
        return Needs(min_models=2)

    async def fit(self, pool, dev, context):
        if self.options.raises:
            raise ValueError("broken on purpose")
        return ToyVoteSystem(pool)

    def restore(self, pool, state, folder):
        return ToyVoteSystem(pool)


@attrs.frozen(kw_only=True)
class ToyStepperOptions:
    step: bool = option(True, help="ask for what toy models cannot do")


class ToyStepper(Method):
    """Needs what toy models cannot do, unless told otherwise."""

    Options = ToyStepperOptions

    def needs(self):
        return Needs(capabilities={"step"} if self.options.step else {"generate"}, min_models=2)

    async def fit(self, pool, dev, context):
        raise AssertionError("never reached")

    def restore(self, pool, state, folder):
        raise AssertionError("never reached")
