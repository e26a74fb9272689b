"""The server: one socket, connections that do not wait for ever, and an end that finishes what runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from moco_command_serve.limits import Limits
from moco_core import ConfigError

__all__ = ["Server", "is_loopback", "listen", "make_server"]

_HEAD = 16 << 10
"""Bytes that the head of a request may have."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises ConfigError if the port is in use or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(1024)  # a port that another process listens on is found here
    except (OSError, OverflowError) as error:
        found.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise ConfigError(f"port {port} of {host} is in use; choose another with --port") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}") from None
    return found


class Patient(H11Protocol):
    """HTTP/1.1 that closes a connection whose next head does not arrive in time, a byte every few seconds or not at all."""

    patience = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._timer is None:
            self._expect()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(self.patience, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Ends on SIGTERM, SIGINT or SIGHUP when what runs is finished, and at once on a second one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        caught = [number for number in numbers if before[number] is not signal.SIG_IGN]
        for number in caught:
            loop.add_signal_handler(number, self._end)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _end(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def make_server(app: ASGIApp, limits: Limits) -> Server:
    """Return a server for the application; run it with ``await server.serve([socket])``."""

    class Bounded(Patient):
        patience = limits.patience

    config: Any = uvicorn.Config(
        app,
        http=Bounded,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=max(1, round(limits.patience)),
        timeout_graceful_shutdown=round(limits.deadline) + 5,
        h11_max_incomplete_event_size=_HEAD,
    )
    return Server(config)
