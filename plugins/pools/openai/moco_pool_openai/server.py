"""One server: where it is, who we are to it, what it can do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from moco_core.errors import ConfigError, suggest
from moco_pool_openai.attempts import Damaged
from moco_pool_openai.dialects import DIALECTS, Dialect
from moco_pool_openai.memory import ServerMemory
from moco_pool_openai.pacing import Pacer, Spacer

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from moco_pool_openai.pool import Entry, Options

__all__ = ["HOSTED", "Place", "Server", "place_of"]

HOSTED = "https://api.openai.com/v1"

_SPACING = 0.001
"""Seconds between two requests. Sent in one burst, they are answered in one burst, and each waits while all are read."""

_CONNECTIONS = 16
"""Most connections of one client. It looks at all it has for every request: with 64, that is a third of a request's cost."""

_UNSAID = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
"""What the client tells every server about this machine by itself: no server needs it, and each header costs time."""


@attrs.frozen
class Place:
    """Where a model is: an address, and the name of the variable with the key (never the key)."""

    base_url: str
    api_key_env: str


def place_of(options: Options, entry: Entry) -> Place:
    """Return where an entry's model is."""
    base = entry.base_url or options.base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED
    return Place(base.rstrip("/"), entry.api_key_env or options.api_key_env)


class Server:
    """A connection. ``key`` stays in here: messages pass :meth:`clean` before anybody sees them."""

    def __init__(self, place: Place, options: Options, memory: ServerMemory) -> None:
        self.place, self.options, self.memory = place, options, memory
        self.pacer = Pacer(options.rpm, options.tpm)
        self.dialect: Dialect = DIALECTS["openai" if options.dialect == "auto" else options.dialect]
        given = "" if options.api_key == "***" else options.api_key  # masked when a run was recorded
        own = place.api_key_env == options.api_key_env
        self._key = os.environ.get(place.api_key_env, "") or (given if own else "")
        self.listed: tuple[str, ...] | None = None
        self._clients: list[AsyncOpenAI] = []
        self._busy: list[int] = []
        self._spacer = Spacer(_SPACING)

    # ---------------------------------------------------------------- connection

    def _client(self) -> int:
        """Return the number of the client with the fewest requests under way; a new one if all have their share."""
        if self._busy and min(self._busy) < _CONNECTIONS:
            return min(range(len(self._busy)), key=self._busy.__getitem__)
        try:
            from openai import AsyncOpenAI, Omit, Timeout
        except ImportError as error:
            raise ConfigError(f"the openai pool needs the package openai ({error}); pip install openai") from None
        unsaid: Any = {f"X-Stainless-{name}": Omit() for name in _UNSAID}
        client = AsyncOpenAI(
            base_url=self.place.base_url,
            api_key=self._key or "none",  # servers of one's own take any
            organization=None,
            max_retries=0,  # attempts are made, counted and paced here
            default_headers=unsaid,
            timeout=Timeout(self.options.timeout, connect=min(self.options.timeout, 20.0)),
        )
        self._clients.append(client)
        self._busy.append(0)
        return len(self._busy) - 1

    async def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one request and return the reply's JSON object as it is.

        The client's typed methods would copy request and reply field by field, at a third of a request's cost, and what is
        read here goes beyond their fields anyway.
        """
        await self._spacer.turn()
        number = self._client()
        self._busy[number] += 1
        try:
            reply: Any = await self._clients[number].post(path, cast_to=object, body=body)
        finally:
            self._busy[number] -= 1
        if not isinstance(reply, Mapping):
            raise Damaged("the server's reply is no JSON object")
        return reply

    async def close(self) -> None:
        clients, self._clients, self._busy = self._clients, [], []
        for client in clients:
            with contextlib.suppress(Exception):
                await client.close()

    def clean(self, text: str) -> str:
        """Return one line of a message, without the key."""
        line = " ".join(text.split())
        if self._key:
            line = line.replace(self._key, "***")
        return line if len(line) <= 300 else line[:297] + "..."

    # ---------------------------------------------------------------- what it is and can do

    async def look(self) -> None:
        """Ask the server for its models. Raises ConfigError with one line: no server, no trust, no key.

        A server without a list of models is taken at its word.
        """
        import openai

        if self.place.base_url == HOSTED and not self._key:
            raise ConfigError(
                f"pool openai: no key for {HOSTED}; set the environment variable {self.place.api_key_env}"
            )
        if not self.options.check:
            return
        try:
            listed = [m.model_dump() for m in (await self._clients[self._client()].models.list()).data]
        except (openai.NotFoundError, openai.BadRequestError, openai.UnprocessableEntityError):
            return
        except openai.APIStatusError as error:
            if error.status_code in (405, 408, 429) or error.status_code >= 500:
                return  # no list, or not now: the first request shows what is wrong, and is repeated where that helps
            raise self.problem(error) from None
        except openai.APIConnectionError as error:
            raise self.problem(error) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"pool openai: {self.place.base_url} does not speak the OpenAI API ({self.clean(str(error))}); check base_url, "
                "it usually ends in /v1"
            ) from None
        self.listed = tuple(str(m.get("id")) for m in listed)
        if self.options.dialect == "auto":
            owners = [str(m.get("owned_by") or "").lower() for m in listed]
            self.dialect = next((DIALECTS[o] for o in owners if o in DIALECTS), self.dialect)

    def lacks(self, model: str, name: str) -> str:
        """Return one line if the server is known not to have a model, else nothing."""
        if self.listed is None or model in self.listed:
            return ""
        have = ", ".join(self.listed[:8]) + (", ..." if len(self.listed) > 8 else "") or "none"
        return (
            f"pool openai: {self.place.base_url} does not list the model {model!r} (entry {name!r})"
            f"{suggest(model, self.listed)}; it has: {have}"
        )

    def problem(self, error: Exception) -> ConfigError:
        """Return what is wrong with the connection as a whole, in one line."""
        import openai

        at = self.place.base_url
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            env = self.place.api_key_env
            key = f"the key in {env}" if self._key else f"no key was given in {env}, and it"
            return ConfigError(f"pool openai: {at}: {key} was refused ({error.status_code}); check the key")
        if isinstance(error, openai.APIStatusError):
            return ConfigError(f"pool openai: {at} answers {error.status_code}: {self.clean(message_of(error))}")
        if isinstance(error, openai.APITimeoutError):
            return ConfigError(
                f"pool openai: {at} does not answer within {self.options.timeout:g} s; is the server up?"
            )
        cause = root_cause(error)
        if "certificate" in str(cause).lower() or "ssl" in type(cause).__name__.lower() or "SSL" in str(cause):
            return ConfigError(
                f"pool openai: {at}: the TLS connection failed ({self.clean(str(cause))}); check the address, or point "
                "SSL_CERT_FILE at the server's certificate authority"
            )
        return ConfigError(f"pool openai: no server at {at} ({self.clean(str(cause))}); start it, or correct base_url")


def root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain that says something."""
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
        if isinstance(seen, OSError) and str(seen):
            break
    return seen


def message_of(error: Any) -> str:
    """Return what a server said about a refusal."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        said = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(said, str) and said:
            return said
    return str(getattr(error, "message", "") or error)
