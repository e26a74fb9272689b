"""Models, pools and engines: what a pool plugin provides and what a method is given.

A pool plugin (:class:`PoolSource`) describes its models without loading anything; the weights are opened by its
:class:`Engine` when the first call arrives. Methods see a :class:`Pool`, a sequence of :class:`Model` values; they talk to
models through the context only, so that every call passes the cache and the scheduler.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, overload, runtime_checkable

import attrs

from moco_core.errors import CapabilityError, ConfigError, suggest
from moco_core.options import NoOptions
from moco_core.training import TrainingJob, TrainingSite

CAPABILITIES: Mapping[str, str] = {
    "generate": "write text",
    "question": "answer a structured question",
    "logprobs": "return the log-probabilities of the emitted tokens",
    "score": "score given continuations token by token",
    "step": "advance token by token with next-token logits and roll-back",
    "hidden": "return hidden states",
    "embed": "return one embedding per text",
    "reward": "score a conversation with a sequence-classification head",
    "weights": "give its weights",
    "train": "be trained",
}
"""What a model may let a method do, with the words used in messages."""


def _names(values: Iterable[str]) -> frozenset[str]:  # typed: type checkers cannot see through `frozenset` itself
    return frozenset(values)


@attrs.frozen(kw_only=True, eq=False)
class Model:
    """One language model of a pool: a description, no weights.

    ``fingerprint`` identifies everything that decides a reply (weights, tokenizer, template, numeric settings) and is part
    of every cache key. ``copy`` numbers the copies of one model in a pool, so that they sample independently.
    ``tokenizer``, ``architecture`` and ``base`` are fingerprints: equal values mean the same tokenizer, mergeable shapes,
    and the same LoRA base. ``device_group`` names the devices the model runs on: one model of a group is served at a time.
    ``memory`` is the estimated size of the loaded weights in bytes; ``prices`` are money per million (prompt, completion)
    tokens. A model that was made from others has the ``recipe`` and its ``sources``. ``info`` is the engine's own.
    """

    name: str
    fingerprint: str
    capabilities: frozenset[str] = attrs.field(converter=_names)
    engine: Engine = attrs.field(repr=False)
    description: str = ""
    tokenizer: str = ""
    architecture: str = ""
    base: str = ""
    adapter: bool = False
    parameters: int | None = None
    context_length: int | None = None
    memory: int | None = None
    device_group: str = "default"
    copy: int = 0
    prices: tuple[float, float] | None = None
    recipe: Recipe | None = attrs.field(default=None, repr=False)
    sources: tuple[Model, ...] = attrs.field(default=(), repr=False)
    info: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    def can(self, capability: str) -> bool:
        return capability in self.capabilities


@attrs.define(eq=False, slots=True)
class Call:
    """One request to one model, as the engine sees it.

    ``kind`` is ``generate``, ``score``, ``embed``, ``reward`` or a kind private to an engine; ``input`` and ``params`` are
    JSON data (``generate``: input ``{"messages": [[role, content], ...]}`` or ``{"text": ...}``, params as
    :meth:`moco_core.types.Sampling.params`; ``score``: input as before plus ``"continuations": [...]``). ``seed`` is a
    64-bit integer for sampled calls, else None. ``payload`` carries live objects of calls that are never cached. ``tell``
    may be told a reply's text as it grows, from any thread: what is told once is not taken back.
    """

    model: Model
    kind: str
    input: Any
    params: Mapping[str, Any]
    seed: int | None = None
    key: bytes | None = None
    payload: Any = None
    tell: Callable[[str], None] | None = None


class Inbox(Protocol):
    """The calls of one model that wait for its engine. All methods are safe to call from the serving thread."""

    @property
    def waiting(self) -> int:
        """How many calls wait."""

    @property
    def demand(self) -> Mapping[str, int]:
        """How many calls wait per model name: what to keep resident."""

    @property
    def limit(self) -> int:
        """Serve at most this many calls at once; it shrinks after :class:`~moco_core.errors.EngineOutOfMemory`."""

    @property
    def cancelled(self) -> bool:
        """The run is being stopped: return as soon as possible."""

    def take(self, n: int | None = None) -> list[Call]:
        """Remove and return up to ``n`` waiting calls, oldest first; an empty list if none waits."""

    def resolve(self, results: Sequence[tuple[Call, Any]]) -> None:
        """Deliver results. They are stored in the cache before anybody sees them."""

    def reject(self, call: Call, error: Exception) -> None:
        """Fail one call; the others go on."""


class Engine(ABC):
    """What runs models.

    An engine that batches by itself (a server, vLLM) sets ``batches_itself`` and implements :meth:`submit`, which gets the
    calls as they come, at most ``max_in_flight`` at once. Every other engine implements :meth:`serve`.

    A call that nobody waits for any more (its caller was cancelled) is not made if it was not begun. One that was begun goes
    on, so that what is paid for is kept; with ``gives_up``, :meth:`submit` is cancelled instead.
    """

    batches_itself: ClassVar[bool] = False
    gives_up: ClassVar[bool] = False
    max_in_flight: int = 64

    def serve(self, model: Model, inbox: Inbox) -> None:
        """Answer calls of ``model`` until none waits, or return earlier to let another model have its turn. Runs in a worker
        thread, one per device group.

        Take calls, answer them in batches of any size, let new ones in as rows finish, and resolve each as soon as it is
        done. Raise :class:`~moco_core.errors.EngineOutOfMemory` to have what was taken retried in smaller batches; any
        other exception fails what was taken and not yet resolved.
        """
        raise TypeError(f"{type(self).__name__} implements neither serve nor submit")

    async def submit(self, call: Call) -> Any:
        """Answer one call (engines with ``batches_itself``)."""
        raise TypeError(f"{type(self).__name__} implements neither serve nor submit")

    def ready(self, model: Model) -> bool:
        """Return whether ``model`` can be served without loading anything; False if unknown.

        Called from the event loop: answer at once, without a lock that a serving thread may hold.
        """
        return False

    def facts(self) -> Mapping[str, Any]:
        """Return what is in force on this machine (threads, groups of cores), as JSON data, for records and plans."""
        return {}

    def derive(self, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
        """Return a model made from others by ``recipe``; raise CapabilityError if this engine cannot."""
        raise CapabilityError(f"{type(self).__name__} cannot derive {type(recipe).__name__} models")

    def train(self, model: Model, job: TrainingJob, site: TrainingSite) -> Mapping[str, Any]:
        """Have ``job`` train ``model`` on its devices, which are free of calls meanwhile, and return the job's figures.

        Runs in a worker thread. Make room, run ``job`` at the site with what is known of the model's files and devices, and
        take the room back. Raises CapabilityError if this engine cannot.
        """
        raise CapabilityError(f"{type(self).__name__} cannot train {model.name!r}; {_remedy('train')}")

    def entry(self, model: Model) -> Mapping[str, Any]:
        """Return what opens a model by its files: ``{"model": folder, "adapter": folder, ...}``, as in a pool's options.

        Raises CapabilityError if this engine opens no files.
        """
        raise CapabilityError(f"{type(self).__name__} cannot open {model.name!r} from files")

    async def start(self, runtime: Any) -> None:
        """Open connections or workers. Called once, before the first call of any model, in the run's event loop.

        ``runtime`` answers calls of other models, for engines that are made of them: ``runtime.state(metric).context(...)``.
        Raise :class:`~moco_core.errors.PoolError` if models cannot be reached at all: nobody is asked anything then.
        """

    async def close(self) -> None:
        """Free memory, connections and workers. Called once, also after an error."""


@runtime_checkable
class Recipe(Protocol):
    """How to make a model out of others (merged weights, fused logits): a value.

    ``fingerprint`` depends on everything that decides the result, sources included, and names the derived model in the
    cache. ``kind`` says how the model is opened, and so what else the recipe offers; ``moco_toolkit_checkpoints.local``
    describes each kind. A recipe whose results changed from one version to the next has ``made_by``, its name and the number
    of its version: ``moco cache`` then tells which stored replies are of an earlier one.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def kind(self) -> Literal["checkpoint", "adapter", "weights", "serving"]: ...


