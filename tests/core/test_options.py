from typing import Literal

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moco_core import Metric, PoolSource, Secret
from moco_core.catalogue import Catalogue
from moco_core.cli.describing import describe
from moco_core.errors import ConfigError
from moco_core.options import Plugin, build, build_plugin, option, plain, plugin_option, with_options


@attrs.frozen(kw_only=True)
class Inner:
    name: str = option()
    size: int = option(1, ge=1)


@attrs.frozen(kw_only=True)
class Options:
    rounds: int = option(2, ge=0, le=9, help="refinement rounds", paper="1")
    rate: float = option(0.5, gt=0, le=1)
    stop: Literal["never", "consensus"] = option("never")
    weights: Literal["uniform"] | list[float] = option("uniform", ge=0)
    names: tuple[str, ...] = option((), check=lambda v: "expected distinct names" if len(set(v)) < len(v) else None)
    inner: Inner | None = option(None)
    flag: bool = option(False)


def problems(data, path="method"):
    with pytest.raises(ConfigError) as caught:
        build(Options, data, path)
    return list(caught.value.problems)


def test_defaults_and_values():
    assert build(Options, {}) == Options()
    made = build(Options, {"rounds": 3, "weights": [1, 2.5], "inner": {"name": "x"}, "names": ["a"]})
    assert made.rounds == 3 and made.weights == [1.0, 2.5] and made.inner == Inner(name="x") and made.names == ("a",)


def test_yes_and_no_are_words_where_a_setting_knows_them():
    """YAML reads them as booleans."""

    @attrs.frozen(kw_only=True)
    class Asking:
        ask: Literal["auto", "yes", "no"] = option("auto")

    assert [build(Asking, {"ask": v}).ask for v in ("yes", True, "no", False)] == ["yes", "yes", "no", "no"]

    @attrs.frozen(kw_only=True)
    class Switched:
        step: Literal["auto", "on", "off"] = option("auto")

    assert [build(Switched, {"step": v}).step for v in ("on", True, "off", False)] == ["on", "on", "off", "off"]
    with pytest.raises(ConfigError, match="expected one of never, consensus, got False"):
        build(Options, {"stop": False}, "method")


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"rouds": 1}, "method.rouds: unknown key, did you mean 'rounds'?"),
        ({"rounds": 10}, "method.rounds: expected int >= 0 and <= 9, got 10"),
        ({"rounds": "3"}, "method.rounds: expected int, got str '3'"),
        ({"rounds": 2.0}, "method.rounds: expected int, got float 2.0"),
        ({"rounds": True}, "method.rounds: expected int, got bool True"),
        ({"flag": 1}, "method.flag: expected bool, got int 1"),
        ({"rate": 0}, "method.rate: expected number > 0 and <= 1, got 0.0"),
        (
            {"stop": "consensu"},
            "method.stop: expected one of never, consensus, got 'consensu', did you mean 'consensus'?",
        ),
        ({"weights": [0.5, -1]}, "method.weights: expected number >= 0, got -1.0"),
        ({"rate": 10**400}, "method.rate: expected a finite number, got inf"),
        ({"weights": [0.5, 10**400]}, "method.weights: expected a finite number, got inf"),
        ({"weights": [0.5, "x"]}, "method.weights[1]: expected float, got str 'x'"),
        ({"weights": "unifrom"}, "method.weights: expected uniform or list of float, got str 'unifrom'"),
        ({"names": ["a", "a"]}, "method.names: expected distinct names"),
        ({"inner": {}}, "method.inner.name: missing, expected str"),
        ({"inner": {"name": "x", "size": 0}}, "method.inner.size: expected int >= 1, got 0"),
        ({"rounds": None}, "method.rounds: expected int, got nothing"),
    ],
)
def test_one_clear_line(data, line):
    assert problems(data) == [line]


def test_all_problems_at_once():
    found = problems({"rouds": 1, "rounds": -1, "stop": 3, "inner": {"size": "big"}})
    assert [p.split(":")[0] for p in found] == [
        "method.rouds", "method.rounds", "method.stop", "method.inner.name", "method.inner.size",
    ]  # fmt: skip


