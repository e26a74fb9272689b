"""Options as they are shown to people: what ``moco show`` prints and READMEs hold."""

from __future__ import annotations

import typing
from typing import Any

import attrs

from moco_core.building import default_of, type_text
from moco_core.fields import info_of


@attrs.frozen(kw_only=True)
class OptionInfo:
    """One option as it is shown to people. ``plugin`` is the kind of the plugins it holds, if it holds any."""

    name: str
    type: str
    default: Any
    required: bool
    range: str
    help: str
    paper: str
    plugin: str = ""


def describe(cls: type) -> list[OptionInfo]:
    """Return the options of a plugin's class, in declaration order.

    The further keys of sections that hold plugins follow their option, as ``pools[].prefix``.
    """
    hints = typing.get_type_hints(cls)
    out: list[OptionInfo] = []
    for field in attrs.fields(cls):
        info, hint = info_of(field), hints[field.name]
        slot = info.slot
        required = field.default is attrs.NOTHING
        out.append(
            OptionInfo(
                name=field.name,
                type=type_text(hint, slot),
                default=None if required else default_of(field, slot),
                required=required,
                range=info.range,
                help=info.help,
                paper=info.paper,
                plugin=slot.kind if slot else "",
            )
        )
        if slot is not None:
            place = {"list": "[]", "mapping": ".*"}.get(type_text(hint).partition(" ")[0], "")
            out += [attrs.evolve(o, name=f"{field.name}{place}.{o.name}") for o in describe(slot.further)]
    return out