class Pool(Sequence[Model]):
    """The ordered models of a run."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = tuple(models)
        seen: set[str] = set()
        for model in self._models:
            if model.name in seen:
                raise ConfigError(f"pool: two models are called {model.name!r}; give one another name")
            seen.add(model.name)

    @overload
    def __getitem__(self, index: int) -> Model: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Model]: ...
    def __getitem__(self, index: int | slice) -> Model | Sequence[Model]:
        return self._models[index]

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return f"Pool({', '.join(m.name for m in self._models)})"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self._models)

    def named(self, name: str | int, where: str = "pool") -> Model:
        """Return the model of that name or index; ``where`` opens the error message.

        Raises ConfigError if there is none.
        """
        if isinstance(name, int):
            if not -len(self) <= name < len(self):
                raise ConfigError(f"{where}: model index {name} is out of range, the pool has {len(self)} models")
            return self._models[name]
        for model in self._models:
            if model.name == name:
                return model
        raise ConfigError(
            f"{where}: no model {name!r} in the pool ({', '.join(self.names)}){suggest(name, self.names)}"
        )

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The engines that its models live on."""
        return tuple(dict.fromkeys(m.engine for m in self._models))

    def derive(self, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
        """Return a model that ``recipe`` makes out of ``sources`` and that answers like any other.

        All sources must live on one engine. Raises CapabilityError if that engine cannot make it.
        """
        engines = {m.engine for m in sources}
        if len(engines) != 1:
            raise CapabilityError(
                f"{name}: its sources ({', '.join(m.name for m in sources)}) live on {len(engines)} engines; "
                "put them on one engine to combine them"
            )
        return engines.pop().derive(name, recipe, sources)


@attrs.frozen(kw_only=True)
class Needs:
    """What a method needs of a pool; checked before any weight is loaded.

    ``capabilities`` must be met by every model, ``roles`` by the model at that index only (``{0: {"step"}}``).
    ``optional`` names capabilities that only some models need, or that are used where a model has them; ``check`` gets the
    pool and returns what else is missing, one sentence each. ``same_engine``, ``same_tokenizer``, ``same_architecture`` and
    ``same_base`` compare all models; ``adapters`` asks for LoRA adapters.
    """

    capabilities: frozenset[str] = attrs.field(default=frozenset({"generate"}), converter=_names)
    roles: Mapping[int, frozenset[str]] = attrs.field(factory=dict)
    optional: frozenset[str] = attrs.field(default=frozenset(), converter=_names)
    min_models: int = 1
    max_models: int | None = None
    same_engine: bool = False
    same_tokenizer: bool = False
    same_architecture: bool = False
    same_base: bool = False
    adapters: bool = False
    check: Callable[[Sequence[Model]], Sequence[str]] | None = None

    @property
    def declared(self) -> frozenset[str]:
        """Every capability the method may use, on whichever model."""
        return self.capabilities.union(self.optional, *self.roles.values())

    def problems(self, pool: Sequence[Model]) -> list[str]:
        """Return what is missing, one sentence each; empty if the pool can serve."""
        out: list[str] = []
        if len(pool) < self.min_models:
            out.append(f"needs at least {self.min_models} models, the pool has {len(pool)}; add models to the pool")
        if self.max_models is not None and len(pool) > self.max_models:
            out.append(f"takes at most {self.max_models} models, the pool has {len(pool)}; name fewer")
        for index, model in enumerate(pool):
            missing = sorted((self.capabilities | self.roles.get(index, frozenset())) - model.capabilities)
            for name in missing:
                what = CAPABILITIES.get(name, name)
                out.append(f"model {model.name!r} cannot {what} (capability {name!r}); {_remedy(name)}")
        for flag, attribute, what, remedy in (
            (self.same_engine, "engine", "an engine", "open them in one pool, by one engine, to combine them"),
            (self.same_tokenizer, "tokenizer", "a tokenizer", "choose models of one family"),
            (self.same_architecture, "architecture", "an architecture", "choose checkpoints of one architecture and size"),
            (self.same_base, "base", "a base model", "choose adapters trained on one base"),
        ):
            if flag and len(pool) > 1:
                first = pool[0]
                other = next((m for m in pool if getattr(m, attribute) != getattr(first, attribute)), None)
                if other is not None:
                    out.append(f"models {first.name!r} and {other.name!r} do not share {what}; {remedy}")
        if self.adapters:
            plain = next((m for m in pool if not m.adapter), None)
            if plain is not None:
                out.append(f"model {plain.name!r} is not a LoRA adapter; give adapters on one base")
        if self.check is not None:
            out.extend(self.check(pool))
        return out


def _remedy(capability: str) -> str:
    return f"`moco list pool --can {capability}` names the pools whose models can"


OptionsT = TypeVar("OptionsT")


class PoolSource(ABC, Generic[OptionsT]):
    """A pool plugin: describes its models, and opens them on its engine when they are first called.

    ``Options`` is a frozen attrs class. ``models()`` must be cheap: it reads configurations and headers, never weights.
    ``beside`` is set by a pool of pools: bytes that its other pools need on each device (``cuda:0``), to be planned around.
    """

    Options: ClassVar[type] = NoOptions
    beside: Mapping[str, int] = MappingProxyType({})

    def __init__(self, options: OptionsT) -> None:
        self.options = options

    @abstractmethod
    def models(self) -> Sequence[Model]:
        """Return the models in order. Raises ConfigError if one cannot be found."""

    @cached_property
    def pool(self) -> Pool:
        """The models as a pool, described once: what options that hold a pool are used through."""
        return Pool(self.models())

    def export(self, model: Model, folder: Path) -> None:
        """Write a (derived) model to ``folder`` as an ordinary checkpoint; CapabilityError if this pool cannot."""
        raise CapabilityError(f"{type(self).__name__} cannot write {model.name!r} to disk")
