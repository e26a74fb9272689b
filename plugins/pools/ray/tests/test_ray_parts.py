"""The parts of the pool that need no cluster: who sits where, what travels, and what an actor keeps."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from moco_core import Call, EngineOutOfMemory, Message
from moco_core.errors import CapabilityError, ConfigError
from moco_core.options import build
from moco_pool_ray.files import has, listing, pack, parts, unpack
from moco_pool_ray.host import Host, Spec
from moco_pool_ray.options import Place
from moco_pool_ray.placing import place, seats_of
from moco_pool_ray.session import Session
from moco_pool_ray.wire import Reader, Writer
from moco_toolkit_authoring import ScriptedPool, scripted_model
from moco_toolkit_ray import Node

GIB = 1 << 30


@attrs.frozen(kw_only=True)
class Given:
    placement: Any = "spread"
    cpus: float = 1.0
    gpus: Any = "auto"
    memory: Any = "auto"


def model(name: str, base: str, memory: int, group: str = "cpu") -> Any:
    return scripted_model(name, "yes", base=base, memory=memory, device_group=group)


MODELS = [model("a", "x", 4 * GIB), model("b", "y", 2 * GIB, "cuda:0"), model("a-lora", "x", 5 * GIB)]


def node(name: str, cpus: float, gpus: float, gib: float, **others: float) -> Node:
    return Node(id=name, name=name, cpus=cpus, gpus=gpus, memory=int(gib * GIB), others=others)


def test_models_of_one_base_share_an_actor_and_count_its_weights_once() -> None:
    first, second = seats_of(MODELS, Given())
    assert (first.models, second.models) == (("a", "a-lora"), ("b",))
    # 1.5 times the larger of the two, which holds the base, and half a gibibyte
    assert (first.memory / GIB, second.memory / GIB) == (1.5 * 5 + 0.5, 1.5 * 2 + 0.5)
    assert (first.gpus, second.gpus) == (0, 1)
    (one,) = seats_of(MODELS, Given(placement="together"))
    assert one.models == ("a", "b", "a-lora") and one.memory / GIB == 1.5 * 7 + 0.5 and one.gpus == 1


def test_a_placement_names_models_and_what_their_actor_takes() -> None:
    given = Given(placement=(Place(models=("b", 0), cpus=3.0, gpus=0.5, memory=9.0, resources={"fast": 1.0}),))
    first, rest = seats_of(MODELS, given)
    assert first.models == ("b", "a") and rest.models == ("a-lora",)
    assert first.bundle == {"CPU": 3.0, "GPU": 0.5, "memory": 9.0 * GIB, "fast": 1.0}
    wrong = Given(placement=(Place(models=("b", "c")), Place(models=("b",))))
    with pytest.raises(ConfigError) as caught:
        seats_of(MODELS, wrong)
    assert [p.partition(":")[0] for p in caught.value.problems] == ["placement[0].models", "placement[1].models"]
    assert "'b' sits on actor 0 already" in caught.value.problems[1]


def test_actors_go_to_nodes_with_room_and_what_has_none_is_one_line_each() -> None:
    seats = seats_of(MODELS, Given())
    nodes = [node("cpu", 8, 0, 10), node("gpu", 2, 1, 6)]
    assert [n.name for n in place(seats, nodes)] == ["cpu", "gpu"]
    with pytest.raises(ConfigError) as caught:
        place(seats, [node("cpu", 8, 0, 4)])
    assert len(caught.value.problems) == 2
    assert caught.value.problems[0].startswith(
        "placement: the actor of a, a-lora needs 1 cpus, 8 GiB of memory; no node has that (cpu: 8 cpus, 0 gpus, 4.0 GiB)"
    )
    # each alone would fit
    with pytest.raises(ConfigError, match="no node has that beside the other actors"):
        place(seats_of(MODELS, Given(gpus=1.0)), [node("gpu", 8, 1, 64)])
    with pytest.raises(ConfigError, match="1 rare; no node has that"):
        place(seats_of(MODELS[:1], Given(placement=(Place(models=("a",), resources={"rare": 1.0}),))), nodes)


def test_a_placement_is_read_from_a_configuration() -> None:
    pytest.importorskip("moco_pool_tiny", reason="the pool tiny is not installed")
    from moco_core.catalogue import installed
    from moco_pool_ray.options import Options

    data = {"pool": {"name": "tiny"}, "placement": [{"models": ["letters"], "gpus": 0.5}]}
    assert build(Options, data, plugins=installed()).placement == (Place(models=("letters",), gpus=0.5),)
    with pytest.raises(ConfigError, match="pool: a pool on a cluster cannot be opened on a cluster"):
        build(Options, {"pool": {"name": "ray", "pool": {"name": "tiny"}}}, plugins=installed())


# ---------------------------------------------------------------- what travels


class Handle:
    """Means something only as itself."""

    by_identity = True

    def __init__(self) -> None:
        self.closed = False


def test_an_object_with_an_identity_is_one_on_the_other_side_and_goes_when_it_is_gone_here() -> None:
    writer = Writer(lambda model: model.name)
    reader = Reader({}.__getitem__)
    handle = Handle()
    first, twin = reader.loads(writer.dumps([handle, handle]))
    assert first is twin and not first.closed
    handle.closed = True
    assert reader.loads(writer.dumps({"again": handle}))["again"] is first and first.closed
    assert reader.loads(writer.dumps(Handle())) is not first
    del handle
    gc.collect()
    assert 0 in writer.dropped
    reader.forget(writer.dropped)
    assert reader.loads(writer.dumps(Handle())) is not first


def test_what_is_sent_once_is_named_from_then_on() -> None:
    writer, reader = Writer(lambda model: model.name, once=True), Reader({}.__getitem__)
    handle = Handle()
    handle.closed = bytes(10_000)  # type: ignore[assignment]
    long, short = writer.dumps(handle), writer.dumps(handle)
    assert len(long) > 10_000 > 100 > len(short)
    assert reader.loads(long) is reader.loads(short)


def test_models_travel_by_name_without_their_engines() -> None:
    here, there = model("a", "x", 0), model("a", "x", 0)

    def name(asked: Any) -> str:
        if asked is not here:
            raise CapabilityError("another one's model")
        return "a on the actor"

    writer, reader = Writer(name), Reader({"a on the actor": there}.__getitem__)
    assert reader.loads(writer.dumps([here, ("deep", {"in": here})])) == [there, ("deep", {"in": there})]
    with pytest.raises(CapabilityError):
        writer.dumps([there])


def test_handles_of_step_sessions_keep_their_parents() -> None:
    ops = pytest.importorskip("moco_toolkit_decoding.ops", reason="needs the decoding toolkit")
    writer, reader = Writer(lambda model: model.name), Reader({}.__getitem__)
    parent = ops.RowHandle()
    child = ops.RowHandle(parent)
    far = reader.loads(writer.dumps(child))
    assert far.parent() is reader.loads(writer.dumps(parent)) and far.parent() is not None
    child.closed = True
    assert reader.loads(writer.dumps(child)) is far and far.closed and not far.parent().closed


def test_a_folder_goes_through_an_archive_and_is_known_again(tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "weights").write_bytes(bytes(range(256)) * 9)
    (source / "empty").touch()
    pack(source, tmp_path / "one.tar")
    (tmp_path / "two.tar").write_bytes(b"".join(parts(tmp_path / "one.tar")))
    unpack(tmp_path / "two.tar", there)
    assert listing(there) == listing(source) == {"deep/weights": 2304, "empty": 0}
    assert has(there, listing(source))
    (there / "deep" / "weights").write_bytes(b"")
    assert not has(there, listing(source)) and not has(tmp_path / "nowhere", {})


# ---------------------------------------------------------------- what an actor keeps


def call(number: int) -> tuple[int, Call]:
    return number, Call(MODELS[0], "generate", {"text": str(number)}, {})


def test_calls_sent_twice_are_taken_once_and_outcomes_are_kept_until_they_are_known_to_have_arrived() -> None:
    async def work() -> None:
        session = Session(MODELS[0], asyncio.get_running_loop())
        assert session.add([call(0), call(1)]) and not session.add([call(1), call(2)])
        taken = session.take()
        assert [c.input["text"] for c in taken] == ["0", "1", "2"]
        session.resolve([(taken[1], "one")])
        assert await session.outcomes(0) == await session.outcomes(0) == [(1, False, "one")]
        session.resolve([(taken[0], "zero"), (taken[0], "again")])
        assert await session.outcomes(1) == [(0, False, "zero")]
        threading.Timer(0.05, session.resolve, ([(taken[2], "two")],)).start()
        assert await asyncio.wait_for(session.outcomes(2), 10) == [(2, False, "two")]
        session.end()
        assert await session.outcomes(3) == []

    asyncio.run(work())


def test_an_engine_that_fails_fails_what_it_took_and_memory_ends_the_session() -> None:
    async def work() -> None:
        session = Session(MODELS[0], asyncio.get_running_loop())
        session.add([call(0), call(1)])
        session.take(1)
        session.refuse(ValueError("broken"))
        ((number, _, error),) = await session.outcomes(0)
        assert number == 0 and str(error) == "a: ValueError: broken" and session.waiting == 1
        session.fail(EngineOutOfMemory("too much"))
        assert not session.goes_on() and session.problem is not None

    asyncio.run(work())


def test_a_training_where_no_file_system_is_shared_brings_its_files_back(tmp_path: Path, monkeypatch: Any) -> None:
    """The actor's side by itself: what lies in the run's folder is not seen from there."""
    from moco_toolkit_training import Sft

    rows = [{"messages": (Message("user", "What?"), Message("assistant", "That."))}]
    pool = ScriptedPool({"a": "no"})
    monkeypatch.setattr("moco_pool_ray.host._describe", lambda spec: {"a": pool.pool[0]})

    async def work() -> None:
        from moco_toolkit_training import Demonstration

        host = Host()
        assert isinstance(await host.open(Spec(section={}, models={})), dict)
        job = Writer(lambda model: model.name).dumps(Sft(rows=[Demonstration(**rows[0])]))
        assert await host.train("t", "a", job, 3, str(tmp_path / "run"), str(tmp_path / "unseen")) is False
        said: list[Any] = []
        while not said or said[-1][0] not in ("done", "failed"):
            said += await host.events("t", len(said))
        assert said[-1][0] == "done", said
        (tmp_path / "back.tar").write_bytes(await host.fetch("t", 0, 1 << 30))
        unpack(tmp_path / "back.tar", tmp_path / "back")
        assert list(listing(tmp_path / "back")) == ["model/scripted.json"]
        scratch = host._scratch
        await host.close()
        assert not scratch.exists()

    asyncio.run(work())


def test_errors_of_an_actor_are_results_and_a_pool_that_asks_others_says_where_ray_belongs(monkeypatch: Any) -> None:
    class Asks(type(MODELS[0].engine)):  # type: ignore[misc]
        async def start(self, runtime: Any) -> None:
            runtime.state(None)

    monkeypatch.setattr("moco_pool_ray.host._describe", lambda spec: {"a": scripted_model("a", "x", engine=Asks())})

    async def work() -> Any:
        host = Host()
        opened = await host.open(Spec(section={}, models={}))
        await host.close()
        return opened

    assert "put the pool ray inside of it" in str(asyncio.run(work()))
