"""A limit to what a benchmark spends now. What the cache answers is free."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import IO, Any

from moco_core.errors import BudgetReached, ConfigError
from moco_core.models import Model
from moco_core.runtime.ledger import money_of
from moco_core.types import Usage

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([kM]?)\s*(tokens)?", re.ASCII)


class Budget:
    """Money at list price, or tokens read and written: ``2.50``, ``500k tokens``. Raises ConfigError for anything else.

    All processes that are given one file ``shared`` keep to one limit together.
    """

    def __init__(self, text: str, shared: Path | None = None) -> None:
        found = _FORM.fullmatch(text.strip())
        if not found or (found[2] and not found[3]):
            raise ConfigError(f"budget: expected money or tokens, such as 2.50 or '500k tokens', got {text!r}")
        self.tokens = bool(found[3])
        self.limit = float(found[1]) * {"": 1, "k": 1e3, "M": 1e6}[found[2]]
        self.spent = 0.0
        self.text = text.strip()
        self._shared, self._read = shared, 0
        self._file: IO[bytes] | None = None

    def pay(self, model: Model, usage: Usage, value: Any = None) -> None:
        """Take what work just made costs; what it costs is unknown at times, and taken for nothing.

        Raises BudgetReached once the limit is reached: what is under way by then is done and kept.
        """
        money = 0.0 if self.tokens else money_of(model, usage, value) or 0.0
        self._take(usage.prompt_tokens + usage.completion_tokens if self.tokens else 0.0 if math.isnan(money) else money)
        if self.spent >= self.limit:
            spent = f"{self.spent:,.0f} tokens" if self.tokens else f"{self.spent:.6g}"
            raise BudgetReached(
                f"the budget of {self.text} is used up ({spent}); what was answered is kept: run the same command again with "
                "a further --budget to go on"
            )

    def _take(self, cost: float) -> None:
        if self._shared is None:
            self.spent += cost
            return
        if self._file is None:
            self._shared.parent.mkdir(parents=True, exist_ok=True)  # on a machine that shares no disk, a limit of its own
            self._file = self._shared.open("a+b", buffering=0)
        self._file.write(f"{cost!r}\n".encode())  # lines are appended whole: no lock is needed
        self._file.seek(self._read)
        lines, end, _ = self._file.read().rpartition(b"\n")
        self._read += len(lines + end)
        self.spent += math.fsum(map(float, lines.split()))
