"""One model on several devices at once: who answers which of its calls.

The model has a home, the device of its group, and replicas elsewhere. The home takes calls as if it were alone; when more
wait than its batch holds, a replica is opened in a thread of its own and the calls are divided evenly among those that are
open. A reply depends on its call alone, so it does not matter who writes it. Private calls (sessions, whose caches live with
one copy of the weights) stay at home.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco_core.errors import EngineOutOfMemory
from moco_core.models import Call, Inbox

__all__ = ["ReplicaInbox", "ReplicaSet"]

_POLL = 0.02
"""Seconds after which the home, out of work, looks again whether calls came while the replicas are busy."""

_ANYWHERE = ("generate", "score", "embed", "reward")
"""Kinds of calls that depend on nothing but themselves."""

_log = logging.getLogger(__name__)


class ReplicaInbox:
    """One device's part of a model's calls; an :class:`~moco_core.models.Inbox` for whoever serves there."""

    def __init__(self, replica_set: ReplicaSet, device: str) -> None:
        self.replica_set, self.device = replica_set, device
        self.taken: dict[int, Call] = {}
        self.most: int = replica_set.batch
        self.open = False  # the weights are there and it takes calls
        self.busy = False  # a thread works for it
        self.lost = False  # it failed: not asked again in this run
        self.full = False  # its device had no room: not asked again before the next turn

    @property
    def waiting(self) -> int:
        return self.replica_set.room(self)

    @property
    def demand(self) -> Mapping[str, int]:
        return self.replica_set.inbox.demand

    @property
    def limit(self) -> int:
        return max(1, min(self.most, self.replica_set.inbox.limit))

    @property
    def cancelled(self) -> bool:
        return self.replica_set.inbox.cancelled

    def take(self, n: int | None = None) -> list[Call]:
        return self.replica_set.take(self, n)

    def resolve(self, results: Sequence[tuple[Call, Any]]) -> None:
        with self.replica_set.lock:
            for call, _ in results:
                self.taken.pop(id(call), None)
            self.replica_set.inbox.resolve(results)

    def reject(self, call: Call, error: Exception) -> None:
        with self.replica_set.lock:
            self.taken.pop(id(call), None)
            self.replica_set.inbox.reject(call, error)


class ReplicaSet:
    """A model's home and its replicas. It lasts as long as the engine is open, so that what a device once could not hold is
    remembered; ``run`` serves one turn of the model.
    """

    inbox: Inbox

    def __init__(self, home: str, replicas: Sequence[str], batch: int, unwanted: Callable[[str], bool]) -> None:
        self.batch = batch
        self.lock = threading.RLock()
        self.home = ReplicaInbox(self, home)
        self.replicas = [ReplicaInbox(self, device) for device in replicas]
        self._unwanted = unwanted
        self._ended = threading.Condition(self.lock)
        self._back: collections.deque[Call] = collections.deque()  # given back by a device that could not answer them
        self._private: collections.deque[Call] = collections.deque()
        self._threads: list[threading.Thread] = []
        self._closing = False

    def run(self, inbox: Inbox, work: Callable[[ReplicaInbox], None]) -> None:
        """Serve until no call waits. ``work`` opens the model on a share's device, sets ``open``, and serves the share.

        Returns, or raises what the home's work raised, when every replica has ended: nothing is served after that.
        """
        self.inbox, self._work, self._closing = inbox, work, False
        self._back.clear()
        self._private.clear()
        self.home.taken.clear()
        for share in self.replicas:
            share.full = False
        try:
            while True:
                self._attempt(self.home)
                if not self._more():
                    return
        finally:
            with self.lock:
                self.home.open, self._closing = False, True
            for thread in self._threads:
                thread.join()
            self._threads.clear()

    def _more(self) -> bool:
        """Wait until the home has something to do again (True) or all replicas have ended and nothing is left (False)."""
        with self.lock:
            while not self.inbox.cancelled:
                if self._back or self._private:
                    return True
                if not any(s.busy for s in self.replicas):
                    return False
                if self.room(self.home):
                    return True
                self._ended.wait(_POLL)
        return False

    # ---------------------------------------------------------------- dividing the calls

    def room(self, share: ReplicaInbox) -> int:
        """How many of the waiting calls this share may take now."""
        with self.lock:
            if share is not self.home and (self._closing or self._unwanted(share.device)):
                return 0
            waiting = self.inbox.waiting + len(self._back)
            fair = max(0, min(self._parts().get(share, 0) - len(share.taken), waiting))
            return fair + (len(self._private) if share is self.home else 0)

    def take(self, share: ReplicaInbox, n: int | None = None) -> list[Call]:
        """Remove and return up to ``n`` of them, and see whether another device has to help."""
        with self.lock:
            room = self.room(share)
            count = room if n is None else min(n, room)
            calls: list[Call] = []
            for queue in (self._private, self._back) if share is self.home else (self._back,):
                while queue and len(calls) < count:
                    calls.append(queue.popleft())
            for call in self.inbox.take(count - len(calls)) if count > len(calls) else ():
                if share is not self.home and call.kind not in _ANYWHERE:
                    self._private.append(call)  # its session lives at home
                else:
                    calls.append(call)
            share.taken |= {id(c): c for c in calls}
            self._ask_for_help()
            return calls

    def _parts(self) -> dict[ReplicaInbox, int]:
        """How many calls each open share should have, those it has included: even, up to what each can hold."""
        replica_set = [s for s in self.replicas if s.open and not self._unwanted(s.device)]
        replica_set = sorted([self.home, *replica_set], key=lambda s: s.limit)  # stable: the home goes first
        total = self.inbox.waiting + len(self._back) + sum(len(s.taken) for s in replica_set)
        parts: dict[ReplicaInbox, int] = {}
        for i, share in enumerate(replica_set):
            parts[share] = min(share.limit, -(-total // (len(replica_set) - i)))
            total -= parts[share]
        return parts

    def _ask_for_help(self) -> None:
        """Start replicas for what the open devices cannot hold: a batch that fits into one is decoded faster as one."""
        waiting = self.inbox.waiting + len(self._back)
        beyond = waiting - sum(self.batch for s in self.replicas if s.busy and not s.open)
        for share in (self.home, *self.replicas):
            if share.open:
                beyond -= max(0, share.limit - len(share.taken))
        for share in self.replicas:
            if beyond <= 0 or self._closing or self.inbox.cancelled:
                return
            if share.busy or share.lost or share.full or self._unwanted(share.device):
                continue
            share.busy = True
            beyond -= share.limit
            thread = threading.Thread(
                target=self._help, args=(share,), name=f"moco-replica-{share.device}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    # ---------------------------------------------------------------- working

    def _attempt(self, share: ReplicaInbox) -> None:
        """Serve a share; what does not fit into memory is tried again in smaller batches, down to single calls."""
        while True:
            try:
                self._work(share)
                return
            except EngineOutOfMemory:
                if len(share.taken) <= 1:
                    raise
            with self.lock:
                share.most = max(1, min(share.most, len(share.taken)) // 2)
                self._give_back(share)

    def _help(self, share: ReplicaInbox) -> None:
        """A replica's thread. Whatever goes wrong here, its calls go home, where they are answered or fail."""
        try:
            self._attempt(share)
        except EngineOutOfMemory as error:
            share.full = True
            _log.info("no replica on %s for now: %s", share.device, error)
        except Exception as error:
            share.lost = True
            text = str(error).splitlines()
            _log.warning(
                "the replica on %s failed and is not used any more (%s: %s); its calls are answered on %s",
                share.device,
                type(error).__name__,
                text[0] if text else "",
                self.home.device,
            )
        finally:
            with self.lock:
                share.open = share.busy = False
                self._give_back(share)
                self._ended.notify_all()

    def _give_back(self, share: ReplicaInbox) -> None:
        self._back.extendleft(reversed(share.taken.values()))
        share.taken.clear()
