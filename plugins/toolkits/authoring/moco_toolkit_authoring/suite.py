"""How checks are chosen, run and reported; the checks themselves live in the modules of their kinds.

A check is a function of a :class:`Case` that raises AssertionError with one clear sentence, or :class:`NotApplicable`
if it cannot tell. ``after`` names the checks that must hold first: where they do not, the check is skipped, so that one
fault is reported once.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import attrs

from moco_core.catalogue import Catalogue
from moco_core.discovery import PluginInfo
from moco_core.errors import ConfigError, MocoError, suggest
from moco_core.options import build, plain
from moco_core.types import canonical
from moco_toolkit_authoring.shared import settings_as_they_were

__all__ = [
    "LIMIT",
    "Case",
    "Check",
    "CheckResult",
    "NotApplicable",
    "as_text",
    "check",
    "perform",
    "perform_within",
    "require",
]

Status = Literal["passed", "failed", "skipped", "expected failure", "unexpected pass"]


class NotApplicable(Exception):
    """Raised where a check does not apply; the message says why."""


def require(condition: object, message: str) -> None:
    """Fail the check unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def as_text(value: Any) -> str:
    """Return what a value holds, as a text to compare; what is no plain data as Python prints it."""
    try:
        return canonical(plain(value))
    except (TypeError, ValueError):
        return repr(value)


@attrs.frozen(kw_only=True)
class CheckResult:
    """The outcome of one check. ``setting`` numbers the settings it ran with; ``message`` explains all but a pass."""

    name: str
    setting: int
    status: Status
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.status in ("passed", "skipped", "expected failure")


@attrs.define(eq=False)
class Case:
    """One plugin with one setting of its options. ``plan`` holds what the kind's checks were given to work with."""

    catalogue: Catalogue
    kind: str
    name: str
    given: Mapping[str, Any]
    plan: Any
    memo: dict[Any, Any] = attrs.field(factory=dict, init=False)

    @property
    def info(self) -> PluginInfo:
        return self.catalogue.plugin_info(self.kind, self.name)

    @property
    def cls(self) -> type[Any]:
        return self.catalogue.load(self.kind, self.name)

    def options(self) -> Any:
        return build(self.cls.Options, self.given, self.name, plugins=self.catalogue)

    def make(self) -> Any:
        """Return a new instance of the plugin."""
        return self.cls(self.options())

    def tell(self) -> str:
        """Return what the plugin comes to, as a text that two processes can be compared by. NotApplicable if it takes long."""
        raise NotApplicable("there is nothing to compare")

    def once(self, key: Any, compute: Callable[[], Any]) -> Any:
        """Compute something expensive once for all checks of this case; an error is raised again."""
        if key not in self.memo:
            try:
                self.memo[key] = (compute(), None)
            except (Exception, BaseExceptionGroup) as caught:
                self.memo[key] = (None, caught)
        value, error = self.memo[key]
        if error is not None:
            raise error
        return value


@attrs.frozen(kw_only=True)
class Check:
    """A named check. ``per_setting`` checks run once for each setting, the others once for the plugin.

    ``apart`` are seconds beyond the limit, for a check that starts processes of its own and sees to their end.
    """

    name: str
    run: Callable[[Any], None]
    after: tuple[str, ...] = ()
    per_setting: bool = True
    applies: Callable[[Any], bool] = lambda case: True
    apart: float = 0.0

    @property
    def help(self) -> str:
        return " ".join((self.run.__doc__ or "").split())


C = TypeVar("C", bound=Case)


def check(
    *,
    after: Sequence[str] = (),
    per_setting: bool = True,
    applies: Callable[[C], bool] = lambda case: True,
    apart: float = 0.0,
) -> Callable[[Callable[[C], None]], Check]:
    """Make a check out of a function; its name is the check's name."""

    def wrap(function: Callable[[C], None]) -> Check:
        name = function.__name__
        return Check(name=name, run=function, after=tuple(after), per_setting=per_setting, applies=applies, apart=apart)

    return wrap


