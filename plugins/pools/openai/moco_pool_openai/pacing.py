"""Keeping within a server's limits, and within what the user wants to spend."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from moco_core.errors import ModelCallError

__all__ = ["Held", "Ledger", "Pacer", "Slot", "Spacer"]

_WINDOW = 60.0


class Held(Exception):
    """The server wants nothing for longer than a call has time; ``seconds`` is how long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Slot:
    """One request as the pacer counts it: when it was let through, and its tokens (first estimated, then corrected).

    ``held`` is how many seconds of its wait the server asked for.
    """

    __slots__ = ("at", "held", "tokens")

    def __init__(self, at: float, tokens: float, held: float = 0.0) -> None:
        self.at = at
        self.tokens = tokens
        self.held = held


class Spacer:
    """Keeps requests ``gap`` seconds apart, in the order they come. ``clock`` and ``sleep`` are for tests."""

    def __init__(
        self,
        gap: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.gap = gap
        self._clock, self._sleep = clock, sleep
        self._last = -math.inf

    async def turn(self) -> None:
        """Wait until the next request may start."""
        now = self._clock()
        self._last = max(now, self._last + self.gap)
        if self._last > now:
            await self._sleep(self._last - now)


class Pacer:
    """Lets requests through in order so that any 60 seconds hold at most ``rpm`` requests and ``tpm`` tokens.

    A request that alone exceeds ``tpm`` goes through when nothing else counts. ``patience`` is the longest wait in seconds
    that a server may ask for; one's own limits are no matter of patience. ``clock`` and ``sleep`` are for tests.
    """

    def __init__(
        self,
        rpm: float | None,
        tpm: float | None,
        *,
        patience: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.rpm, self.tpm, self.patience = rpm, tpm, patience
        self._clock, self._sleep = clock, sleep
        self._recent: deque[Slot] = deque()
        self._turn = asyncio.Lock()
        self._not_before = 0.0

    async def acquire(self, tokens: float) -> Slot:
        """Wait until a request of about ``tokens`` may be sent. Raises :class:`Held` at once if that asks too much patience."""
        held = 0.0
        async with self._turn:
            while True:
                if (wait := self._not_before - self._clock()) > 0:
                    if held + wait > self.patience:
                        raise Held(wait)
                    held += wait
                elif (wait := self._wait(tokens)) <= 0:
                    break
                await self._sleep(wait)
            slot = Slot(self._clock(), tokens, held)
            if self.rpm is not None or self.tpm is not None:
                self._recent.append(slot)
            return slot

    def hold(self, seconds: float) -> None:
        """Let nothing through for a while: the server said so (Retry-After)."""
        self._not_before = max(self._not_before, self._clock() + seconds)

    def _wait(self, tokens: float) -> float:
        now = self._clock()
        while self._recent and self._recent[0].at <= now - _WINDOW:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        until = 0.0
        if self.rpm is not None and len(self._recent) + 1 > self.rpm:
            until = self._recent[len(self._recent) - int(self.rpm)].at + _WINDOW  # until that one has left
        if self.tpm is not None:
            used = sum(s.tokens for s in self._recent)
            for slot in self._recent:
                if used + tokens <= self.tpm:
                    break
                used -= slot.tokens
                until = max(until, slot.at + _WINDOW)
        return max(0.0, until - now)


class Ledger:
    """What was spent, and whether more may be. Money is in the currency of the prices.

    A call sets aside what it may cost at most; one that does not fit waits while others that are under way may turn out
    cheaper, and is refused when none is. So a budget is used up, and is not overdrawn by calls that run together.
    """

    def __init__(self, money: float | None, tokens: int | None) -> None:
        self.limit_money, self.limit_tokens = money, tokens
        self.money = 0.0
        self.tokens = 0
        self._held: list[tuple[float, float]] = []
        self._changed = asyncio.Condition()

    def _fits(self, money: float, tokens: float) -> bool:
        more_money = self.money + sum(m for m, _ in self._held) + money
        more_tokens = self.tokens + sum(t for _, t in self._held) + tokens
        return (self.limit_money is None or more_money <= self.limit_money) and (
            self.limit_tokens is None or more_tokens <= self.limit_tokens
        )

    @asynccontextmanager
    async def hold(self, money: float, tokens: float) -> AsyncIterator[None]:
        """Set an amount aside while a call is under way. Raises ModelCallError if the budget does not allow it."""
        if self.limit_money is None and self.limit_tokens is None:
            yield
            return
        async with self._changed:
            while not self._fits(money, tokens):
                if not self._held:
                    raise ModelCallError(self._refusal(money, tokens))
                await self._changed.wait()
            mine = (money, tokens)
            self._held.append(mine)
        try:
            yield
        finally:
            async with self._changed:
                self._held.remove(mine)
                self._changed.notify_all()

    def _refusal(self, money: float, tokens: float) -> str:
        said = []
        if self.limit_money is not None:
            said.append(f"{self.money:.6g} of {self.limit_money:g} spent, this call may cost {money:.6g}")
        if self.limit_tokens is not None:
            said.append(f"{self.tokens} of {self.limit_tokens} tokens used, this call may use {tokens:.0f}")
        return (
            f"the pool's budget is used up ({'; '.join(said)}); finished calls are kept: raise the pool option budget or "
            "budget_tokens and run again to go on"
        )

    def spend(self, money: float, tokens: int) -> None:
        """Book what a reply really cost."""
        self.money += money
        self.tokens += tokens
