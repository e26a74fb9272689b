"""What mergekit does, in a process of its own: read a configuration, and write the merged checkpoint.

Its libraries cannot be imported safely beside an engine that imports them too, and it draws by generators of the process.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from pydantic import ValidationError

from moco_core import ConfigError
from moco_method_mergekit.configuration import Configuration

__all__ = ["RESULT", "Merge", "perform"]

RESULT = "mergekit.json"


class _Ordered(MergeConfiguration):  # type: ignore[misc]  # mergekit has no types
    """mergekit takes configuration and tokenizer of the base, or else of any model: here, of the first that is named."""

    def referenced_models(self) -> list[ModelReference]:
        order = str(self.model_dump(mode="json"))

        def place(model: ModelReference) -> int:
            return order.find(model.model.path)

        return sorted(super().referenced_models(), key=lambda m: (place(m), str(m)))


class Merge:
    """A configuration with the folders of the models it names: checkpoint and adapter (an empty text for none)."""

    def __init__(self, configuration: Configuration, paths: Mapping[str, tuple[str, str]]) -> None:
        self.configuration = configuration
        self.paths = paths

    @property
    def unknown(self) -> list[str]:
        """The keys that mergekit does not read."""
        return [str(k) for k in self.configuration.data if k not in MergeConfiguration.model_fields]

    def parsed(self) -> MergeConfiguration:
        """Return what mergekit makes of it. Raises ConfigError with the place."""

        def form(name: str, place: str) -> dict[str, Any]:
            model, lora = self.paths[name]
            return {"model": {"path": model}, **({"lora": {"path": lora}} if lora else {})}

        data = self.configuration.translated(form)
        try:
            parsed: _Ordered = _Ordered.model_validate(data)
            return parsed
        except Exception as error:
            raise self._told(error) from error

    def write(self, folder: Path, seed: int) -> None:
        """Write the merged checkpoint to a new folder; random methods draw by ``seed``. Raises ConfigError. Blocking."""
        parsed = self.parsed()
        with tempfile.TemporaryDirectory() as loras, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                run_merge(parsed, str(folder), MergeOptions(quiet=True, write_model_card=False, lora_merge_cache=loras))
            except Exception as error:
                if isinstance(error, MemoryError) or getattr(error, "errno", None):  # a full disk, say
                    raise
                raise self._told(error) from error
        if not (folder / "tokenizer_config.json").is_file():  # mergekit logs that, and goes on
            key = "chat_template" if "chat_template" in self.configuration.data else "base_model"
            raise ConfigError(
                f"{self.configuration.at(self.configuration.existing([key]))}: mergekit could not write a tokenizer for "
                "the merge; name one with 'tokenizer_source', and check 'chat_template'"
            )

    def _told(self, error: Exception) -> ConfigError:
        """Return an error of mergekit's as one line, models called as the configuration calls them."""
        configuration = self.configuration
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            text, path, given = str(first["msg"]), list(first["loc"]), first["input"]
            if not path:  # a parameter's value, read while merging
                return ConfigError(
                    f"{configuration.at(configuration.place_of(given.__eq__))}: mergekit: {text}, got {given!r}"
                )
            text = f"{path[-1]!r} is missing" if first["type"] == "missing" else text
            return ConfigError(f"{configuration.at(configuration.existing(path))}: mergekit: {text}")
        text = " ".join(str(error).split()) or type(error).__name__
        told = max(
            (n for n, paths in self.paths.items() if paths[0] in text), key=lambda n: len(self.paths[n][0]), default=""
        )

        def mentioned(value: str) -> bool:
            if told or value in self.paths:
                return value == told
            return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None

        place = configuration.place_of(mentioned)
        for name, (model, _) in sorted(self.paths.items(), key=lambda item: -len(item[1][0])):
            text = text.replace(model, name)
        return ConfigError(f"{configuration.at(place)}: mergekit: {text}")


def perform(task: Mapping[str, Any], folder: Path) -> None:
    """Write the merge to ``folder / "model"`` and what is to be told of it to the file ``RESULT`` there."""
    file = Path(task["file"]) if task["file"] else None
    merge = Merge(Configuration(data=task["data"], file=file, lines=task["lines"]), task["paths"])
    told: dict[str, Any] = {"unknown": merge.unknown}
    try:
        merge.write(folder / "model", task["seed"])
    except ConfigError as error:
        told["error"] = str(error)
    (folder / RESULT).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    perform(json.load(sys.stdin), Path(sys.argv[1]))
