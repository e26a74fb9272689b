"""What was found out about servers, remembered between runs: capabilities only, never addresses with keys, never keys."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from moco_core.types import digest

__all__ = ["ServerMemory"]


class ServerMemory:
    """One small JSON file per (address, model). A folder that cannot be written costs a question at the next start."""

    def __init__(self, folder: str = "") -> None:
        self.folder = Path(folder) if folder else _user_cache()

    def _path(self, base_url: str, model: str) -> Path:
        return self.folder / (digest("server", base_url, model)[:32] + ".json")

    def recall(self, base_url: str, model: str) -> dict[str, Any]:
        """Return what is known; an empty dict if nothing is."""
        try:
            known = json.loads(self._path(base_url, model).read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def note(self, base_url: str, model: str, **facts: Any) -> None:
        """Add facts to what is known."""
        path = self._path(base_url, model)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({**self.recall(base_url, model), **facts}, file)
            os.replace(name, path)
        except OSError:
            pass


def _user_cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "moco" / "servers"
