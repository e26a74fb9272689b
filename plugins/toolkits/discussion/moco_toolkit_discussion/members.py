"""Who takes part: models named in options, and the roles they play."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from moco_core import ConfigError, Message, Model, Pool

__all__ = ["in_role", "model_problems"]


def in_role(before: Sequence[Message], role: str) -> tuple[Message, ...]:
    """Return the messages in front of a prompt with a role's description at the end of the system message.

    Without a system message the role becomes one; an empty role changes nothing.
    """
    role = role.strip()
    if not role:
        return tuple(before)
    if before and before[0].role == "system":
        return (Message("system", f"{before[0].content}\n\n{role}"), *before[1:])
    return (Message("system", role), *before)


def model_problems(pool: Sequence[Model], wanted: Iterable[str | int], where: str) -> list[str]:
    """Return one sentence for every name or index that is no model of the pool, ``where`` in front; for ``Needs.check``."""
    out: list[str] = []
    for name in wanted:
        try:
            Pool(pool).named(name, where)
        except ConfigError as error:
            out.extend(error.problems)
    return out
