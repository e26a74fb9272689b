"""What went wrong with a request: what the server said about it, and whether the same request may succeed later."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from moco_core.errors import ModelCallError
from moco_pool_openai.attempts import asked_in_words, renewed, retry_after, seconds

__all__ = [
    "Damaged",
    "RequestFailed",
    "Unreachable",
    "failure_of",
    "names_in",
    "retry_after",
    "stated_failure",
    "words_of",
]

_PASSING = frozenset({408, 409, 425, 429, 498})
_FINAL_CODES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error"}
)
_READ = r"\b(?:prompts?|inputs?(?! validation)|messages?|conversation|sequence)\b"
_SIZE = r"(?<!_)(?:tokens?|length)\b"  # max_tokens is what may be written
_OVER = (
    r"(?:exceed|too (?:long|large|many)|(?:long|larg|great)er than|(?:less|fewer) than|at most|<=|should be|must be|fit\b"
    r"|takes?\b|limit)"
)
_TOO_LONG = re.compile(
    r"context.?(length|window|size|limit)|maximum context|model_max_prompt|string_above_max_length|max_position_embeddings"
    r"|\bn_ctx\b|max(imum)?[ _](allowed |prompt|input|sequence|seq_|model)[ _\w]*len(gth)?\b|longer than the (model|maximum)"
    r"|(?<!image )(prompt|input|messages?|conversation|request)\b.{0,40}\b(is|are|was)?\s*too (long|large|many tokens)"
    rf"|{_READ}.{{0,60}}{_SIZE}.{{0,60}}{_OVER}|{_SIZE}.{{0,40}}{_READ}.{{0,40}}{_OVER}"
    rf"|{_READ}.{{0,30}}{_OVER}.{{0,30}}{_SIZE}"
    r"|exceeds?.{0,40}(token limit|number of tokens|context|model'?s? (limit|maximum))"
    r"|token limit exceeded|too many (input )?tokens|reduce (the length of )?(the|your) (prompt|input|messages)"
    r"|(输入|提示词?|上下文|文本).{0,16}(过长|太长|超)",
    re.IGNORECASE | re.DOTALL,
)
_WORDS = (
    *("error", "message", "detail", "details", "errors", "errormessage", "errormsg", "errordescription", "statusmsg"),
    *("faultstring", "fault", "baseresp", "reason", "title"),
)
"""Where servers explain themselves, in small letters."""
_TOO_FAST = re.compile(r"\bper (minute|hour|day)\b|\b[TR]P[MD]\b|rate.?limit", re.IGNORECASE)
_BAD_KEY = re.compile(
    r"api[ _-]?key (is )?(not valid|invalid|expired|not found)|(invalid|incorrect|expired)[ _]api[ _-]?key", re.I
)
_STATUS_WORDS = {
    "rate_limit": 429, "rate_limit_exceeded": 429, "rate_limit_error": 429, "resource_exhausted": 429,
    "overloaded_error": 529, "overloaded": 529, "server_error": 500, "internal_server_error": 500, "internal": 500,
    "api_error": 500, "unavailable": 503, "service_unavailable": 503, "unavailable_error": 503, "timeout": 504,
    "invalid_request_error": 400, "invalid_argument": 400, "badrequesterror": 400, "authentication_error": 401,
    "unauthenticated": 401, "permission_error": 403, "permission_denied": 403, "not_found_error": 404, "not_found": 404,
    "notfounderror": 404,
}  # fmt: skip


class RequestFailed(ModelCallError):
    """A request that came to nothing. ``said`` are the server's own words.

    ``status`` is the HTTP status, or the one that the reply's text states; None if there was no reply. ``wait`` is how many
    seconds the server asks to wait. ``passing`` tells whether the same request may succeed later.
    """

    def __init__(
        self, said: str, *, status: int | None = None, code: str = "", wait: float | None = None, passing: bool = False
    ) -> None:
        super().__init__(said)
        self.detail = ""
        self.said, self.status, self.code, self.wait, self.passing = said, status, code, wait, passing

    @property
    def too_long(self) -> bool:
        """The prompt does not fit the model."""
        said = f"{self.code} {self.said}"
        if self.status not in (400, 413, 422, 500) or (self.status == 413 and self.code.startswith("tokens")):
            return False
        return bool(_TOO_LONG.search(said)) and not _TOO_FAST.search(said)

    @property
    def bad_key(self) -> bool:
        return self.status == 401 or (self.status in (400, 403) and bool(_BAD_KEY.search(f"{self.code} {self.said}")))


class Damaged(RequestFailed):
    """A reply arrived, but is not what the API promises. ``detail`` is the reader's reason."""

    def __init__(self, said: str, detail: str = "") -> None:
        super().__init__(said, passing=True)
        self.detail = detail


class Unreachable(RequestFailed):
    """No reply arrived: no server, no trust, a lost connection, or silence (``silent``)."""

    def __init__(self, said: str, *, silent: bool = False, trust: bool = False) -> None:
        super().__init__(said, passing=True)
        self.silent, self.trust = silent, trust


