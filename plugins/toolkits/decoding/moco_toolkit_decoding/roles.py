"""Two models with a part each, named by name or index, and whether they exchange token ids or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moco_core.errors import ConfigError
from moco_core.models import Model, Pool

__all__ = ["exchange_ids", "role_problems", "two_roles"]


def two_roles(pool: Sequence[Model], named: Mapping[str, str | int]) -> tuple[int, int]:
    """Return the pool's indices of two roles, ``{role: name or index}``.

    Raises ConfigError, beginning with the role, if there is no such model or both are the same one.
    """
    whole = Pool(pool)
    first, second = (list(whole).index(whole.named(name, role)) for role, name in named.items())
    if first == second:
        one, other = named
        raise ConfigError(f"{other}: {whole[first].name!r} is the {one} model too; name another one")
    return first, second


def role_problems(pool: Sequence[Model], named: Mapping[str, str | int]) -> list[str]:
    """Return what :func:`two_roles` would raise, for a capability check."""
    try:
        two_roles(pool, named)
    except ConfigError as error:
        return list(error.problems)
    return []


def exchange_ids(models: Sequence[Model]) -> bool:
    """Return whether token ids can be handed over as they are: all models ``step``, with one tokenizer."""
    from moco_toolkit_decoding.compatibility import report

    return all(m.can("step") for m in models) and report(models).relation == "same"
