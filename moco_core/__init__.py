"""MoCo: several language models working as one.

``__init__.pyi`` lists the public names, once: they are all that a plugin author needs; ``moco_toolkit_authoring`` holds the
conformance checks. A name is imported when it is first used, so that ``moco --help`` and ``moco list`` stay quick.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Mapping
from typing import Any


@functools.cache
def _homes() -> Mapping[str, str]:
    """Return the module of every public name."""
    with open(os.path.join(__path__[0], "__init__.pyi"), encoding="utf-8") as file:
        stub = file.read()
    return {name: module for module, name in re.findall(r"^from ([\w.]+) import (\w+)", stub, re.MULTILINE)}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    home = None if name.startswith("_") else _homes().get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes()})
