"""One server: the connection to it, and what it says of itself."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from moco_core.errors import ConfigError, suggest
from moco_pool_openai.dialects import DIALECTS, HOSTS, Dialect
from moco_pool_openai.endpoint import HOSTED, Endpoint, credentials_of
from moco_pool_openai.failures import Damaged, RequestFailed, Unreachable, failure_of, stated_failure
from moco_pool_openai.listing import Listing, listing_of
from moco_pool_openai.masking import mask
from moco_pool_openai.options import Options
from moco_pool_openai.pacing import Pacer, Spacer
from moco_pool_openai.reading import parsed

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Server"]

_SPACING = 0.001
"""Seconds between two requests. Sent in one burst, they are answered in one burst, and each waits while all are read."""

_CONNECTIONS = 16
"""Most connections of one client. It looks at all it has for every request: with 64, that is a third of a request's cost."""

_UNSAID = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
"""What the client tells every server about this machine by itself: no server needs it, and each header costs time."""

_LOGGERS = (
    "openai._base_client",
    *("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks"),
    *("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy", "httpcore2.socks"),
)
"""Loggers of the client that show, at level DEBUG, what a server sent: it may repeat the key."""

_WITHOUT_LIST = frozenset({400, 404, 405, 422, 501})
"""Statuses of servers that have no list of models."""

_log = logging.getLogger(__name__)


