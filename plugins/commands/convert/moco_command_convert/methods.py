"""The 29 methods of modelco 1.1.2: what each is called here, and what its hyperparameters mean.

The keys, their meaning and their defaults are those of the library's own user documentation.
"""

from __future__ import annotations

from collections.abc import Mapping

from moco_command_convert.api import API
from moco_command_convert.draft import Way
from moco_command_convert.merging import MERGING
from moco_command_convert.text import TEXT

__all__ = ["METHODS"]

METHODS: Mapping[str, Way] = {**API, **TEXT, **MERGING}
"""How each method's configuration is read, by the other library's name of it."""
