"""``-o key.path=value``: changes to a configuration before it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moco_core.cli.reading import read_value
from moco_core.errors import ConfigError, suggest
from moco_core.fields import Lines


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str], lines: Lines | None = None) -> dict[str, Any]:
    """Return ``data`` with ``key.path=value`` overrides applied; values are read as YAML. Raises ConfigError.

    A member of a list is meant by its place, from 0, or by its label or name: ``methods.debate.rounds=...``. A plugin
    given by name alone becomes a mapping when one of its options is overridden; ``method=debate`` replaces it, ``seed=1``
    replaces ``seeds`` too, and ``seeds=[0,1]`` a ``seed``. What is overridden is forgotten in ``lines``: it is no longer
    the file's.
    """
    out: dict[str, Any] = _copy(data)
    named = {text.partition("=")[0].strip() for text in overrides}
    for key, other in (("seed", "seeds"), ("seeds", "seed")):
        if key in named and other not in named:
            out.pop(other, None)
    for text in overrides:
        key, sign, raw = text.partition("=")
        if not sign or not key.strip():
            raise ConfigError(f"-o {text}: expected key=value, for example -o method.rounds=3")
        try:
            place = _put(out, key.strip().split("."), read_value(raw))
        except ConfigError as error:
            raise ConfigError(f"-o {text}: {error}") from None
        if lines is not None:
            lines.forget(place)
    return out


def _put(data: dict[str, Any], parts: Sequence[str], value: Any) -> str:
    """Set one value and return its dotted path."""
    first, several = parts[0], f"{parts[0]}s"
    if len(parts) > 1 and first not in data and isinstance(data.get(several), list):
        raise ConfigError(
            f"the configuration has {several}, a list; say which: {several}.{_members(data[several])[0]}..."
        )
    target: Any = data
    place = ""
    for depth, part in enumerate(parts):
        slot: Any = _index(target, part, place) if isinstance(target, list) else part
        place += f"[{slot}]" if isinstance(target, list) else f".{slot}" if place else part
        if depth == len(parts) - 1:
            target[slot] = value
            break
        child = target[slot] if isinstance(target, list) else target.get(slot)
        if isinstance(child, str):
            child = {"name": child}
        elif child is None:
            child = {}
        elif not isinstance(child, (dict, list)):
            raise ConfigError(f"{part} is a {type(child).__name__}, it has no keys")
        target[slot] = child
        target = child
    return place


def _index(members: Sequence[Any], part: str, place: str) -> int:
    """Return the place of a list's member that is meant by its place, its label or its name."""
    if part.isdecimal():
        if int(part) < len(members):
            return int(part)
        raise ConfigError(f"{place} has {len(members)} members, from 0: {', '.join(_members(members))}")
    for key in ("label", "name"):
        found = [i for i, m in enumerate(members) if (m.get(key) if isinstance(m, Mapping) else m) == part]
        if len(found) > 1:
            which = " or ".join(f"{place}.{i}" for i in found)
            raise ConfigError(f"{place} has {part} {len(found)} times; say which: {which}, or give them labels")
        if found:
            return found[0]
    known = _members(members)
    raise ConfigError(f"{place} has no {part!r}{suggest(part, known)} (there are: {', '.join(known)})")


def _members(members: Sequence[Any]) -> list[str]:
    return [
        str(m.get("label") or m.get("name") or i) if isinstance(m, Mapping) else str(m) for i, m in enumerate(members)
    ]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, (list, tuple)) else value
