import pytest
from made_points import Dist, point

from moco_core.catalogue import Catalogue
from moco_core.errors import BrokenPlugin, IncompatiblePlugin, PluginConflict, PluginError, UnknownPlugin

GOOD = """
from moco_core import Method, hookimpl
class Good(Method):
    "Is good."
    async def fit(self, pool, dev, context): ...
    def restore(self, pool, state, folder): ...
@hookimpl
def moco_method():
    return Good
"""


def test_what_is_listed_comes_from_metadata_and_loading_imports_one(module):
    good, bad = module(GOOD), module("raise ImportError('no such thing')")
    known = Catalogue({}, [point("good", good, Dist("moco-good")), point("bad", bad, Dist("moco-bad", "2.1"))])
    plugins = known.plugins("method")
    assert list(plugins) == ["bad", "good"] and plugins["good"].level == "text" and plugins["good"].spec == 1
    assert known.load("method", "good").__doc__ == "Is good."
    with pytest.raises(
        BrokenPlugin, match=r"method 'bad' \(moco-bad 2.1\) is installed but importing .*ImportError: no such"
    ):
        known.load("method", "bad")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cascade", "; try: pip install moco-method-cascade"),  # one of this project, not in this catalogue
        ("answer_bank", ""),  # nobody here vouches for whatever has that name
        ("runs/none", ""),
        ("mine.py", ""),
    ],
)
def test_only_distributions_of_this_project_are_advised_to_be_installed(name, advice):
    with pytest.raises(UnknownPlugin) as caught:
        Catalogue({}, []).load("method", name)
    assert str(caught.value) == f"no method {name!r} is installed{advice}"


def test_a_plugin_file_that_ends_the_program_is_one_line(tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(BrokenPlugin, match=r"--plugin .*ends\.py: SystemExit: 3$"):
        Catalogue({}, []).register_file(tmp_path / "ends.py")


def test_two_distributions_of_one_name_are_an_error(module):
    good = module(GOOD)
    known = Catalogue({}, [point("x", good, Dist("moco-b", "2")), point("x", good + "_other", Dist("moco-a", "1"))])
    with pytest.raises(PluginConflict, match="method 'x' comes from both moco-a 1 and moco-b 2; uninstall one"):
        known.plugins("method")


@pytest.mark.parametrize(("spec", "who"), [("spec-0", "upgrade the plugin"), ("spec-2", "upgrade moco-core")])
def test_another_spec_version_says_which_side_to_upgrade(module, spec, who):
    known = Catalogue({}, [point("x", module("raise SystemExit"), Dist("moco-x", keywords=f"moco {spec}"))])
    assert who in known.plugins("method")["x"].problem
    with pytest.raises(IncompatiblePlugin, match=who):
        known.load("method", "x")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1", "does not implement the hook moco_method"),
        (GOOD.replace("return Good", "return 3"), "moco_method returned 3, which is not a subclass of Method"),
        (GOOD.replace("def moco_method()", "def moco_method(wrong)"), "cannot be registered"),
        (GOOD.replace("def moco_method()", "def moco_methods()"), "cannot be registered"),
    ],
)
def test_plugins_that_register_nothing_usable(module, text, line):
    known = Catalogue({}, [point("x", module(text), Dist("moco-x"))])
    with pytest.raises(BrokenPlugin, match=line):
        known.load("method", "x")


def test_allow_list(module):
    points = [point("a", "a", Dist("moco-a")), point("b", "b", Dist("moco_b"))]
    assert list(Catalogue({"MOCO_PLUGINS": "moco-b"}, points).plugins("method")) == ["b"]
    assert list(Catalogue({"MOCO_PLUGINS": ""}, points).plugins("method")) == []
    with pytest.raises(UnknownPlugin, match="MOCO_PLUGINS restricts"):
        Catalogue({"MOCO_PLUGINS": "moco-b"}, points).load("method", "a")


def test_hook_tracing(module, capsys):
    known = Catalogue({"MOCO_TRACE": "1"}, [point("x", module(GOOD), Dist("moco-x"))])
    known.load("method", "x")
    assert "moco_method [hook]" in capsys.readouterr().err


def test_register_by_hand(module):
    known = Catalogue({}, [point("taken", module(GOOD), Dist("moco-x"))])
    cls = known.load("method", "taken")
    assert known.register(cls) is cls and known.load("method", "good") is cls
    assert known.plugins("method")["good"].summary == "Is good."
    with pytest.raises(PluginConflict, match="already provided by moco-x"):
        known.register(cls, "taken")
    with pytest.raises(PluginError, match="neither a PoolSource, Method, Dataset, Metric, Observer nor Executor"):
        known.register(int)