def failure_of(status: int, text: str, headers: Mapping[str, str]) -> RequestFailed:
    """Return what a response that is no success says."""
    body = _data(text)
    code, _ = _code(body)
    said = words_of(body) or f"status {status}"
    wait = retry_after(headers)
    passing = (status in _PASSING or status >= 500) and code.lower() not in _FINAL_CODES
    if headers.get("x-should-retry") == "false":
        passing = False
    if wait is None:
        wait = _stated_wait(body, said)
    if wait is None:
        wait = renewed(headers)
    failure = RequestFailed(said, status=status, code=code, wait=wait, passing=passing)
    failure.passing &= not failure.too_long
    return failure


def stated_failure(reply: Any, *, instead: bool = False) -> RequestFailed | None:
    """Return the failure that the text of a response with status 200 states, if it does.

    Some services do not call it an error: with ``instead`` any words in place of what was asked for are one.
    """
    body = reply[0] if isinstance(reply, list) and reply else reply
    if not isinstance(body, Mapping):
        return None
    stated = body.get("error") or body.get("object") == "error"
    if instead and body is reply:
        stated = stated or (not body.get("choices") and not body.get("data") and words_of(body))
    if not stated:
        return None
    code, status = _code(body)
    said = words_of(body) or "an error without words"
    if status is None:  # an error that says nothing of its kind may pass
        status = 400 if _TOO_LONG.search(said) else None
    final = code.lower() in _FINAL_CODES or (status is not None and status not in _PASSING and 400 <= status < 500)
    return RequestFailed(said, status=status, code=code, wait=_stated_wait(body, said), passing=not final)


def words_of(body: Any, depth: int = 4) -> str:
    """Return what a server explains itself with, in any of the usual forms; the empty string if it says nothing."""
    if isinstance(body, str):
        return _plain_text(body)
    if depth == 0:
        return ""
    if isinstance(body, list):
        return "; ".join(dict.fromkeys(w for item in body[:5] if (w := words_of(item, depth - 1))))
    if not isinstance(body, Mapping):
        return ""
    if isinstance(body.get("msg"), str):  # one field of a form that was filled in wrongly
        place = (
            ".".join(str(p) for p in body.get("loc") or () if p != "body") if isinstance(body.get("loc"), list) else ""
        )
        return f"{place}: {body['msg']}" if place else str(body["msg"])
    out = ""
    named = {str(key).replace("_", "").lower(): value for key, value in body.items()}
    for key in _WORDS:
        if out := words_of(named.get(key), depth - 1):
            break
    if not out and isinstance(body.get("errors"), Mapping):
        out = "; ".join(f"{k}: {w}" for k, v in list(body["errors"].items())[:5] if (w := words_of(v, depth - 1)))
    more = body.get("error") if isinstance(body.get("error"), Mapping) else body
    raw = more.get("metadata") if isinstance(more, Mapping) else None
    if isinstance(raw, Mapping):  # a gateway: what the service behind it said
        inner = words_of(_data(str(raw.get("raw") or ""))) or words_of(raw.get("reasons"))
        if inner and inner not in out:
            out = f"{out}: {inner}" if out else inner
    return out


def names_in(said: str, names: Iterable[str]) -> list[str]:
    """Return those of the names that stand in a text as words of their own."""
    return [n for n in names if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", said)]


def _stated_wait(body: Any, said: str) -> float | None:
    """Return the wait that a message asks for in a field of its details, as Google's services do, or in words."""
    for name in ("retryDelay", "retry_after", "retry_after_seconds", "X-RateLimit-Reset"):
        if (wait := seconds(_find(body, name))) is not None:
            return wait
    return asked_in_words(said)


def _find(body: Any, name: str, depth: int = 6) -> Any:
    if depth and isinstance(body, Mapping):
        if isinstance(body.get(name), (str, int, float)):
            return body[name]
        return next((f for v in body.values() if (f := _find(v, name, depth - 1)) is not None), None)
    if depth and isinstance(body, list):
        return next((f for v in body[:10] if (f := _find(v, name, depth - 1)) is not None), None)
    return None


def _code(body: Any) -> tuple[str, int | None]:
    """Return the code of an error, and the HTTP status that it stands for, if it does for one."""
    while isinstance(body, list) and body:
        body = body[0]
    inner = body.get("error") if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping) else body
    if not isinstance(inner, Mapping):
        return "", None
    given = [inner.get(k) for k in ("code", "type", "status", "error_type")]
    texts = [str(g) for g in given if isinstance(g, (str, int)) and not isinstance(g, bool)]
    elsewhere = (_find(body, name) for name in ("error_code", "status_code", "Code", "errorcode"))
    texts = texts or [str(g) for g in elsewhere if g is not None]
    status: int | None = None
    for text in texts:
        number = int(text) if text.isdecimal() and len(text) == 3 else _STATUS_WORDS.get(text.lower())
        if status is None and number is not None and number >= 400:
            status = number
    named = [t for t in texts if not t.isdecimal()]
    return (named[0] if named else texts[0] if texts else ""), status


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _plain_text(text: str) -> str:
    """Return one line of a text, and of a web page its title or its words."""
    if re.match(r"\s*<(!doctype|html|head|body|\?xml|h\d|center)", text[:200], re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", text[:20000], re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", text[:20000])
        text = f"a web page: {text}"
    return " ".join(text[:2000].split())
