"""What the READMEs of the datasets tell to type: every command that reads a local copy, and the Python beside it, runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from own_programs import isolation

from moco_core import cli
from moco_core.catalogue import installed

ROOT = Path(__file__).parents[1]
JUDGES = ROOT / "tests" / "helpers" / "scripted_judges.py"
NAMES = [n for n in installed().plugins("dataset") if n not in ("custom", "lm_eval", "skills")]


def block(name, language):
    places = (ROOT / "plugins" / "datasets" / name, ROOT / "contrib" / name)
    (text,) = [(p / "README.md").read_text(encoding="utf-8") for p in places if p.exists()]
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    return found.replace("\\\n", " ")


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Work in an empty folder in which copies/NAME holds a dataset's hand-written rows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))

    def lay(name):
        path = installed().load("dataset", name).fixture_path()
        place = tmp_path / "copies" / name
        if path.is_dir():
            shutil.copytree(path, place)
        else:
            place.mkdir(parents=True)
            shutil.copy(path, place)
        return place

    return lay


@pytest.mark.parametrize("name", NAMES)
def test_commands_on_a_local_copy_run(name, copies, capsys):
    copies(name)
    lines = [line for line in block(name, "bash").splitlines() if line.startswith("moco run") and ".path=" in line]
    assert lines
    for line in lines:
        arguments = [*shlex.split(line)[1:], "-p", "talkers", "--plugin", str(JUDGES)]
        if "metric.pool" in line:  # a reward model that is here, in place of the one to download
            arguments += ["-o", "metric.pool={name: rewards}"]
        if installed().load("dataset", name).facts.metric == "code_execution":
            arguments += ["-o", f"metric.isolation={isolation()}"]
        assert cli._run(arguments) == 0, capsys.readouterr().err
    assert len(list(Path("runs").iterdir())) >= 4 * len(lines)  # each of three models, and the method


@pytest.mark.parametrize("name", NAMES)
def test_commands_on_the_hub_name_what_the_dataset_reads(name):
    cls = installed().load("dataset", name)
    text = block(name, "bash")
    for hub in cls.hub:
        assert f"hf download {hub.repo}" in text or hub.repo.removesuffix(hub.subset) + "$exam" in text
        assert hub.file in text
    if re.fullmatch("[0-9a-f]{40}", cls.facts.revision):
        assert f"--revision {cls.facts.revision}" in text


@pytest.mark.parametrize("name", NAMES)
def test_the_python_beside_them_runs(name, copies, capsys):
    place = copies(name)
    code = block(name, "python")
    if "path=" not in code:  # the Hub is not here
        code, changed = re.subn(r"Options\(", f"Options(path={str(place)!r}, dev_size=100, ", code)
        assert changed == 1
    exec(compile(code, f"{name}/README.md", "exec"), {})
    assert "'fingerprint'" in capsys.readouterr().out
