"""The inside of the transformers engine that toolkits build on: loaded models, derived models, private calls.

A method or toolkit gets here from any model it was given::

    engine = local_engine(model)               # CapabilityError with one line if the model lives on another engine
    with engine.use(a, b) as (one, two):       # loaded, pinned in memory, locked for this thread
        out = one.forward(ids, mask, positions, cache)

There are three ways in, from the outside to the inside:

1. **Derived models** (merged weights, fused logits, trained checkpoints): ``pool.derive(name, recipe, sources)`` returns a
   model that answers through scheduler and cache like any other. The recipe's ``kind`` decides how it is opened:

   ==============  ==========================================================================================
   ``kind``        the derived model is
   ==============  ==========================================================================================
   ``checkpoint``  a folder on disk: a pool entry such as ``{"model": path}`` or
                   ``{"model": base, "adapter": path}`` (:class:`CheckpointRecipe`)
   ``adapter``     a LoRA adapter given as tensors, put on the resident base (:class:`AdapterRecipe`)
   ``weights``     full weights, computed tensor by tensor (:class:`WeightRecipe`)
   ``serving``     a decoding loop over several loaded models (:class:`ServingRecipe`)
   ==============  ==========================================================================================

2. **Private calls**: ``context.call(model, kind, given, {}, payload=p, cached=False, requires="step")`` with any kind other
   than ``generate``, ``score``, ``embed``, ``reward``. The payload brings its own code (:class:`Payload`); the engine groups
   the calls that wait and runs each group once per tick, between two steps of its own generation.

3. **Direct use** in :meth:`LocalEngine.use`, for work that is no call at all (fitting a head on hidden states, say). Call it
   from a worker thread (``await asyncio.to_thread(...)``), never from the event loop.

All three work on a model's own device (``model.device_group``); replicas elsewhere take calls that depend on nothing else.

Nothing here imports torch until it runs. All tensors are torch tensors, annotated as ``Any`` for that reason; B is the
number of rows, Q of new tokens, L of tokens in the cache, V of rows of the output embedding, H the hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs

from moco_core.errors import CapabilityError
from moco_core.models import Call, Inbox, Model, Recipe
from moco_core.types import FinishReason, Generation, Message

__all__ = [
    "AdapterRecipe",
    "AdapterWeights",
    "CheckpointRecipe",
    "Loaded",
    "LocalEngine",
    "ModelFiles",
    "Output",
    "Payload",
    "Rendered",
    "ServingRecipe",
    "WeightRecipe",
    "Weights",
    "local_engine",
]

Tensor = Any


@attrs.frozen(kw_only=True)
class Rendered:
    """A prompt as one model reads it.

    ``ids`` are the prompt's tokens, BOS included where the template or tokenizer writes one; ``text`` is the rendered text.
    ``template`` says how it was made: ``chat``, ``plain`` (the model has no template) or ``raw`` (text as given).
    ``opened`` is the closing tag of a reasoning block that the prompt leaves open (a template may end in ``<think>``), else
    empty. ``truncated`` counts tokens cut from the left; it is 0 unless the pool was told to truncate. ``meta`` is what a
    :class:`~moco_core.types.Generation` records about all this.
    """

    ids: tuple[int, ...]
    text: str
    template: str
    opened: str = ""
    truncated: int = 0
    meta: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Output:
    """What one forward gives.

    ``logits``: float32 (B, V), or (B, Q, V) with ``keep=0``. ``hidden``: (B, H), or (B, Q, H), in the model's dtype; None
    unless asked for. The cache that was passed in has been extended in place by Q positions.
    """

    logits: Tensor
    hidden: Tensor | None = None


class Loaded(Protocol):
    """One model in memory, ready to run: evaluation mode, no gradients. Valid inside the ``use`` block or the ``run`` that
    handed it out; do not keep it.
    """

    @property
    def model(self) -> Model:
        """The description this was opened from."""

    @property
    def module(self) -> Any:
        """The transformers module (a PeftModel if adapters were ever put on this base). Do not train or modify it."""

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""

    @property
    def device(self) -> Any:
        """torch.device of the inputs."""

    @property
    def dtype(self) -> Any:
        """torch.dtype of the weights."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Every token that ends a reply: tokenizer, generation config, and the template's end-of-turn token."""

    @property
    def vocab(self) -> int:
        """Largest id that the tokenizer defines and V covers, plus one. Rows above are padding: never choose them."""

    @property
    def context_length(self) -> int | None:
        """Positions the model can read; None if unbounded."""

    @property
    def scratch(self) -> MutableMapping[Hashable, Any]:
        """A place for state that lives and dies with these weights: key/value caches of sessions, token tables.

        It is emptied when the model is evicted and may be emptied under memory pressure at any tick (never during a
        ``run`` or ``use``): always be able to rebuild from token ids. Use your own type or package name as key.
        """

    def render(self, messages: Sequence[Message], *, reserve: int = 0) -> Rendered:
        """Return the conversation through the chat template, with the generation prompt (or, if it ends with an assistant
        message, continuing that message). ``reserve`` is the number of tokens the reply may take.

        Raises PromptTooLong if prompt and reserve exceed the context and the pool does not truncate.
        """

    def render_input(self, given: Mapping[str, Any], *, reserve: int = 0) -> Rendered:
        """Render a call's input, ``{"messages": [[role, content], ...]}`` or ``{"text": ...}``."""

    def encode(self, text: str) -> list[int]:
        """Tokenise a piece of text; special tokens are neither added nor parsed. ``encode(a + b)`` may differ from
        ``encode(a) + encode(b)``: see :meth:`continuation_ids`."""

    def decode(self, ids: Sequence[int], *, tags: bool = False) -> str:
        """Turn tokens into text, special tokens skipped, spaces as they are. With ``tags`` those that mark reasoning stay."""

    def continuation_ids(self, prompt: Rendered, continuation: str) -> tuple[int, list[int]]:
        """Return ``(kept, ids)``: prompt text + continuation tokenise to ``prompt.ids[:kept] + ids``. ``kept`` is smaller
        than ``len(prompt.ids)`` where a token spans the seam."""

    def new_cache(self) -> Any:
        """Return an empty key/value cache that can be cropped freely (a DynamicCache that keeps all positions).

        Pass a *negative* number to its ``crop``: the number of positions to remove.
        """

    @property
    def supports_rollback(self) -> bool:
        """Whether :meth:`new_cache` can be cropped; False for recurrent and linear-attention architectures."""

    def forward(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, *, keep: int = 1, hidden: bool = False
    ) -> Output:
        """Run one forward under ``torch.inference_mode``.

        ``ids`` int64 (B, Q); ``mask`` int64 (B, L + Q), 0 on padding; ``positions`` int64 (B, Q), counted over unmasked
        tokens (``mask.cumsum(-1) - 1``); ``cache`` from :meth:`new_cache`, or None for no cache. ``keep=1`` returns the
        last position only, ``keep=0`` all of them. ``hidden`` adds the last layer's hidden states. The model's adapter is
        selected. Raises EngineOutOfMemory.
        """

    def run(self, **inputs: Any) -> Any:
        """Call :attr:`module` itself, likewise: with the model's adapter, without gradients. Raises EngineOutOfMemory."""

    def body(self, **inputs: Any) -> Any:
        """Call the decoder below the module's head, likewise; its output has ``last_hidden_state`` (B, Q, H)."""

    def generation(
        self,
        prompt: Rendered,
        ids: Sequence[int],
        logprobs: Sequence[float],
        finish: FinishReason,
        *,
        text: str | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Generation:
        """Make the reply value out of emitted tokens: decoded, reasoning block split off, usage counted.

        ``text`` replaces the decoded text (already cut at a stop string). With ``finish`` ``eos`` the last of ``ids`` is the
        end token, of whichever model it is.
        """


class Payload(Protocol):
    """The payload of a private call: it brings the code that answers it.

    At each tick the engine takes the private calls that wait for one model, puts those with equal ``group`` together, and
    calls ``run`` of the first payload with all of them (oldest first). Sessions of one toolkit give one constant group, so
    that one forward advances all of them.
    """

    @property
    def group(self) -> Hashable:
        """Calls with equal groups are run together."""

    def run(self, loaded: Loaded, calls: Sequence[Call]) -> Sequence[Any]:
        """Answer ``calls``, whose payloads are in ``call.payload``; one result each, in order.

        A result that is an Exception fails that call alone. Raising EngineOutOfMemory has the same calls run again in
        smaller groups: leave session state as it was before, or make ``run`` safe to repeat. Any other exception fails
        all of ``calls``. It runs in the model's worker thread and should take about as long as one forward: split long
        work into several calls, since generation of this model waits meanwhile.
        """


class Weights(Protocol):
    """The parameters of one model, read lazily, by the names of ``module.named_parameters()`` (tied tensors once, under
    the embedding's name) plus persistent buffers. For an adapter model: its base with the adapter merged in.
    """

    @property
    def model(self) -> Model:
        """Whose weights these are."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The checkpoint's config.json."""

    @property
    def names(self) -> Sequence[str]:
        """All names, in module order."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""

    def get(self, name: str) -> Tensor:
        """Return a tensor on the CPU: as stored, or in float32 where an adapter was merged in. It may alias a file or a
        module: never modify it in place."""


@attrs.frozen(kw_only=True)
class AdapterWeights:
    """A LoRA adapter as tensors.

    ``config`` is the content of adapter_config.json (r, lora_alpha, target_modules, use_rslora, ...); ``tensors`` has the
    keys of adapter_model.safetensors (``base_model.model....lora_A.weight``).
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@attrs.frozen(kw_only=True)
class ModelFiles:
    """Where the files of a model lie, told without opening or fetching any.

    ``checkpoint`` is the folder of the full model (an adapter's base), where its weights may still be on the Hub only;
    ``tokenizer`` that of its tokenizer; ``adapter`` that of the LoRA adapter, None if there is none. ``named`` is what the
    pool calls the checkpoint: a path or a Hub id. ``base`` is the fingerprint of the checkpoint's weights, which is
    :attr:`Model.base` of the adapters on it.
    """

    checkpoint: Path | None = None
    tokenizer: Path | None = None
    adapter: Path | None = None
    named: str = ""
    base: str = ""


class CheckpointRecipe(Recipe, Protocol):
    """A model that lies in a folder: a training result, say. Its kind is ``checkpoint``."""

    def checkpoint(self, sources: Sequence[Model]) -> Mapping[str, Any]:
        """Return a pool entry as in the pool's ``models`` option (``model``, ``adapter``, ``dtype``, ...). The files must
        exist when the model is derived."""


class AdapterRecipe(Recipe, Protocol):
    """A LoRA adapter composed from others (or trained in memory); the sources share one base. Its kind is ``adapter``."""

    def adapter(self, sources: Sequence[AdapterWeights]) -> AdapterWeights:
        """Return the adapter to put on the sources' base. Called when the derived model is opened, again after it was
        evicted: must be deterministic. Any source that is the base itself comes as an adapter without tensors."""


class WeightRecipe(Recipe, Protocol):
    """Full weights computed from the sources' weights. Its kind is ``weights``.

    All derived models of one architecture and configuration share one resident evaluation module; opening one overwrites
    its parameters in place. Thousands may exist, one is materialised, and switching costs one pass over the parameters.
    Config, tokenizer and chat template are those of ``sources[0]``. Sources may be derived models themselves.

    A recipe may also have ``write(name, sources, out) -> bool``, which computes the tensor straight into the evaluation
    module's own one; where it returns False it has done nothing, and ``tensor`` is asked.
    """

    def tensor(self, name: str, sources: Sequence[Weights]) -> Tensor:
        """Return one tensor of the result, in any float dtype, on any device; the engine casts once while copying.

        Names are those of ``sources[0].names``. Must be deterministic and independent of the order of names. Raise
        ValueError for shapes that do not fit; it is reported with the model's name."""


class ServingRecipe(Recipe, Protocol):
    """A model that is a decoding loop over others: fused or contrasted logits, gated members. Its kind is ``serving``."""

    def serve(self, engine: LocalEngine, model: Model, sources: Sequence[Model], inbox: Inbox) -> None:
        """Answer calls of the derived ``model`` until none waits, like :meth:`moco_core.models.Engine.serve`, in the
        worker thread of its device group. Open the sources with ``engine.use(*sources)``, once, around the loop.

        The capabilities of the derived model are ``generate`` and ``logprobs`` unless the recipe has an attribute
        ``capabilities`` (a collection of names).
        """


@runtime_checkable
class LocalEngine(Protocol):
    """What an engine that works inside its models offers beyond :class:`moco_core.models.Engine`."""

    def use(self, *models: Model) -> AbstractContextManager[tuple[Loaded, ...]]:
        """Load the models if needed, pin them, and hold them for this thread alone.

        Locks are taken in one global order and are re-entrant, so threads cannot deadlock over several models as long as
        each asks for all it needs in one ``use``. Adapters on one base share its memory and its lock. Raises
        EngineOutOfMemory if they cannot be resident together, ConfigError if files are gone.
        """

    def weights(self, model: Model) -> Weights:
        """Return a model's parameters, lazily, without making it resident. CapabilityError if it has none."""

    def adapter_weights(self, model: Model) -> AdapterWeights:
        """Return a LoRA adapter's tensors and configuration. CapabilityError if ``model`` is not an adapter."""

    def files(self, model: Model) -> ModelFiles:
        """Return where a model's files lie; nothing is there for one that was derived."""

    def folder(self, model: Model) -> Path:
        """Return the local folder of a full model's checkpoint (its base's for an adapter); for trainers. Derived weights
        have none: CapabilityError; export them first."""

    def entry(self, model: Model) -> Mapping[str, Any]:
        """See :meth:`moco_core.models.Engine.entry`."""

    def export(self, model: Model, folder: Path) -> None:
        """Write a model as an ordinary checkpoint: config, safetensors, tokenizer, chat template; adapters as adapters.
        Written beside and renamed, so that ``folder`` is complete or absent."""

    def resident(self) -> Collection[str]:
        """Return the names of the models in memory."""

    def free(self) -> None:
        """Drop every model that is not in use."""

    def walk(self, model: Model) -> Iterator[Model]:
        """Yield the models of the pool that ``model`` was derived from, itself if it is one of them."""


def local_engine(model: Model) -> LocalEngine:
    """Return the engine a model lives on. Raises CapabilityError if it does not work inside its models."""
    engine = model.engine
    if isinstance(engine, LocalEngine):
        return engine
    raise CapabilityError(
        f"model {model.name!r} runs on {type(engine).__name__}, which cannot work inside the model; "
        "`moco list pool --can weights` names the pools that can"
    )
