from typing import Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core.errors import ConfigError
from moco_core.options import build, describe, option, plain


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


@settings(deadline=None)
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
