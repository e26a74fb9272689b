"""The suite itself: its list of checks is documented, and expected failures cannot hide anything."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conforming import GoodMetric

import moco_toolkit_authoring
from moco_core import Scored, Unit
from moco_core.catalogue import Catalogue
from moco_core.errors import ConfigError
from moco_core.kinds import KINDS
from moco_toolkit_authoring import checks_of, method_checks, metric_checks, run_checks, suite


class NeedsRows(GoodMetric):
    """Fails without any reply."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        rows[0]
        return super().units(rows)


class Endless(GoodMetric):
    """Waits for rows, whatever comes."""

    def units(self, rows: Sequence[Scored]) -> list[Unit]:
        while not rows:
            with contextlib.suppress(BaseException):
                time.sleep(0.01)
        return super().units(rows)


def test_a_check_that_never_ends_is_named_and_the_others_run(catalogue: Catalogue) -> None:
    catalogue.register(Endless)
    begun: list[str] = []
    results = run_checks("metric", "endless", catalogue=catalogue, limit=2, on_start=begun.append)
    assert begun == [r.name for r in results]
    (late,) = [r for r in results if not r.ok]
    assert late.name == "no_rows_give_no_units" and "did not end within 2 s" in late.message


def test_every_check_is_described_in_the_readme() -> None:
    text = (Path(moco_toolkit_authoring.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for kind in (*KINDS, "command"):
        for check in checks_of(kind):
            assert f"| `{check.name}` | {check.help} |" in text


def test_an_expected_failure_is_kept_apart(catalogue: Catalogue) -> None:
    catalogue.register(NeedsRows)
    expected = {"no_rows_give_no_units": "rows are always there"}
    results = {r.name: r for r in run_checks("metric", "needs_rows", catalogue=catalogue, expected_failures=expected)}
    assert results["no_rows_give_no_units"].status == "expected failure"
    assert all(r.ok for r in results.values())


def test_an_expected_failure_that_passes_is_not_ok(catalogue: Catalogue) -> None:
    catalogue.register(GoodMetric)
    expected = {"no_rows_give_no_units": "rows are always there"}
    results = run_checks("metric", "good_metric", catalogue=catalogue, expected_failures=expected)
    (wrong,) = [r for r in results if not r.ok]
    assert (wrong.name, wrong.status) == ("no_rows_give_no_units", "unexpected pass")


@pytest.mark.parametrize(
    ("expected", "problem"),
    [
        ({"no_rows_give_no_unit": "why"}, "did you mean 'no_rows_give_no_units'?"),
        ({"no_rows_give_no_units": " "}, "say why it fails"),
    ],
)
def test_an_impossible_expected_failure_is_refused(expected: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem.replace("?", r"\?")):
        metric_checks("anything", expected_failures=expected)


def test_unknown_arguments_and_missing_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'pols'"):
        method_checks("anything", pols=None)
    with pytest.raises(ConfigError, match="at least one mapping"):
        method_checks("anything", settings=[])


def test_a_plugin_that_is_not_installed_fails_once(catalogue: Catalogue) -> None:
    results = run_checks("method", "absent", catalogue=catalogue)
    assert [r.name for r in results if not r.ok] == ["entry_point_resolves"]
    assert "no method 'absent' is installed" in results[0].message


def test_a_check_that_captures_and_never_ends_leaves_the_screen_to_others(catalogue: Catalogue) -> None:
    ended = threading.Event()

    @suite.check()
    def captures(case: suite.Case) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ended.wait(30)

    before = sys.stdout, sys.stderr
    with pytest.raises(AssertionError, match="did not end within"):
        suite.perform_within(0.1, captures, suite.Case(catalogue, "metric", "any", {}, None), {})
    found = sys.stdout, sys.stderr
    ended.set()
    assert found == before
