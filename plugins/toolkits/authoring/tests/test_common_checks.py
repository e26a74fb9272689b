"""Every check of packaging, options and documentation fails on a plugin with exactly that fault, and on no other."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moco_core.catalogue import Catalogue
from moco_toolkit_authoring import common as common_module
from moco_toolkit_authoring import run_checks

Edit = Callable[[str], str]
Install = Callable[..., Catalogue]
Failures = Callable[..., list[str]]


def replace(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text, f"the template no longer contains {old!r}"
        return text.replace(old, new)

    return edit


def _hook_returns_nothing(text: str) -> str:
    return re.sub(r"return Sample$", "return None", text, flags=re.MULTILINE)


def _undocumented(text: str) -> str:
    return text.replace(', help="compare without regard to upper and lower case"', "")


FAULTS: dict[str, dict[str, Edit]] = {
    "entry_point_resolves": {"module": _hook_returns_nothing},
    "options_have_defaults": {
        "module": replace("option(True, ", "option("),
        "readme": replace("| `true` |", "| required |"),
    },
    "options_are_documented": {
        "module": _undocumented,
        "readme": replace("| compare without regard to upper and lower case |", "|  |"),
    },
    "summary_is_the_docstring": {"metadata": replace("Summary: ", "Summary: Another text. ")},
    "keywords_match_the_class": {"metadata": replace("Keywords: moco,spec-1", "Keywords: moco")},
    "distribution_follows_conventions": {"metadata": replace("moco-core>=0.1,<0.2", "moco-core==0.1.0")},
    "readme_has_its_headings": {"readme": replace("## Limits", "## Other")},
    "readme_option_table_is_current": {"readme": replace("| `true` |", "| `false` |")},
}
# these take more than an edit; each has a test of its own below
OTHERS = {
    "import_is_light",
    "options_are_strict",
    "options_round_trip",
    "package_is_typed",
    "installed_metadata_is_current",
}


def test_a_fresh_plugin_passes_everything(install: Install) -> None:
    results = run_checks("metric", "sample", catalogue=install())
    assert [r for r in results if r.status not in ("passed", "skipped")] == []
    skipped = [r.name for r in results if r.status == "skipped"]
    assert skipped == ["installed_metadata_is_current"], "the sample is not an editable installation"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_fails_its_own_check_alone(name: str, install: Install, failures: Failures) -> None:
    assert failures("metric", "sample", install(**FAULTS[name])) == [name]


def test_a_heavy_import_is_found(install: Install, failures: Failures, tmp_path: Path) -> None:
    catalogue = install(module=replace("import attrs\n", "import attrs\nimport vllm\n"))
    (tmp_path / "project" / "vllm.py").write_text("", encoding="utf-8")
    assert failures("metric", "sample", catalogue) == ["import_is_light"]
    sys.modules.pop("vllm", None)


def test_an_option_that_takes_anything_is_found(install: Install, failures: Failures) -> None:
    def loose(text: str) -> str:
        text = text.replace("import attrs\n", "from typing import TypeVar\n\nimport attrs\n", 1)
        text = text.replace("@attrs.frozen", 'Loose = TypeVar("Loose")\n\n\n@attrs.frozen', 1)
        return text.replace("ignore_case: bool", "ignore_case: Loose")

    catalogue = install(module=loose, readme=replace("| bool |", "| Loose |"))
    assert failures("metric", "sample", catalogue) == ["options_are_strict"]


def test_options_that_change_on_a_round_trip_are_found(install: Install, failures: Failures) -> None:
    def changing(text: str) -> str:
        return text.replace(
            '    """Options of sample."""\n',
            '    """Options of sample."""\n\n    def __attrs_post_init__(self) -> None:\n'
            '        object.__setattr__(self, "ignore_case", not self.ignore_case)\n',
        )

    assert failures("metric", "sample", install(module=changing)) == ["options_round_trip"]


def test_a_package_without_py_typed_is_found(install: Install, failures: Failures, tmp_path: Path) -> None:
    catalogue = install()
    (tmp_path / "project" / "moco_metric_sample" / "py.typed").unlink()
    assert failures("metric", "sample", catalogue) == ["package_is_typed"]


def test_stale_metadata_of_an_editable_installation_is_found(
    install: Install, failures: Failures, tmp_path: Path
) -> None:
    catalogue = install()
    project = tmp_path / "project"
    url = project.as_uri()
    info = project / "moco_metric_sample-0.1.0.dist-info"
    (info / "direct_url.json").write_text(f'{{"url": "{url}", "dir_info": {{"editable": true}}}}', encoding="utf-8")
    assert failures("metric", "sample", catalogue) == []
    text = (project / "pyproject.toml").read_text(encoding="utf-8")
    (project / "pyproject.toml").write_text(text.replace('description = "', 'description = "New: '), encoding="utf-8")
    assert failures("metric", "sample", catalogue) == ["installed_metadata_is_current"]


def test_every_common_check_has_its_broken_plugin() -> None:
    assert set(FAULTS) | OTHERS == {c.name for c in common_module.CHECKS}


def test_a_method_whose_level_differs_from_its_keyword_is_found(install: Install, failures: Failures) -> None:
    catalogue = install(kind="method", metadata=replace("level-text", "level-logit"))
    assert failures("method", "sample", catalogue) == ["keywords_match_the_class"]


def test_an_unpackaged_plugin_is_spared_the_checks_of_packaging(catalogue: Catalogue) -> None:
    from conforming import GoodMetric

    catalogue.register(GoodMetric)
    names = {r.name for r in run_checks("metric", "good_metric", catalogue=catalogue)}
    assert "readme_has_its_headings" not in names
    assert "options_are_strict" in names
