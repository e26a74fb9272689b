"""What ``moco doctor`` finds out: about itself, its neighbours, and what plugins look at."""

import json
import os

import pytest

from moco_core.catalogue import installed


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install a distribution made of metadata alone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, value in (("_points", None), ("_plugins", {}), ("_loaded", {})):
        monkeypatch.setattr(installed(), name, value)

    def make(name, entry_points, requires=()):
        folder = tmp_path / f"{name.replace('-', '_')}-2.5.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 2.5", "Keywords: moco,spec-1"]
        (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n\n")
        (folder / "entry_points.txt").write_text(entry_points)

    return make


def found(moco):
    got = moco("doctor", "--json", toys=False)
    return got.code, {f["what"]: (f["state"], f["detail"]) for f in json.loads(got.out)}


def test_another_owner_of_the_script_is_named_with_what_to_call_instead(moco, distribution):
    assert "moco" not in found(moco)[1]
    distribution("someone-elses", "[console_scripts]\nmoco = someone.cli:main\n")
    code, findings = found(moco)
    assert code == 1 and findings["moco"] == (
        "problem", "the script belongs to someone-elses 2.5 too; use moco-core or python -m moco_core",
    )  # fmt: skip


def test_a_missing_package_is_a_problem_of_the_plugin_that_needs_it(moco, distribution):
    points = "[moco.method]\nhungry = json\n"
    distribution("moco-method-hungry", points, ["no-such-package>=1", "absent[x]; extra == 'test'", "click>=8"])
    code, findings = found(moco)
    assert code == 1 and "absent" not in findings
    needs = "not installed, but moco-method-hungry needs it; pip install no-such-package"
    assert findings["no-such-package"] == ("problem", needs)


def test_plugins_add_findings_and_a_broken_one_disturbs_no_other(moco, distribution, module):
    name = module(
        "def look():\n    yield 'note', 'weather', 'it\\nrains'\n\ndef fall():\n    raise OSError('no\\nwindow')\n"
    )
    distribution("moco-toolkit-weather", f"[moco.doctor]\nbroken = {name}:fall\nweather = {name}:look\n")
    code, findings = found(moco)
    assert code == 1 and findings["weather"] == ("note", "it\nrains")
    assert findings["broken"] == ("problem", "moco-toolkit-weather cannot look: OSError: no\nwindow")
    assert "note    weather: it rains\n" in moco("doctor", toys=False).out


def test_a_cache_that_cannot_be_written_is_no_healthy_one(moco, monkeypatch):
    assert found(moco)[1]["cache"][0] == "ok"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    state, detail = found(moco)[1]["cache"]
    assert state == "problem" and "cannot be written; choose another with --cache or MOCO_CACHE" in detail


def test_an_installation_as_it_should_be_has_no_problem(moco):
    code, findings = found(moco)
    assert code == 0, [f for f in findings.items() if f[1][0] == "problem"]
    assert {"python", "moco-core", "methods", "observers", "cache", "disk"} <= set(findings)
