"""Scripted models: the test writes what they say, and they are asked as real ones are.

A scripted pool goes through the same scheduler, cache and context as any other, so a test of a method sees exactly what
a run would do, without weights and in milliseconds::

    source = ScriptedPool({"a": "The answer is 4.", "b": lambda call: call.prompt.upper()})
    outcome = run_method(MyMethod(MyOptions()), source, questions=[question])
    assert outcome.replies["q1"].text == "The answer is 4."
    assert source.prompts("b") == ["What is 2 + 2?"]
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from moco_core.errors import CapabilityError, EngineOutOfMemory, ModelCallError
from moco_core.models import Call, Engine, Inbox, Model, Pool, PoolSource, Recipe
from moco_core.options import NoOptions, plain
from moco_core.training import TrainingJob, TrainingSite
from moco_core.types import ContinuationScore, Generation, Sampling, Usage, digest
from moco_toolkit_authoring.scripts import Learn, Said, Scores, Script, ScriptedCall, Taught, memorise, reply

__all__ = [
    "SCRIPTED_CAPABILITIES",
    "Faults",
    "Learn",
    "Scores",
    "Script",
    "ScriptedCall",
    "ScriptedEngine",
    "ScriptedPool",
    "ScriptedServer",
    "Taught",
    "memorise",
    "scripted_model",
]

_TAUGHT = "scripted.json"

SCRIPTED_CAPABILITIES = frozenset({"generate", "logprobs", "score", "embed", "reward", "train"})
"""What scripted models can do unless a test says less. Steps, hidden states and weights need a real model."""


@attrs.define(kw_only=True)
class Faults:
    """What goes wrong, and when. Fields may be changed while an engine runs.

    ``when`` fails the calls it holds for; ``nth`` fails the n-th call of the engine (counted from 1); ``largest_batch``
    runs out of memory above that many calls at once; ``hang`` leaves every call unanswered until the run is cancelled.
    """

    when: Callable[[ScriptedCall], bool] | None = None
    nth: frozenset[int] = attrs.field(default=frozenset(), converter=frozenset)
    largest_batch: int | None = None
    hang: bool = False
    error: Callable[[ScriptedCall], Exception] = attrs.field(
        default=lambda call: ModelCallError(f"{call.model}: injected failure")
    )

    def of(self, number: int, call: ScriptedCall) -> Exception | None:
        if number in self.nth or (self.when is not None and self.when(call)):
            return self.error(call)
        return None


class ScriptedEngine(Engine):
    """Answers by script, in batches, in the worker thread of its device group.

    ``history`` holds every call it served, ``batches`` how many calls came together, ``hanging`` how many were ever
    left unanswered by :class:`Faults`, ``trainings`` the jobs it did, with the names of the models that they trained.
    ``learn`` says what comes of one; a model that was trained without any rows in common says what it said before.
    ``scores`` gives the log-probabilities of continuations; without it, each has some that its text and the prompt decide.
    With ``tells`` it tells how a reply begins, for those who listen.
    """

    tells = False

    def __init__(self, faults: Faults | None = None, learn: Learn = memorise, scores: Scores | None = None) -> None:
        self.scripts: dict[str, Script] = {}
        self.scores = scores
        self.faults = faults or Faults()
        self.learn = learn
        self.trainings: list[tuple[str, TrainingJob]] = []
        self.history: list[ScriptedCall] = []
        self.batches: list[int] = []
        self.starts = 0
        self.closes = 0
        self.hanging = 0
        self._queues: dict[str, deque[Said]] = {}
        self._lock = threading.Lock()

    async def start(self, runtime: Any) -> None:
        self.starts += 1

    async def close(self) -> None:
        self.closes += 1

    def serve(self, model: Model, inbox: Inbox) -> None:
        while calls := inbox.take():
            self.hanging += len(calls) if self.faults.hang else 0
            while self.faults.hang:
                if inbox.cancelled:
                    return
                time.sleep(0.001)
            self.batches.append(len(calls))
            if self.faults.largest_batch is not None and len(calls) > self.faults.largest_batch:
                raise EngineOutOfMemory(f"{model.name}: {len(calls)} calls do not fit")
            results = []
            for call in calls:
                try:
                    results.append((call, self._told(call)))
                except Exception as error:
                    inbox.reject(call, error)
            inbox.resolve(results)

    def _told(self, call: Call) -> Any:
        result = self.answer(call)
        if self.tells and call.tell is not None and isinstance(result, Generation):
            for end in (len(result.text) // 3, len(result.text) - 1):
                call.tell(result.text[: max(0, end)])
        return result

    def train(self, model: Model, job: TrainingJob, site: TrainingSite) -> Mapping[str, Any]:
        """Note what is taught, and ask for rewards once where the job gives them: no weights, milliseconds."""
        rows = tuple(getattr(job, "rows", ()))
        with self._lock:
            self.trainings.append((model.name, job))
        if not rows:
            return {"skipped": "no rows"}
        history = []
        if job.service == "grpo":
            rewards = site.reward([(i, self._practise(model, row, site.seed)) for i, row in enumerate(rows)])
            known = [r for r in rewards if r is not None]
            history = [{"step": 1, "reward": sum(known) / len(known) if known else None}]
        site.tell({"step": 1, "steps": 1})
        taught = {"model": model.name, "service": job.service, "rows": plain(rows), "seed": site.seed}
        if earlier := model.info.get("taught"):
            taught["earlier"] = earlier
        keep = getattr(job, "keep", 1)
        for stage in range(1, keep + 1):
            place = site.folder / ("model" if stage == keep else f"stages/{stage:08}")
            place.mkdir(parents=True, exist_ok=True)
            told = taught if keep == 1 else {**taught, "stage": stage}
            (place / _TAUGHT).write_text(json.dumps(told), encoding="utf-8")
        return {"rows": len(rows), "train_tokens": 10 * len(rows), "train_seconds": 0.0, "history": history}

    def _practise(self, model: Model, row: Any, seed: int) -> str:
        given = {"messages": [[m.role, m.content] for m in row.prompt]}
        return str(reply(self.scripts[model.name], ScriptedCall.of(Call(model, "generate", given, {}, seed))))

    def derive(self, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
        """Return a trained model; heads (classify, reward, rank) give rewards, and write nothing.

        What was taught in earlier rounds stands in the same file, so that the first model alone may be its source, too.
        """
        folder = getattr(recipe, "folder", None)
        if folder is None or not (folder / _TAUGHT).exists():
            return super().derive(name, recipe, sources)
        taught = json.loads((folder / _TAUGHT).read_text(encoding="utf-8"))
        (source,) = sources
        while "taught" in source.info:
            (source,) = source.sources
        head = taught["service"] in ("classify", "reward", "rank")
        kinds = frozenset({"reward", "embed"}) if head else source.capabilities
        rounds = [taught]
        while "earlier" in rounds[0]:
            rounds.insert(0, rounds[0]["earlier"])
        self.scripts[name] = functools.reduce(
            lambda script, lesson: self.learn(lesson, script), rounds, self.scripts[source.name]
        )
        fingerprint = digest("scripted", source.fingerprint, taught)
        info = {"taught": taught}
        return attrs.evolve(
            source,
            name=name,
            fingerprint=fingerprint,
            capabilities=kinds,
            recipe=recipe,
            sources=tuple(sources),
            info=info,
        )

    def answer(self, call: Call) -> Any:
        """Return the result of one call; raises what the script or the faults say."""
        seen = ScriptedCall.of(call)
        with self._lock:
            self.history.append(seen)
            number = len(self.history)
        error = self.faults.of(number, seen)
        if error is not None:
            raise error
        if call.kind not in call.model.capabilities:
            raise CapabilityError(f"model {call.model.name!r} has no capability {call.kind!r}")
        if call.kind == "generate":
            return self._generate(call, seen)
        if call.kind == "score":
            if self.scores is not None:
                return tuple(
                    ContinuationScore(token_ids=tuple(range(len(tokens))), token_logprobs=tuple(tokens))
                    for tokens in self.scores(seen)
                )
            scores = [_score(seen, text) for text in seen.given["continuations"]]
            read = len(seen.transcript.split())  # once, whatever the number of continuations
            return tuple(attrs.evolve(score, prompt_tokens=0 if i else read) for i, score in enumerate(scores))
        if call.kind == "embed":
            return tuple(_embedding(text) for text in seen.given["texts"])
        if call.kind == "reward":
            script = self.scripts.get(call.model.name)
            said = script(seen) if callable(script) and call.model.recipe is not None else None
            if isinstance(said, tuple):
                return said
            return (_unit(seen.fingerprint, seen.transcript) * 2 - 1,)
        raise CapabilityError(f"scripted models cannot {call.kind!r}")

    def _generate(self, call: Call, seen: ScriptedCall) -> Generation:
        said = self._said(call.model.name, seen)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, Generation):
            return said
        return _generation(str(said), seen, logprobs=call.model.can("logprobs"))

    def _said(self, name: str, seen: ScriptedCall) -> Said:
        script = self.scripts[name if name in self.scripts else name.partition("#")[0]]  # a copy says what its model says
        if isinstance(script, str):
            return script
        if callable(script):
            return script(seen)
        with self._lock:
            queue = self._queues.setdefault(name, deque(script))
            if not queue:
                raise ModelCallError(
                    f"{name}: the script has no reply left ({len(script)} were given); asked: {seen.prompt!r}"
                )
            return queue.popleft()


class ScriptedServer(ScriptedEngine):
    """The same behind an engine that batches by itself, as a remote server does."""

    batches_itself: ClassVar[bool] = True

    async def submit(self, call: Call) -> Any:
        self.hanging += self.faults.hang
        while self.faults.hang:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        return self._told(call)


def scripted_model(
    name: str,
    reply: Script,
    *,
    engine: ScriptedEngine | None = None,
    capabilities: frozenset[str] = SCRIPTED_CAPABILITIES,
    **fields: Any,
) -> Model:
    """Return a model that says ``reply``. ``fields`` are those of :class:`moco_core.Model` (tokenizer, copy, ...)."""
    engine = engine or ScriptedEngine()
    engine.scripts[name] = reply
    defaults: dict[str, Any] = {
        "fingerprint": digest("scripted", name),
        "description": f"scripted model {name}",
        "tokenizer": "scripted",
        "architecture": "scripted",
        "base": "scripted",
        "parameters": 1_000_000,
        "context_length": 1 << 20,
        "memory": 0,
        "prices": (1.0, 2.0),
    }
    return Model(name=name, capabilities=capabilities, engine=engine, **{**defaults, **fields})


class ScriptedPool(PoolSource[NoOptions]):
    """A pool of scripted models on one engine.

    ``scripts`` gives what each model says, by name; ``scores`` how likely continuations are, as the engine's. ``fields`` are
    further fields of single models, by name.
    """

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        capabilities: frozenset[str] = SCRIPTED_CAPABILITIES,
        faults: Faults | None = None,
        learn: Learn = memorise,
        scores: Scores | None = None,
        engine: ScriptedEngine | None = None,
        fields: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(NoOptions())
        self.engine = engine or ScriptedEngine(faults, learn, scores)
        if faults is not None:
            self.engine.faults = faults
        self._models = tuple(
            scripted_model(name, script, engine=self.engine, capabilities=capabilities, **(fields or {}).get(name, {}))
            for name, script in scripts.items()
        )

    @classmethod
    def copies(cls, count: int, script: Script, **keywords: Any) -> ScriptedPool:
        """Return a pool of copies of one model: equal fingerprints, numbered copies."""
        names = [f"copy{i}" for i in range(count)]
        same = digest("scripted", "copies")
        fields = {name: {"fingerprint": same, "copy": i} for i, name in enumerate(names)}
        return cls(dict.fromkeys(names, script), fields=fields, **keywords)

    def models(self) -> Sequence[Model]:
        return self._models

    @property
    def pool(self) -> Pool:
        return Pool(self._models)

    @property
    def trainings(self) -> list[tuple[str, TrainingJob]]:
        """Every job that was done, with the name of the model it trained."""
        return self.engine.trainings

    @property
    def history(self) -> list[ScriptedCall]:
        """Every call that was served, in order of service."""
        return self.engine.history

    def prompts(self, model: str | None = None) -> list[str]:
        """What was asked last in every generate call, of one model or of all."""
        return [c.prompt for c in self.history if c.kind == "generate" and model in (None, c.model)]


# ---------------------------------------------------------------- results made from text alone


def _generation(text: str, seen: ScriptedCall, *, logprobs: bool) -> Generation:
    """Cut a text as decoding would (one token per word), and give its tokens stable log-probabilities."""
    settings = Sampling.from_params(seen.params)
    finish = "eos"
    stops = [at for at in (text.find(s) for s in settings.stop if s) if at >= 0]
    if stops:
        text, finish = text[: min(stops)], "stop"
    words = text.split(" ")
    if len(words) > settings.max_new_tokens:
        words, finish = words[: settings.max_new_tokens], "length"
        text = " ".join(words)
    ids = tuple(int(digest("token", w)[:6], 16) for w in words) if text else ()
    scores = tuple(-0.05 - _unit(seen.fingerprint, seen.transcript, w) for w in words) if text and logprobs else ()
    return Generation(
        text=text,
        finish_reason=finish,  # type: ignore[arg-type]
        token_ids=ids,
        token_logprobs=scores,
        usage=Usage(len(seen.transcript.split()), len(ids)),
    )


def _score(seen: ScriptedCall, text: str) -> ContinuationScore:
    words = text.split(" ")
    return ContinuationScore(
        token_ids=tuple(int(digest("token", w)[:6], 16) for w in words),
        token_logprobs=tuple(-0.05 - 3 * _unit(seen.fingerprint, seen.transcript, w, i) for i, w in enumerate(words)),
    )


def _embedding(text: str, size: int = 16) -> tuple[float, ...]:
    """A hashed bag of words of length 1: texts that share words are near each other."""
    vector = [1e-3] * size
    for word in text.lower().split():
        number = int(digest("word", word)[:8], 16)
        vector[number % size] += 1.0 if number & 0x10000 else -1.0
    norm = math.sqrt(sum(v * v for v in vector))
    return tuple(v / norm for v in vector)


def _unit(*parts: Any) -> float:
    """A number in [0, 1) that depends on ``parts`` alone."""
    return int(digest(*parts)[:12], 16) / float(1 << 48)
