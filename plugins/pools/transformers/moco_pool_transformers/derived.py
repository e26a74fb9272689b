"""Models made from others: described here, opened by :mod:`moco_pool_transformers.residency`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from moco_core.errors import CapabilityError
from moco_core.models import Engine, Model, Recipe
from moco_core.options import build
from moco_core.types import digest
from moco_pool_transformers.describe import describe, model_of
from moco_pool_transformers.options import Entry
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["derive"]


def derive(engine: Engine, name: str, recipe: Recipe, sources: Sequence[Model]) -> Model:
    """Describe the model that ``recipe`` makes out of ``sources``; nothing is computed yet.

    Raises CapabilityError if the recipe is none of :mod:`moco_toolkit_checkpoints.local`, or the sources cannot serve it.
    """
    if not sources:
        raise CapabilityError(f"{name}: a derived model needs at least one source")
    common: dict[str, Any] = {
        "name": name,
        "engine": engine,
        "fingerprint": digest("derived", recipe.fingerprint),
        "description": str(getattr(recipe, "description", "")),
        "tokenizer": sources[0].tokenizer,
        "context_length": min((s.context_length for s in sources if s.context_length), default=None),
        "device_group": sources[0].device_group,
        "recipe": recipe,
        "sources": tuple(sources),
    }
    kind = getattr(recipe, "kind", None)
    if kind == "checkpoint":
        return _checkpoint(engine, name, recipe, sources)
    if kind == "adapter":
        return _adapter(name, sources, common)
    if kind == "weights":
        return _merged(name, sources, common)
    if kind == "serving":
        members = {s.fingerprint: s for s in sources}.values()
        return Model(
            **common,
            capabilities=frozenset(getattr(recipe, "capabilities", ("generate", "logprobs"))),
            parameters=sum(s.parameters or 0 for s in members),
            memory=sum(s.memory or 0 for s in members),
        )
    raise CapabilityError(
        f"{name}: {type(recipe).__name__} is of kind {kind!r}, which is none of checkpoint, adapter, weights, serving"
    )


def _checkpoint(engine: Any, name: str, recipe: Any, sources: Sequence[Model]) -> Model:
    spec = _spec(name, sources[0])
    given = dict(recipe.checkpoint(sources))
    given.setdefault("dtype", spec.dtype)
    entry = build(Entry, {**given, "name": name}, path=name)
    described = describe(entry, engine.options, name)
    device = given.get("device") or spec.device
    group = sources[0].device_group if device == spec.device else ""
    model = model_of(described, entry, name, engine, [device], group)
    return attrs.evolve(model, recipe=recipe, sources=tuple(sources))


def _adapter(name: str, sources: Sequence[Model], common: dict[str, Any]) -> Model:
    bases = {s.base or _spec(name, s).base_print for s in sources}
    if len(bases) != 1:
        raise CapabilityError(
            f"{name}: its sources ({', '.join(s.name for s in sources)}) are adapters of {len(bases)} different bases; "
            "choose adapters trained on one base"
        )
    first = next((s for s in sources if s.adapter), sources[0])
    spec = attrs.evolve(_spec(name, first), adapter="(computed)", adapter_key=common["fingerprint"], computed=True)
    common["info"] = {"spec": spec}
    return Model(
        **common,
        capabilities=first.capabilities,
        architecture=first.architecture,
        base=next(iter(bases)),
        adapter=True,
        parameters=first.parameters,
        memory=first.memory,
    )


def _merged(name: str, sources: Sequence[Model], common: dict[str, Any]) -> Model:
    lacking = next((s for s in sources if not s.can("weights")), None)
    if lacking is not None:
        raise CapabilityError(f"{name}: model {lacking.name!r} cannot give its weights (capability 'weights')")
    first = sources[0]
    other = next((s for s in sources if s.architecture != first.architecture), None)
    if other is not None:
        raise CapabilityError(
            f"{name}: {first.name!r} and {other.name!r} do not share an architecture; "
            "choose checkpoints of one architecture and size"
        )
    spec = _spec(name, first)
    # one evaluation module per architecture, configuration, type and device, for all candidates
    spec = attrs.evolve(
        spec,
        adapter="",
        adapter_key="",
        computed=True,
        base_print=common["fingerprint"],
        base_key=("merged", first.architecture, spec.config_print, spec.dtype, spec.device),
    )
    common["info"] = {"spec": spec}
    return Model(
        **common,
        capabilities=first.capabilities,
        architecture=first.architecture,
        parameters=first.parameters,
        memory=spec.base_bytes,
    )


def _spec(name: str, model: Model) -> Spec:
    spec = model.info.get("spec")
    if not isinstance(spec, Spec):
        raise CapabilityError(
            f"{name}: model {model.name!r} is itself a decoding loop and cannot be a source of weights"
        )
    return spec