class Server:
    """A connection. The key stays in here: messages pass :meth:`clean` before anybody sees them."""

    def __init__(self, endpoint: Endpoint, options: Options) -> None:
        self.endpoint, self.options = endpoint, options
        self.pacer = Pacer(options.rpm, options.tpm, patience=options.deadline)
        stated = HOSTS.get(endpoint.host, "openai") if options.dialect == "auto" else options.dialect
        self.dialect: Dialect = DIALECTS[stated]
        self.listed: Listing | None = None
        self.introduced = ""  # the dialect that its list of models names
        self._credentials = credentials_of(options, endpoint)
        self._clients: list[AsyncOpenAI] = []
        self._busy: list[int] = []
        self._each: Any = {}
        self._spacer = Spacer(_SPACING)
        self._veil = _Veil(self._credentials.secrets)
        if self._credentials.spaces:
            _log.warning("pool openai: white space around the key in %s is left out", endpoint.api_key_env)

    # ---------------------------------------------------------------- connection

    def _client(self) -> int:
        """Return the number of the client with the fewest requests under way; a new one if all have their share."""
        if self._busy and min(self._busy) < _CONNECTIONS:
            return min(range(len(self._busy)), key=self._busy.__getitem__)
        try:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Omit, Timeout
        except ImportError as error:
            raise ConfigError(f"the openai pool needs the package openai ({error}); pip install openai") from None
        if not self._clients:
            for name in _LOGGERS:
                logging.getLogger(name).addFilter(self._veil)
        key, headers = self._credentials.key, self._credentials.headers
        extra: dict[str, Any] = {f"X-Stainless-{name}": Omit() for name in _UNSAID}
        extra |= {name: value.reveal() for name, value in headers.items()}
        if headers and not key and "authorization" not in {h.lower() for h in headers}:
            self._each = {"headers": {"Authorization": Omit()}}  # the client would send the key "none" beside them
        client = AsyncOpenAI(
            base_url=self.endpoint.base_url,
            api_key=key.reveal() or "none",  # servers of one's own take any
            organization=None,
            max_retries=0,  # attempts are made, counted and paced here
            default_headers=extra,
            default_query=dict(self.endpoint.query),
            timeout=Timeout(self.options.timeout, connect=min(self.options.timeout, 20.0)),
            # the library keeps the key to itself where a server sends it on to another one, but not other headers
            http_client=DefaultAsyncHttpxClient(follow_redirects=False) if headers else None,
        )
        self._clients.append(client)
        self._busy.append(0)
        return len(self._busy) - 1

    async def post(
        self, path: str, body: Mapping[str, Any], heard: Callable[[str], None] | None = None
    ) -> Mapping[str, Any]:
        """Send one request and return the reply's JSON object as it is; ``heard`` gets its body as it comes.

        Raises RequestFailed.
        """
        reply = await self._send("post", path, body, heard)
        if (failure := stated_failure(reply, instead=True)) is not None:
            raise failure
        if not isinstance(reply, Mapping):
            raise Damaged("the server's reply is no JSON object")
        return reply

    async def _send(
        self,
        verb: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        heard: Callable[[str], None] | None = None,
    ) -> Any:
        """Return the JSON of a response.

        The client's typed methods would copy request and reply field by field, at a third of a request's cost, and what is
        read here goes beyond their fields anyway.
        """
        import openai

        await self._spacer.turn()
        number = self._client()
        client = self._clients[number]
        self._busy[number] += 1
        try:
            if verb == "get":
                return parsed(await client.get(path, cast_to=str, options=self._each))
            if heard is not None:
                return parsed(await self._listened(client, path, body, heard))
            return parsed(await client.post(path, cast_to=str, body=body, options=self._each))
        except openai.APIStatusError as error:
            raise failure_of(error.status_code, error.response.text, error.response.headers) from None
        except openai.APITimeoutError:
            raise Unreachable("", silent=True) from None
        except openai.APIConnectionError as error:
            cause = _root_cause(error)
            said = str(cause) or type(cause).__name__
            trust = "certificate" in said.lower() or "ssl" in f"{type(cause).__name__}{said}".lower()
            raise Unreachable(said, trust=trust) from None
        except UnicodeEncodeError:
            raise RequestFailed(
                "the prompt holds half of a surrogate pair, which no request can hold; mend the data"
            ) from None
        finally:
            self._busy[number] -= 1

    async def _listened(self, client: AsyncOpenAI, path: str, body: Any, heard: Callable[[str], None]) -> str:
        """Return the text of a response whose parts are handed on as they come. Raises what the client raises."""
        from openai import AsyncStream

        stream = await client.post(
            path, cast_to=object, body=body, options=self._each, stream=True, stream_cls=AsyncStream[object]
        )
        parts = []
        try:
            async for part in stream.response.aiter_text():
                parts.append(part)
                heard(part)
        except Exception as error:  # in the middle of a body, the library below the client speaks for itself
            silent = isinstance(error, TimeoutError) or "Timeout" in type(error).__name__
            raise Unreachable(str(error) or type(error).__name__, silent=silent) from None
        finally:
            await stream.close()
        return "".join(parts)

    async def close(self) -> None:
        clients, self._clients, self._busy = self._clients, [], []
        for client in clients:
            with contextlib.suppress(Exception):
                await client.close()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._veil)

    def clean(self, text: str) -> str:
        """Return one line of a message, without the key and without what steers a terminal."""
        shown = "".join(c if c.isprintable() else " " for c in text[:5000])
        line = mask(" ".join(shown.split()), self._credentials.secrets)
        return line if len(line) <= 300 else line[:297] + "..."

    def tells(self, text: str) -> bool:
        """Return whether a text that a server sent holds the key: it may repeat what it was sent."""
        return any(len(secret.reveal()) >= 8 and secret.reveal() in text for secret in self._credentials.secrets)

    def hide(self, text: str) -> str:
        """Return a text that is kept as it is, but without the key."""
        return mask(text, self._credentials.secrets) if self.tells(text) else text

    def hide_begun(self, text: str) -> str:
        """Return the beginning of a text without the key, and without an end that may become it."""
        for key in (secret.reveal() for secret in self._credentials.secrets):
            sizes = range(len(key) - 1, 3, -1)
            text = text[: len(text) - next((n for n in sizes if text.endswith(key[:n])), 0)]
        return self.hide(text)

    # ---------------------------------------------------------------- what it is and can do

    async def fetch_info(self) -> None:
        """Ask the server for its models. Raises RequestFailed, or ConfigError where the key that it needs is missing.

        A server without a list of models is taken at its word.
        """
        if self.endpoint.base_url == HOSTED and not self._credentials.key:
            raise ConfigError(
                f"pool openai: no key for {HOSTED}; set the environment variable {self.endpoint.api_key_env}"
            )
        if not self.options.check:
            return
        try:
            body = await self._send("get", "/models")
        except RequestFailed as failure:
            if failure.status in _WITHOUT_LIST and not failure.bad_key:
                return
            raise
        if (stated := stated_failure(body)) is not None:
            raise stated
        self.listed = listing_of(body)
        if self.listed is not None and self.options.dialect == "auto":
            owner = next((o for o in self.listed.owners if o in DIALECTS), None)
            self.introduced = owner or ""
            self.dialect = DIALECTS[owner] if owner else self.dialect

    def lacks(self, model: str, name: str) -> str:
        """Return one line if the server is known not to have a model, else nothing."""
        listed = self.listed
        if listed is None or not listed.complete or listed.has(model):
            return ""
        have = ", ".join(listed.ids[:8]) + (", ..." if len(listed.ids) > 8 else "") or "none"
        return self.clean(
            f"pool openai: {self.endpoint.base_url} does not list the model {model!r} (entry {name!r})"
            f"{suggest(model, listed.ids)}; it has: {have}"
        )

    def problem(self, failure: RequestFailed) -> ConfigError:
        """Return what is wrong with the connection as a whole, in one line."""
        at = self.endpoint.base_url
        said = self.clean(failure.said)
        if failure.bad_key or failure.status == 403:
            env = self.endpoint.api_key_env
            key = f"the key in {env}" if self._credentials.key else f"no key was given in {env}, and it"
            words = f": {said}" if failure.status != 401 else ""
            return ConfigError(f"pool openai: {at}: {key} was refused ({failure.status}{words}); check the key")
        if failure.status is not None:
            return ConfigError(f"pool openai: {at} answers {failure.status}: {said}")
        if isinstance(failure, Damaged) or not isinstance(failure, Unreachable):
            return ConfigError(
                f"pool openai: {at} does not speak the OpenAI API ({said}); check base_url, it usually ends in /v1"
            )
        if failure.silent:
            return ConfigError(
                f"pool openai: {at} does not answer within {self.options.timeout:g} s; is the server up?"
            )
        if failure.trust:
            return ConfigError(
                f"pool openai: {at}: the TLS connection failed ({said}); check the address, or point SSL_CERT_FILE at the "
                "server's certificate authority"
            )
        return ConfigError(f"pool openai: no server at {at} ({said}); start it, or correct base_url")


class _Veil(logging.Filter):
    """Masks secrets in what the client's libraries log."""

    def __init__(self, secrets: Any) -> None:
        super().__init__()
        self._secrets = secrets

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = mask(record.getMessage(), self._secrets), None
        return True


def _root_cause(error: BaseException) -> BaseException:
    """Return the first error of a chain that says something."""
    seen = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
        if isinstance(seen, OSError) and str(seen):
            break
    return seen
