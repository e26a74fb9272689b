"""What a search keeps in memory between two candidates: running sums and thinned task vectors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

__all__ = ["Workspace", "quarter_of_memory"]


class Workspace:
    """Tensors that several candidates share, bounded in bytes; the longest unused leave first.

    It changes no result: whatever is not here is computed again, so that another process has one of its own. A limit of 0
    keeps nothing.
    """

    by_identity: ClassVar[bool] = True

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.size = 0
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._small: dict[Hashable, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Workspace, (self.limit,)

    def keep(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the tensor of that key, computing it if it is not here. The result must not be changed."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = compute()
        bytes_ = value.numel() * value.element_size()
        if bytes_ > self.limit:
            return value
        while self.size + bytes_ > self.limit:
            _, old = self._kept.popitem(last=False)
            self.size -= old.numel() * old.element_size()
        self._kept[key] = value
        self.size += bytes_
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._small.clear()
        self.size = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._small

    def remember(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Like :meth:`keep` for small values that are no tensors; these always stay."""
        if key in self._small:
            return self._small[key]
        value = compute()
        if self.limit:
            self._small[key] = value
        return value


def quarter_of_memory() -> int:
    """Return a quarter of the memory that is free now, in bytes; 1 GiB where that cannot be told."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024 // 4
    except OSError:
        pass
    return 1 << 30