def test_lines_of_a_file():
    with pytest.raises(ConfigError, match=r"^line 7: method\.rounds: expected int"):
        build(Options, {"rounds": "x"}, "method", {"method": 5, "method.rounds": 7})


def test_constructor_checks_too():
    with pytest.raises(ConfigError, match="rounds: expected int >= 0 and <= 9, got -1"):
        Options(rounds=-1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.builds(
        Options,
        rounds=st.integers(0, 9),
        rate=st.floats(0.001, 1),
        stop=st.sampled_from(["never", "consensus"]),
        weights=st.just("uniform") | st.lists(st.floats(0, 1), min_size=1),
        inner=st.none() | st.builds(Inner, name=st.text(), size=st.integers(1, 5)),
        flag=st.booleans(),
    )
)
def test_round_trip_is_identity(options):
    assert build(Options, plain(options)) == options


def test_describe():
    rounds, *_ = describe(Options)
    assert (rounds.type, rounds.default, rounds.range, rounds.paper) == ("int", 2, ">= 0 and <= 9", "1")
    assert {o.name: o.type for o in describe(Options)}["weights"] == "uniform or list of float"
    assert describe(Inner)[0].required


# options that hold plugins --------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class PoolOptions:
    models: tuple[str, ...] = option(help="the models")
    size: int = option(1, ge=1, help="how large")
    api_key: Secret | None = option(None, help="a secret")


class Small(PoolSource):
    """A pool of names."""

    Options = PoolOptions

    def models(self):
        return self.options.models


@attrs.frozen(kw_only=True)
class Further:
    prefix: str = option("", help="put before the names")


def known():
    plugins = Catalogue({}, [])
    plugins.register(Small)
    return plugins


@attrs.frozen(kw_only=True)
class Holder:
    judge: Plugin | None = plugin_option("pool", None, help="the judge's pool")
    several: tuple[Plugin, ...] = plugin_option("pool", (), further=Further, help="some pools")
    named: dict[str, Plugin] = plugin_option("pool", attrs.Factory(dict), help="pools by name")
    engine: Plugin | None = plugin_option("pool", lambda names: names[0], sets=("models",), help="what runs them")


class Judging(Metric):
    """A metric that scores with a pool."""

    Options = Holder

    def read(self, question, text): ...
    def score(self, example, reply, context): ...


def holders():
    plugins = known()
    plugins.register(Judging, "holder")
    return plugins


def held(data, lines=None):
    return build(Holder, data, "metric", lines, plugins=known())


def test_a_plugin_option_takes_sections_alone_in_a_list_and_in_a_mapping():
    made = held(
        {
            "judge": {"name": "small", "models": ["a"]},
            "several": [
                {"name": "small", "models": ["b"], "prefix": "my-"},
                {"name": "small", "models": ["c"], "size": 3},
            ],
            "named": {"near": {"name": "small", "models": ["d"]}},
        }
    )
    assert made.judge.cls is Small and made.judge.options == PoolOptions(models=("a",))
    assert [(p.options.models, p.options.size, p.further.prefix) for p in made.several] == [
        (("b",), 1, "my-"),
        (("c",), 3, ""),
    ]
    assert made.named["near"].instance.models() == ("d",) and made.named["near"].instance is made.named["near"].instance


