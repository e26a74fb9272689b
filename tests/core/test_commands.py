"""Subcommands that distributions bring, and the ways to start the command line."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from made_points import Dist, point

from moco_core import cli
from moco_core.catalogue import installed

GREET = """
import click

@click.command()
@click.argument("name")
def greet(name):
    "Says good day."
    click.echo(f"good day, {name}")

nothing = 3
"""


@pytest.fixture
def known(monkeypatch):
    """Let this process know the given entry points alone."""

    def use(*points):
        for name, value in (("_points", list(points)), ("_plugins", {}), ("_loaded", {})):
            monkeypatch.setattr(installed(), name, value)

    return use


def command(name, value, *, keywords="moco,spec-1", dist="moco-command-greet"):
    return point(name, value, Dist(dist, "1.2", keywords, "Greets people."), "command")


def test_a_distribution_adds_a_command_whose_help_is_its_summary(moco, known, module):
    name = module(GREET)
    known(command("greet", f"{name}:greet", keywords="moco,spec-1,section-publish"), command("look", "absent:it"))
    got = moco("--help", toys=False)
    publish, maintain = got.out.split("Publish:")[1].split("Maintain:")
    assert "greet   Greets people." in publish and "greet" not in maintain
    assert "look    Greets people." in got.out.split("Look:")[1].split("Publish:")[0]
    assert name not in sys.modules
    assert moco("greet", "Ada", toys=False).out == "good day, Ada\n"
    got = moco("gret", "Ada", toys=False)
    assert got.code == 2 and "Did you mean 'greet'?" in got.err


def test_commands_that_cannot_be_used_say_why_and_disturb_no_other(moco, known, module):
    name = module(GREET)
    known(
        command("broken", "no_such_module:it"),
        command("absent", f"{name}:gone"),
        command("number", f"{name}:nothing"),
        command("newer", f"{name}:greet", keywords="spec-2"),
        command("greet", f"{name}:greet"),
    )
    for wrong, line in (
        ("broken", "importing no_such_module fails: ModuleNotFoundError"),
        ("absent", "has no attribute 'gone'"),
        ("number", "command 'number' (moco-command-greet 1.2) is 3, no click command"),
        ("newer", "upgrade moco-core"),
    ):
        got = moco(wrong, toys=False)
        assert got.code == 2 and len(got.errors) == 1 and line in got.errors[0]
    assert moco("greet", "Bo", toys=False).code == 0
    assert "upgrade moco-core]" in " ".join(moco("--help", toys=False).out.split())


def test_the_core_keeps_its_own_commands(moco, known):
    known(command("list", "no_such_module:it"))
    assert moco("list", toys=False).out.startswith("pools (")


def test_two_distributions_with_one_command_are_named(moco, known):
    known(command("report", "a:b", dist="moco-command-report"), command("report", "c:d", dist="moco-other"))
    got = moco("report", toys=False)
    assert got.code == 2 and "moco-command-report 1.2 and moco-other 1.2; uninstall one" in got.err
    assert moco("list", toys=False).code == 0


@pytest.mark.parametrize("name", ["new", "check"])
def test_what_authors_use_says_what_to_install(moco, known, name):
    known()
    got = moco(name, "method", "my_idea", toys=False)
    assert got.code == 2
    assert got.errors == [f"error: moco {name} is not installed; pip install 'moco-core[authoring]'"]
    assert "(pip install 'moco-core[authoring]')" in " ".join(moco("--help", toys=False).out.split())


def test_the_module_and_both_scripts_are_the_command_line():
    scripts = {p.name: p.value for p in entry_points(group="console_scripts") if p.name in ("moco", "moco-core")}
    assert scripts == {"moco": "moco_core.cli:main", "moco-core": "moco_core.cli:main"}
    got = subprocess.run([sys.executable, "-m", "moco_core", "--version"], capture_output=True, text=True, check=True)
    assert got.stdout.startswith("moco, version ")


def test_every_command_belongs_to_a_section():
    assert {section for section, _, _ in cli._COMMANDS.values()} <= set(cli.SECTIONS)
