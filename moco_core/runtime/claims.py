"""Several processes on one cache: what one is making, the others wait for instead of making it again."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping

from moco_core.models import Call
from moco_core.runtime.cache import Cache

LEASE = 15.0
"""Seconds for which a process claims the calls it makes, renewed while it lives: one that was killed blocks nobody longer."""

_LOOK = 0.1
"""Seconds between two looks at the calls that another process is making."""


class Claims:
    """The claims of one process. ``elsewhere`` are the calls it waits for because another process is making them."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._owner = uuid.uuid4().hex
        self.elsewhere: dict[bytes, Call] = {}

    def claim(self, calls: Mapping[bytes, Call]) -> set[bytes]:
        """Claim calls; return the keys of those that another process is making. Raises StoreError."""
        others = self._cache.claim(list(calls), self._owner, LEASE)
        self.elsewhere |= {key: calls[key] for key in others}
        return others

    def release(self, keys: Iterable[bytes]) -> None:
        """Give up calls that failed or were not made; never raises, since claims expire by themselves."""
        with contextlib.suppress(Exception):
            self._cache.release(list(keys), self._owner)

    async def watch(
        self,
        own: Mapping[bytes, Call],
        look: Callable[[Mapping[bytes, Call]], object],
        take: Callable[[Iterable[Call]], object],
    ) -> None:
        """Renew the claims on the calls ``own`` while there are any, and mind those made elsewhere.

        ``look`` delivers what has been stored meanwhile; ``take`` gets the calls that were given up there. Raises StoreError.
        """
        renewed = asked = time.monotonic()
        while own:
            await asyncio.sleep(_LOOK if self.elsewhere else LEASE / 3)
            now = time.monotonic()
            if now - renewed >= LEASE / 3:
                renewed = now
                self._cache.claim([key for key in own if key not in self.elsewhere], self._owner, LEASE)
            if not self.elsewhere:
                continue
            look(dict(self.elsewhere))
            if now - asked >= 10 * _LOOK:
                asked = now
                waited = dict(self.elsewhere)
                self.elsewhere.clear()
                others = self.claim(waited)
                take(call for key, call in waited.items() if key not in others)
