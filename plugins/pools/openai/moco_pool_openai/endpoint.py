"""Where a model is, and who we are there: addresses, keys and headers, without asking anybody."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

import attrs

from moco_core import Secret
from moco_core.options import plain
from moco_pool_openai.checks import address_problem, strings
from moco_pool_openai.options import Entry, Options, entries_of

__all__ = ["HOSTED", "Endpoint", "credentials_of", "endpoint_of", "problems_with_credentials"]

HOSTED = "https://api.openai.com/v1"

_DEFAULT_VARIABLE = "OPENAI_API_KEY"
_BEARER = re.compile(r"[\x21-\x7e]+")
_HEADER = re.compile(r"[\x20-\x7e]+")
_WORTH_FINDING = 12
"""A key of fewer letters may stand in an option by chance."""


@attrs.frozen
class Endpoint:
    """Where a model is: an address, what always stands in its query, and the name of the variable with the key (never the
    key). ``named`` tells that the variable is the user's choice.
    """

    base_url: str
    query: tuple[tuple[str, str], ...]
    api_key_env: str
    named: bool = attrs.field(default=False, eq=False)

    @property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @property
    def address(self) -> str:
        """Address and query, as one text."""
        return self.base_url + "".join(f"{'&' if i else '?'}{k}={v}" for i, (k, v) in enumerate(self.query))


def endpoint_of(options: Options, entry: Entry) -> Endpoint:
    """Return where an entry's model is."""
    base = entry.base_url or options.base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED
    bare, _, query = base.partition("#")[0].partition("?")
    variable = entry.api_key_env or options.api_key_env
    pairs = tuple(parse_qsl(query, keep_blank_values=True))
    return Endpoint(bare.rstrip("/"), pairs, variable or _DEFAULT_VARIABLE, bool(variable))


@attrs.frozen
class Credentials:
    """What is sent to show who we are. ``key`` is empty where there is none; ``spaces`` tells that it had some around it.

    ``secrets`` is everything that no message may hold.
    """

    key: Secret
    headers: Mapping[str, Secret]
    secrets: tuple[Secret, ...]
    spaces: bool


def credentials_of(options: Options, endpoint: Endpoint) -> Credentials:
    """Return the key and the headers for an endpoint. A key that is given beats one that lies in the default variable."""
    named = {n: Secret(os.environ.get(t[1:], "").strip()) for n, t in options.headers.items() if t.startswith("$")}
    headers = {n: named.get(n) or Secret(t) for n, t in options.headers.items()}
    found = os.environ.get(endpoint.api_key_env, "")
    own = endpoint.named and endpoint.api_key_env != options.api_key_env  # an entry's
    if options.api_key and not own:
        found = options.api_key.reveal()
    elif named and not endpoint.named:
        found = ""  # the key stands in a header: nobody else's is sent beside it
    key = Secret(found.strip())
    return Credentials(key, headers, (key, *named.values()), found != found.strip())


def problems_with_credentials(options: Options) -> list[str]:
    """Return what is wrong with addresses, keys and headers, one line each, before anybody is asked."""
    problems = []
    if not options.base_url and (problem := address_problem(os.environ.get("OPENAI_BASE_URL", ""))):
        problems.append(f"OPENAI_BASE_URL: {problem}")
    for text in options.headers.values():
        if text.startswith("$"):
            problems += _unset(text[1:], "headers")
    keys: list[Secret] = []
    for index, entry in enumerate(entries_of(options)):
        endpoint = endpoint_of(options, entry)
        where = f"models[{index}].api_key_env" if entry.api_key_env else "api_key_env"
        credentials = credentials_of(options, endpoint)
        keys += credentials.secrets
        if endpoint.named and not credentials.key:
            problems += _unset(endpoint.api_key_env, where)
        source = "api_key" if options.api_key and not entry.api_key_env else _shown(endpoint.api_key_env)
        if credentials.key and not _BEARER.fullmatch(credentials.key.reveal()):
            problems.append(f"{source}: the key holds a character that no header may, within it; check how it was set")
        for name, value in credentials.headers.items():
            if value and not _HEADER.fullmatch(value.reveal()):
                problems.append(
                    f"headers: {name}: its value holds a character that no header may; check how it was set"
                )
    for path, text in strings({**plain(options), "headers": {}}):
        if any(len(key.reveal()) >= _WORTH_FINDING and key.reveal() in text for key in keys):
            problems.append(f"{path}: holds the key itself, and is kept in run folders; take it out")
    return list(dict.fromkeys(problems))


def _unset(variable: str, where: str) -> list[str]:
    if os.environ.get(variable, "").strip():
        return []
    return [f"{where}: the environment variable {_shown(variable)} is not set; set it to the key, or name another one"]


def _shown(variable: str) -> str:
    """Name a variable, unless its name may be a key that was given by mistake."""
    return variable if re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) else "that it names"