def test_plugins_are_written_back_as_sections_and_read_again():
    made = held(
        {"judge": {"name": "small", "models": ["a"]}, "several": [{"name": "small", "models": ["b"], "prefix": "x"}]}
    )
    data = plain(made)
    assert data["judge"] == {"name": "small", "models": ["a"], "size": 1, "api_key": None}
    assert data["several"] == [{"name": "small", "models": ["b"], "size": 1, "api_key": None, "prefix": "x"}]
    assert data["engine"] == {"name": "small", "size": 1, "api_key": None}
    assert held(data) == made


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"judge": {"name": "small", "modles": ["a"]}}, "metric.judge.modles: unknown key, did you mean 'models'?"),
        ({"judge": "small"}, "metric.judge.models: missing, expected list of str"),
        ({"judge": {"name": "small", "models": ["a"], "size": 0}}, "metric.judge.size: expected int >= 1, got 0"),
        ({"judge": {"models": ["a"]}}, "metric.judge: expected the name of a pool"),
        ({"judge": 3}, "metric.judge: expected pool or none, got int 3"),
        ({"several": ["small", 3]}, "metric.several[0].models: missing, expected list of str"),
        ({"several": [{"name": "small", "prefx": "x"}]}, "metric.several[0].prefx: unknown key, did you mean 'prefix'?"),
        ({"several": [{"name": "small", "models": ["a"], "prefix": 1}]}, "metric.several[0].prefix: expected str, got int 1"),
        ({"named": {"near": "smal"}}, "metric.named.near: no pool 'smal' is installed, did you mean 'small'?"),
        ({"engine": {"name": "small", "models": []}}, "metric.engine.models: is set by the options around it; leave it out"),
    ],
)  # fmt: skip
def test_errors_inside_a_nested_section_have_its_path(data, line):
    with pytest.raises(ConfigError) as caught:
        held(data)
    assert caught.value.problems[0].startswith(line)


def test_errors_inside_a_nested_section_have_their_line():
    lines = {"metric": 2, "metric.several": 3, "metric.several[1]": 5, "metric.several[1].size": 6}
    with pytest.raises(ConfigError) as caught:
        held({"several": [{"name": "small", "models": []}, {"name": "small", "size": "x"}, "no"]}, lines)
    places = [p.rpartition(": ")[0] for p in caught.value.problems]
    assert places[0] == "line 5: metric.several[1].models" and places[1] == "line 6: metric.several[1].size"
    assert places[2].startswith("line 3: metric.several[2]")  # the line of the list, where its member has none


def test_a_secret_of_a_nested_section_is_in_no_message_and_no_repr():
    secret = {"judge": {"models": ["a"], "api_key": "sk-1"}}
    with pytest.raises(ConfigError) as caught:
        held(secret)
    assert "sk-1" not in str(caught.value)
    made = held({"judge": {"name": "small", "models": ["a"], "api_key": "sk-1"}, "several": []})
    assert "sk-1" not in repr(made) and "sk-1" not in str(plain(made))
    outer = build_plugin(
        holders(), "metric", {"name": "holder", "judge": {"name": "small", "models": ["a"], "api_key": "sk-1"}}, "m"
    )
    assert outer.given == {"judge": {"name": "small", "models": ["a"], "api_key": "***"}}
    assert made.judge.instance.options.api_key.reveal() == "sk-1"


def test_a_default_section_is_built_where_the_key_is_missing_and_its_holder_sets_the_rest():
    made = held({"engine": {"name": "small", "size": 2}})
    assert made.engine.options == {"size": 2, "api_key": None}
    full = with_options(made.engine, {"models": ("x", "y")})
    assert full.options == PoolOptions(models=("x", "y"), size=2) and full.given == {"size": 2, "models": ("x", "y")}
    assert held({}).engine.name == held({"engine": None}).engine.name == "small"
    with pytest.raises(ConfigError, match=r"engine\.models: expected a list, got int 3"):
        with_options(made.engine, {"models": 3}, "engine")


def test_without_a_catalogue_only_built_plugins_are_taken():
    judge = build_plugin(known(), "pool", {"name": "small", "models": ["a"]}, "pool")
    assert build(Holder, {"judge": judge}).judge is judge and build(Holder, {}).engine is None
    with pytest.raises(ConfigError, match="judge: plugins can be named only where they are looked up"):
        build(Holder, {"judge": "small"})


def test_plugin_options_are_described():
    found = {o.name: o for o in describe(Holder)}
    assert {n: o.type for n, o in found.items()} == {
        "judge": "pool or none", "several": "list of pool", "several[].prefix": "str", "named": "mapping of pool",
        "engine": "pool or none",
    }  # fmt: skip
    assert found["judge"].plugin == "pool" and found["several[].prefix"].help == "put before the names"
    assert found["engine"].default == "auto" and found["judge"].default is None and not found["engine"].required
