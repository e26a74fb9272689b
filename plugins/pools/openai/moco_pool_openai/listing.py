"""What a server says that it has: lists of models in the forms of all services known, and the names that mean one model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["Listing", "answers_for", "listing_of", "same_model"]

_VERSION = re.compile(r"(?:[-@:](?:latest|preview|exp|v?\d{3,}|\d\d-\d\d(?:-\d+)?|\d{4}-\d\d-\d\d))+$")


@attrs.frozen
class Listing:
    """The ids that a server lists, and who it says owns them. ``complete`` is False where there are more pages."""

    ids: tuple[str, ...]
    owners: tuple[str, ...]
    complete: bool = True

    def has(self, model: str) -> bool:
        """Whether a model is listed, under its id or one that means the same, or a dated version of it is."""
        return any(same_model(model, listed) or _bare(model) == _VERSION.sub("", _bare(listed)) for listed in self.ids)


def listing_of(body: Any) -> Listing | None:
    """Read a list of models: ``{"data": [...]}``, a bare list, ``{"models": [...]}``; None if it is no list of any kind."""
    found = body
    if isinstance(body, Mapping):
        found = next((body[k] for k in ("data", "models") if isinstance(body.get(k), list)), None)
    if not isinstance(found, list):
        return None
    ids: list[str] = []
    owners: list[str] = []
    for row in found:
        if isinstance(row, str):
            ids.append(row)
        elif isinstance(row, Mapping):
            name = next((row[k] for k in ("id", "name", "model") if isinstance(row.get(k), str)), None)
            more = row.get("aliases")
            ids += [n for n in (name, *(more if isinstance(more, list) else ())) if isinstance(n, str)]
            owners.append(str(row.get("owned_by") or "").lower())
    if found and not ids:
        return None
    complete = not (isinstance(body, Mapping) and (body.get("has_more") or body.get("nextPageToken")))
    return Listing(tuple(ids), tuple(owners), complete)


def same_model(asked: str, listed: str) -> bool:
    """Whether two ids mean one model: Ollama's tag ``:latest`` and Gemini's ``models/`` may be left out, a variant of
    OpenRouter's (``:free``, ``:nitro``) is the model that it is a variant of.
    """
    one, other = _bare(asked), _bare(listed)
    return one == other or ("/" in one and one.partition(":")[0] == other)


def _bare(name: str) -> str:
    return name.removeprefix("models/").removesuffix(":latest")


def answers_for(asked: str, served: str) -> bool:
    """Whether a reply under the name ``served`` is what was asked for: the same model, or a dated version of it."""
    return same_model(asked, served) or _undated(asked) == _undated(served)


def _undated(name: str) -> str:
    return _VERSION.sub("", _bare(name).lower().rpartition("/")[2].partition(":")[0])
