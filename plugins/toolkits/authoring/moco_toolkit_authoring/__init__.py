"""The conformance suite: scripted models, small seeded material, and the checks every plugin must pass.

A plugin's own suite runs them in three lines::

    from moco_toolkit_authoring import method_checks

    test_conformance = method_checks("debate", settings=[{"rounds": 1}, {"rounds": 2}])

Each check is a test of its own. A check that is known to fail is listed with its reason; it must go on failing, or the
list is wrong::

    test_conformance = method_checks("debate", expected_failures={"order_changes_nothing": "batches share a cache"})

``moco check NAME`` runs the same checks without pytest, through :func:`run_checks`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moco_core.catalogue import Catalogue
from moco_core.errors import ConfigError
from moco_toolkit_authoring import (
    command,
    common,
    conduct,
    dataset,
    executor,
    method,
    metric,
    metric_conduct,
    observer,
    pool,
    pool_conduct,
    suite,
)
from moco_toolkit_authoring.command import CommandCase, CommandPlan
from moco_toolkit_authoring.dataset import DatasetCase, DatasetPlan, gold_reply
from moco_toolkit_authoring.executor import ExecutorCase, ExecutorPlan
from moco_toolkit_authoring.harness import Outcome, as_plugin, as_pool, open_state, run_method
from moco_toolkit_authoring.method_case import MethodCase, MethodPlan
from moco_toolkit_authoring.metric import ODD_TEXTS, MetricCase, MetricPlan, metric_examples, score_of
from moco_toolkit_authoring.observer import ObserverCase, ObserverPlan
from moco_toolkit_authoring.pool_case import PoolCase, PoolPlan
from moco_toolkit_authoring.scripted import (
    SCRIPTED_CAPABILITIES,
    Faults,
    Script,
    ScriptedCall,
    ScriptedEngine,
    ScriptedPool,
    ScriptedServer,
    scripted_model,
)
from moco_toolkit_authoring.suite import Case, Check, CheckResult, NotApplicable
from moco_toolkit_authoring.toy import LastWord, example_questions, examples, fallible, unparsable

__all__ = [
    "ODD_TEXTS",
    "SCRIPTED_CAPABILITIES",
    "Check",
    "CheckResult",
    "Faults",
    "LastWord",
    "Outcome",
    "Script",
    "ScriptedCall",
    "ScriptedEngine",
    "ScriptedPool",
    "ScriptedServer",
    "as_plugin",
    "as_pool",
    "checks_of",
    "command_checks",
    "dataset_checks",
    "example_questions",
    "examples",
    "executor_checks",
    "fallible",
    "gold_reply",
    "method_checks",
    "metric_checks",
    "metric_examples",
    "observer_checks",
    "open_state",
    "pool_checks",
    "run_checks",
    "run_method",
    "score_of",
    "scripted_model",
    "unparsable",
]

_CASES: Mapping[str, type[Case]] = {
    "pool": PoolCase,
    "method": MethodCase,
    "dataset": DatasetCase,
    "metric": MetricCase,
    "observer": ObserverCase,
    "executor": ExecutorCase,
    "command": CommandCase,
}
_PLANS: Mapping[str, type] = {
    "pool": PoolPlan,
    "method": MethodPlan,
    "dataset": DatasetPlan,
    "metric": MetricPlan,
    "observer": ObserverPlan,
    "executor": ExecutorPlan,
    "command": CommandPlan,
}
_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "pool": (*common.CHECKS, *pool.CHECKS, *pool_conduct.CHECKS),
    "method": (*common.CHECKS, *method.CHECKS, *conduct.CHECKS),
    "dataset": (*common.CHECKS, *dataset.CHECKS),
    "metric": (*common.CHECKS, *metric.CHECKS, *metric_conduct.CHECKS),
    "observer": (*common.CHECKS, *observer.CHECKS),
    "executor": (*common.CHECKS, *executor.CHECKS),
    "command": command.CHECKS,
}
_Settings = Sequence[Mapping[str, Any]]
_DEFAULTS: _Settings = ({},)


def checks_of(kind: str) -> tuple[Check, ...]:
    """Return all checks of a kind, in the order they run."""
    if kind not in _CHECKS:
        raise ConfigError(f"no checks for the kind {kind!r}; kinds: {', '.join(_CHECKS)}")
    return _CHECKS[kind]


def run_checks(
    kind: str,
    name: str,
    *,
    settings: _Settings = _DEFAULTS,
    expected_failures: Mapping[str, str] | None = None,
    catalogue: Catalogue | None = None,
    limit: float = suite.LIMIT,
    on_start: Callable[[str], None] = lambda name: None,
    **plan: Any,
) -> list[CheckResult]:
    """Check a plugin and return one result per check and setting; a failing plugin does not raise.

    A check may take ``limit`` seconds; ``on_start`` gets its name as it begins. ``plan`` are the fields of
    :class:`PoolPlan`, :class:`MethodPlan`, :class:`DatasetPlan` or :class:`MetricPlan`.

    Raises ConfigError for an expected failure that names no check or gives no reason.
    """
    expected = expected_failures or {}
    items = _items(kind, name, settings, expected, catalogue, plan)
    return suite.run_all(items, {c.name: c for c in checks_of(kind)}, expected, limit=limit, on_start=on_start)


def _tests_of(kind: str) -> Callable[..., Callable[..., None]]:
    """Return the function that makes a pytest test of all checks of a kind: ``method_checks`` and its like."""

    def checks(
        name: str,
        *,
        settings: _Settings = _DEFAULTS,
        expected_failures: Mapping[str, str] | None = None,
        catalogue: Catalogue | None = None,
        **plan: Any,
    ) -> Callable[..., None]:
        return _as_test(kind, name, settings, expected_failures or {}, catalogue, plan)

    plans = _PLANS[kind].__name__
    checks.__name__ = checks.__qualname__ = f"{kind}_checks"
    checks.__doc__ = f"Return a pytest test of all {kind} checks. ``plan`` are the fields of :class:`{plans}`."
    return checks


pool_checks = _tests_of("pool")
method_checks = _tests_of("method")
dataset_checks = _tests_of("dataset")
metric_checks = _tests_of("metric")
observer_checks = _tests_of("observer")
executor_checks = _tests_of("executor")
command_checks = _tests_of("command")


def _items(
    kind: str,
    name: str,
    settings: _Settings,
    expected: Mapping[str, str],
    catalogue: Catalogue | None,
    plan: Mapping[str, Any],
) -> list[suite.Item]:
    checks = checks_of(kind)
    if not settings:
        raise ConfigError(
            f"{kind} {name}: settings must hold at least one mapping of options; use {{}} for the defaults"
        )
    found = catalogue or Catalogue(os.environ)
    try:
        made = _PLANS[kind](**plan)
    except TypeError as error:
        raise ConfigError(f"{kind} {name}: {error}") from None
    cases = [_CASES[kind](found, kind, name, dict(given), made) for given in settings]
    return suite.collect(checks, cases, expected, f"{kind} {name}")


def _as_test(
    kind: str,
    name: str,
    settings: _Settings,
    expected: Mapping[str, str],
    catalogue: Catalogue | None,
    plan: Mapping[str, Any],
) -> Callable[..., None]:
    import pytest

    known = {c.name: c for c in checks_of(kind)}
    params = []
    for item in _items(kind, name, settings, expected, catalogue, plan):
        reason = expected.get(item.check.name)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError)]
        params.append(pytest.param(item, id=item.label, marks=marks))

    @pytest.mark.parametrize("item", params)
    def test_conformance(item: suite.Item) -> None:
        try:
            suite.perform_within(suite.LIMIT, item.check, item.case, known)
        except NotApplicable as reason:
            pytest.skip(str(reason))
        except AssertionError as error:
            raise AssertionError(f"{kind} {name}: {item.check.name}: {error}\n({item.check.help})") from None

    return test_conformance