def perform(item: Check, case: Case, known: Mapping[str, Check]) -> None:
    """Run one check of a case, at most once, after those it builds on. Raises AssertionError or NotApplicable."""

    def run() -> None:
        for name in item.after:
            try:
                perform(known[name], case, known)
            except NotApplicable as reason:
                raise NotApplicable(str(reason)) from None
            except Exception:
                raise NotApplicable(f"{name} fails; repair that first") from None
        try:
            with settings_as_they_were():
                item.run(case)
        except (AssertionError, NotApplicable):
            raise
        except (Exception, BaseExceptionGroup) as error:
            raise AssertionError(_describe(error)) from error

    case.once(("check", item.name), run)


LIMIT = 120.0
"""Seconds that a check may take, those it builds on included, before it counts as one that never ends."""


def perform_within(limit: float, item: Check, case: Case, known: Mapping[str, Check]) -> None:
    """Run one check as :func:`perform` does, but not for longer than ``limit`` seconds.

    A check that does not end in time fails and is left behind in its thread: no hook of a plugin, however it loops or
    whatever it swallows, keeps the other checks from running.
    """
    outcome: list[BaseException | None] = []

    def work() -> None:
        try:
            perform(item, case, known)
        except BaseException as error:
            outcome.append(error)
        else:
            outcome.append(None)

    streams = sys.stdout, sys.stderr
    thread = threading.Thread(target=work, name=f"moco-check-{item.name}", daemon=True)
    thread.start()
    thread.join(limit + item.apart)
    sys.stdout, sys.stderr = streams  # a check that never ends would keep what it captures
    if not outcome:
        late = AssertionError(
            f"did not end within {limit:g} s: look for an endless loop, a call that is never answered, or a cancellation "
            "that is swallowed"
        )
        case.memo["check", item.name] = (None, late)
        raise late
    if outcome[0] is not None:
        raise outcome[0]


def _describe(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MocoError):
        return f"raised {type(error).__name__}: {error}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" at {os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}" if frame else ""
    return f"raised {type(error).__name__}: {error}{where}"


@attrs.frozen(kw_only=True)
class Item:
    """One check to run with one setting."""

    check: Check
    case: Case
    setting: int
    label: str


def collect(
    checks: Sequence[Check],
    cases: Sequence[Case],
    expected_failures: Mapping[str, str],
    where: str,
) -> list[Item]:
    """Return the checks to run, in order, for all settings. Raises ConfigError for an impossible expected failure."""
    names = [c.name for c in checks]
    for name, reason in expected_failures.items():
        if name not in names:
            raise ConfigError(f"{where}: expected_failures: no check {name!r}{suggest(name, names)}")
        if not reason.strip():
            raise ConfigError(f"{where}: expected_failures[{name!r}]: say why it fails")
    items = []
    for item in checks:
        chosen = cases if item.per_setting else cases[:1]
        for number, case in enumerate(chosen):
            if _applies(item, case):
                label = item.name if len(chosen) == 1 else f"{item.name}-{number}"
                items.append(Item(check=item, case=case, setting=number, label=label))
    return items


def _applies(item: Check, case: Case) -> bool:
    try:
        return item.applies(case)
    except Exception:  # a plugin that cannot be loaded is reported by the first check
        return True


def run_all(
    items: Sequence[Item],
    known: Mapping[str, Check],
    expected: Mapping[str, str],
    *,
    limit: float = LIMIT,
    on_start: Callable[[str], None] = lambda name: None,
) -> list[CheckResult]:
    """Run items and return their results; never raises for a failing plugin. ``on_start`` gets the name of each."""
    out = []
    for item in items:
        on_start(item.label)
        reason = expected.get(item.check.name)
        status: Status
        message = ""
        try:
            perform_within(limit, item.check, item.case, known)
            status = "passed" if reason is None else "unexpected pass"
            message = "" if reason is None else f"it holds now; remove it from expected_failures ({reason})"
        except NotApplicable as skip:
            status, message = "skipped", str(skip)
        except AssertionError as error:
            status, message = ("failed", str(error)) if reason is None else ("expected failure", reason)
        out.append(CheckResult(name=item.check.name, setting=item.setting, status=status, message=message))
    return out
