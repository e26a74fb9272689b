"""A tab of a browser on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Reader:
    """A tab on the page that remembers errors and requests."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page, self.url = page, file.as_uri()
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("dialog", lambda d: self.errors.append(d.message))
        page.on("request", lambda r: self.requests.append(r.url))
        page.set_default_timeout(8000)

    def go(self, fragment: str = "") -> Any:
        self.page.goto("about:blank")
        self.page.goto(self.url + fragment)
        self.page.wait_for_selector("main :first-child")
        return self.page

    def text(self, where: str = "main") -> str:
        return str(self.page.inner_text(where))
