"""Tests of {{name}}: the conformance checks, and what this pool alone promises."""

from moco_toolkit_authoring import pool_checks
from {{package}} import {{Class}}, Options

test_conformance = pool_checks("{{name}}", settings=[{}, {"models": ["only"]}])


def test_models_are_named_as_asked() -> None:
    assert [m.name for m in {{Class}}(Options(models=("a", "b"))).models()] == ["a", "b"]
