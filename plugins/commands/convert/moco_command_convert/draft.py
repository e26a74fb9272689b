"""What a configuration becomes while its keys are read, and what can be done with a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from moco_core import ConfigError

__all__ = ["BOTH", "FOLDER", "PLACED", "SWARM", "Draft", "Further", "Rule", "Way", "batch", "count", "ignored", "to"]


@attrs.define
class Draft:
    """The options of the method and the models of the pool, as far as they are known, and remarks for the user."""

    members: tuple[str, ...]
    options: dict[str, Any] = attrs.field(factory=dict)
    models: list[Any] = attrs.field(factory=list)
    remarks: list[str] = attrs.field(factory=list)

    def helper(self, model: Any, key: str) -> str:
        """Return the name within the pool of a model that need be no member, and add it if it is none."""
        if not isinstance(model, str) or not model:
            raise ConfigError(f"{key}: expected a model, got {model!r}")
        if model not in self.models:
            self.models.append(model)
            self.remarks.append(f"{key}: {model} is added to the pool, where a method may let it answer, too")
        return model.rstrip("/").rpartition("/")[2]

    def member(self, model: Any, key: str, instead: str) -> str | None:
        """Return the name within the pool of a model that has to be a member; None, with a remark, if it is none."""
        if model in self.members:
            return self.helper(model, key)
        self.ignore(key, f"{model} is no member of the pool; {instead}")
        return None

    def ignore(self, key: str, why: str) -> None:
        self.remarks.append(f"{key}: ignored: {why}")


@attrs.frozen
class Rule:
    """What becomes of a key: an option, its value as it is or by ``values``; or nothing, and ``why``."""

    option: str = ""
    values: Mapping[Any, Any] | None = None
    why: str = ""

    def apply(self, key: str, value: Any, draft: Draft) -> None:
        if self.why:
            draft.ignore(key, self.why)
        elif self.values is None:
            draft.options[self.option] = value
        elif value in self.values:
            draft.options[self.option] = self.values[value]
        else:
            raise ConfigError(f"{key}: {value!r} is none of {', '.join(map(str, self.values))}")


Further = Callable[[Draft, dict[str, Any]], None]
"""Reads keys that only make sense together: takes out of the mapping what it has read."""


@attrs.frozen(kw_only=True)
class Way:
    """How the configuration of one method is read.

    ``starts`` are options with the value that the other library's own default stands for; ``decoding`` are options that its
    temperature and top_p decide.
    """

    name: str
    keys: Mapping[str, Rule] = {}
    starts: Mapping[str, Any] = {}
    decoding: Mapping[str, str] = {}
    further: Further | None = None
    tokens: int = 512


def to(option: str, values: Mapping[Any, Any] | None = None) -> Rule:
    return Rule(option, values)


def ignored(why: str) -> Rule:
    return Rule(why=why)


def count(key: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{key}: expected a whole number, got {value!r}")
    return value


def batch(draft: Draft, keys: dict[str, Any], size: str, steps: str, option: str) -> None:
    """Read rows at once and steps that are accumulated as the rows of an update."""
    if size in keys or steps in keys:
        draft.options[option] = count(size, keys.pop(size, 1)) * count(steps, keys.pop(steps, 16))


BOTH = {"temperature": "temperature", "top_p": "top_p"}
FOLDER = ignored("what is learnt lies in the run's folder and in MoCo's cache")
PLACED = ignored("devices are found by themselves")
SWARM: Mapping[str, Rule] = {
    name: to(name)
    for name in (
        "population",
        "max_iterations",
        "patience",
        "inertia",
        "cognitive_coeff",
        "social_coeff",
        "repel_coeff",
        "step_length",
        "step_length_factor",
        "minimum_step_length",
    )
}
"""The settings of a particle swarm, which are called alike."""
