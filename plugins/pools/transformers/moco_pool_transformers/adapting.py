"""LoRA adapters on one module in memory: put there, told apart, selected, and kept from changing the module itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import attrs
import torch

from moco_core.errors import ConfigError
from moco_core.models import Model
from moco_core.types import digest
from moco_pool_transformers.weights import LOADING, adapter_of
from moco_toolkit_checkpoints.adapters import beyond_factors, placed_by_tensors
from moco_toolkit_checkpoints.local import AdapterWeights
from moco_toolkit_checkpoints.specs import Spec

__all__ = ["Adapters"]


@attrs.define(eq=False)
class Adapters:
    """The adapters on one module.

    An adapter of files has a name of its own; computed ones are written into slots, by shape, that are reused when nobody
    holds them.
    """

    module: Any
    peft: Any = None
    layers: list[Any] = attrs.field(factory=list)
    active: str | None = ""  # "" until one was selected, or none
    slots: dict[str, str] = attrs.field(factory=dict)  # slot -> fingerprint of the computed adapter in it
    held: dict[str, int] = attrs.field(factory=dict)  # slot -> uses
    sources: dict[str, AdapterWeights] = attrs.field(factory=dict)  # of computed adapters, by fingerprint
    places: dict[str, dict[str, Any]] = attrs.field(factory=dict)  # slot -> its tensors by their names on disk

    def put(self, model: Model, spec: Spec) -> str:
        """Put an adapter of files on the module, if it is not there, and return its name there.

        Raises ConfigError if it does not fit, or if it has changed the weights of a base that others use: then the module is
        spoilt, and the caller drops it.
        """
        from peft import LoraConfig

        name = spec.adapter_name  # an own name per adapter: adapters called "default" overwrite each other silently
        if self.peft is not None and name in self.peft.peft_config:
            return name
        shared = spec.base_key[0] == spec.base_print
        before = _marks(self.module) if shared else None
        try:
            device = [spec.device] if spec.device.startswith("cuda") else []
            with LOADING, torch.random.fork_rng(device):
                torch.manual_seed(0)  # PiSSA by iterations draws while it takes from the base what the adapter has
                settings = LoraConfig.from_pretrained(spec.adapter)
                self._add(name, settings)
                found = self.peft.load_adapter(
                    spec.adapter,
                    adapter_name=name,
                    is_trainable=False,
                    key_mapping=getattr(self.module, "_checkpoint_conversion_mapping", {}),
                )
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            text = " ".join(str(error).split())[:300]
            raise ConfigError(f"model {model.name!r}: its adapter {spec.adapter} does not open: {text}") from error
        if found.unexpected_keys:
            raise ConfigError(
                f"model {model.name!r}: its base has no place for the adapter tensor {min(found.unexpected_keys)}"
            )
        self._selectable()
        if before is not None and not _unchanged(self.module, before):
            raise ConfigError(
                f"model {model.name!r}: its adapter {spec.adapter} changes the weights of its base, which other models "
                "use; merge it into a checkpoint of its own"
            )
        return name

    def fill(self, model: Model) -> tuple[str, str | None]:
        """Write a computed adapter into a slot, if it is in none; return the slot and whose adapter was in it before."""
        name = next((s for s, content in self.slots.items() if content == model.fingerprint), "")
        if name:
            return name, None
        weights = adapter_of(model, self.sources)
        if problem := beyond_factors(weights.config, weights.tensors):
            raise ConfigError(f"model {model.name!r}: an adapter that is computed has factors alone, got {problem}")
        shape = digest([weights.config, sorted((k, list(t.shape)) for k, t in weights.tensors.items())])[:12]
        number = 0
        while self.held.get(name := f"moco_slot_{shape}_{number}", 0):
            number += 1
        if name not in self.slots:
            with LOADING:
                self._add(name, _settings(weights))
            self._selectable()
        before = self.slots.get(name)
        self._write(weights, name, model.name)
        self.slots[name] = model.fingerprint
        return name, before

    def hold(self, slot: str) -> None:
        self.held[slot] = self.held.get(slot, 0) + 1

    def release(self, slot: str) -> None:
        self.held[slot] -= 1

    def activate(self, name: str | None) -> None:
        """Select an adapter, or none, in every adapted layer; free if it is selected already."""
        if self.active == name or not self.layers:
            return
        for layer in self.layers:
            layer.enable_adapters(name is not None)
            if name is not None:
                layer.set_adapter([name])
        self.module.requires_grad_(False)
        self.active = name

    def _add(self, name: str, settings: Any) -> None:
        from peft import PeftModel

        settings.inference_mode = True
        if self.peft is None:
            self.peft = PeftModel(self.module, settings, adapter_name=name)
        else:
            self.peft.add_adapter(name, settings)

    def _selectable(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.module.requires_grad_(False).eval()
        self.layers = [m for m in self.module.modules() if isinstance(m, BaseTunerLayer)]
        self.active = ""

    def _write(self, weights: AdapterWeights, slot: str, name: str) -> None:
        """Write an adapter's tensors into a slot in place."""
        from peft import get_peft_model_state_dict

        places = self.places.get(slot)
        if places is None:
            # the slot's own tensors, under the names that files give them
            places = self.places[slot] = get_peft_model_state_dict(
                self.peft, adapter_name=slot, save_embedding_layers=False
            )
        with torch.no_grad():
            for key, tensor in weights.tensors.items():
                place = places.get(key)
                if place is None:
                    raise ConfigError(f"model {name!r}: its base has no place for the adapter tensor {key}")
                place.copy_(tensor)


def _settings(weights: AdapterWeights) -> Any:
    """Return the configuration of a computed adapter: its modules and ranks are what its tensors say."""
    from peft import LoraConfig

    known = {f.name for f in dataclasses.fields(LoraConfig)} - {"peft_type"}
    config = placed_by_tensors(weights.config, {k: t.shape for k, t in weights.tensors.items()})
    return LoraConfig(**{k: v for k, v in config.items() if k in known})


@attrs.frozen(eq=False)
class _Mark:
    """What shows that a tensor was replaced or written to: where it lies, its version, and a few of its numbers."""

    tensor: torch.Tensor
    place: int
    version: int
    sample: torch.Tensor

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Mark:
        flat = tensor.detach().reshape(-1) if tensor.is_contiguous() else tensor.detach()[:1].reshape(-1)
        return cls(tensor, tensor.data_ptr(), tensor._version, flat[:: max(1, flat.numel() // 16)].clone())


def _tensors(module: Any) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _marks(module: Any) -> list[_Mark]:
    return [_Mark.of(t) for t in _tensors(module)]


def _unchanged(module: Any, marks: Sequence[_Mark]) -> bool:
    """Return whether a module has all the tensors it had, with the content they had: milliseconds, whatever its size."""
    there = {id(t) for t in _tensors(module)}
    for mark in marks:
        now = _Mark.of(mark.tensor)
        if id(mark.tensor) not in there or (now.place, now.version) != (mark.place, mark.version):
            return False
        if not torch.equal(now.sample, mark.sample):
            return False
    return True
