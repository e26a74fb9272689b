"""Engines that take turns, come and go, and die; no vLLM is opened."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from vllm_bases import base

from moco_core.errors import ConfigError, ModelCallError
from moco_core.models import Call, Model
from moco_core.options import build
from moco_pool_vllm.engine import VLLMEngine
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Base, Placement
from moco_pool_vllm.switching import EngineSwitcher


def test_switchers_change_as_rarely_as_possible() -> None:
    """Thirty calls of three models, all there at once: three changes, the longest queue first, never two models together."""
    log: list[tuple[str | None, str]] = []
    state = SimpleNamespace(active={}, order=[])

    async def change(old: str | None, new: str) -> None:
        assert not any(state.active.values())
        log.append((old, new))
        await asyncio.sleep(0)

    async def work() -> None:
        switcher = EngineSwitcher(change)

        async def call(key: str) -> None:
            async with switcher.enter(key):
                assert switcher.current == key
                state.active[key] = state.active.get(key, 0) + 1
                assert [k for k, n in state.active.items() if n] == [key]
                await asyncio.sleep(0.001)
                state.active[key] -= 1
                state.order.append(key)

        keys = ["a"] * 5 + ["b"] * 15 + ["c"] * 10
        await asyncio.gather(*(call(k) for k in keys[::3] + keys[1::3] + keys[2::3]))
        assert switcher.changes == 3

    asyncio.run(work())
    first = state.order[0]
    rest = [k for k in ("b", "c", "a") if k != first]
    assert [new for _, new in log] == [first, *rest]


def test_a_change_that_fails_fails_its_calls_alone() -> None:
    async def change(old: str | None, new: str) -> None:
        if new == "bad":
            raise ConfigError("cannot be opened")

    async def work() -> list[Any]:
        switcher = EngineSwitcher(change)

        async def call(key: str) -> str:
            async with switcher.enter(key):
                await asyncio.sleep(0)
                return key

        return await asyncio.gather(*(call(k) for k in ("good", "bad", "good", "bad", "fine")), return_exceptions=True)

    found = asyncio.run(work())
    names = [f if isinstance(f, str) else type(f).__name__ for f in found]
    assert names == ["good", "ConfigError", "good", "ConfigError", "fine"]


def test_a_cancelled_call_gives_its_turn_back() -> None:
    async def change(old: str | None, new: str) -> None:
        await asyncio.sleep(0)

    async def work() -> None:
        switcher = EngineSwitcher(change)

        async def hang(key: str) -> None:
            async with switcher.enter(key):
                await asyncio.sleep(1000)

        async def call(key: str) -> str:
            async with switcher.enter(key):
                return key

        stuck = asyncio.create_task(hang("a"))
        await asyncio.sleep(0.01)
        other = asyncio.create_task(call("b"))
        waiting = asyncio.create_task(hang("a"))
        await asyncio.sleep(0.01)
        stuck.cancel()
        waiting.cancel()
        assert await asyncio.wait_for(other, 5) == "b"

    asyncio.run(work())


class FakeHandle:
    """Stands for a worker process: notes what happens to it, and dies when it is told to."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log, self.dead = name, log, False
        log.append(f"open {name}")

    async def answer(self, call: Call, request: str) -> str:
        await asyncio.sleep(0.001)
        if call.input == "die":
            self.dead = True
        while call.input == "late" and not self.dead:
            await asyncio.sleep(0.001)
        if self.dead:
            await asyncio.sleep(0.1 if call.input == "late" else 0)
            raise RuntimeError("the engine is dead\nsee above")
        return f"{self.name}: {call.input}"

    async def sleep(self) -> None:
        self.log.append(f"sleep {self.name}")

    async def wake(self) -> None:
        if self.log[-1] != f"open {self.name}":
            self.log.append(f"wake {self.name}")

    async def close(self) -> None:
        self.log.append(f"close {self.name}")


def engine_of(
    monkeypatch: pytest.MonkeyPatch, names: str, log: list[str], *, sliced: bool, **options: Any
) -> tuple[VLLMEngine, Any]:
    """Return an engine on fake processes, and what asks it."""
    from moco_pool_vllm.handle import EngineHandle

    async def opened(base: Base, place: Placement, options: Options) -> Any:
        await asyncio.sleep(0.001)
        return FakeHandle(base.name, log)

    monkeypatch.setattr(EngineHandle, "open", opened)
    engine = VLLMEngine(build(Options, {"models": ["any"], **options}))
    engine.bases = {name: base(name, 1) for name in names}
    place = Placement(device_group="cuda:0", devices=(0,), share=0.9, sliced=sliced)

    def ask(name: str, what: str) -> Any:
        info = {"base": name, "place": place}
        model = Model(name=name, fingerprint=name, capabilities={"generate"}, engine=engine, info=info)
        return engine.submit(Call(model, "generate", what, {}))

    return engine, ask


@pytest.mark.parametrize(
    ("swap", "log"),
    [
        ("process", ["open a", "close a", "open b", "close b", "open a", "close a"]),
        ("sleep", ["open a", "sleep a", "open b", "sleep b", "wake a", "close a", "close b"]),
    ],
)
def test_the_one_that_leaves_ends_or_sleeps(monkeypatch: pytest.MonkeyPatch, swap: str, log: list[str]) -> None:
    said: list[str] = []
    engine, ask = engine_of(monkeypatch, "ab", said, sliced=True, swap=swap)

    async def work() -> None:
        for name in "aba":
            replies = await asyncio.gather(*(ask(name, str(i)) for i in range(3)))
            assert replies == [f"{name}: {i}" for i in range(3)]
        await engine.close()

    asyncio.run(work())
    assert [
        s for i, s in enumerate(said) if i == 0 or s != said[i - 1]
    ] == log  # every call of a turn asks it to be awake
    assert engine.loads == (3 if swap == "process" else 2)


def test_an_engine_that_dies_fails_what_it_worked_on_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that hears of the death when a new process is there already must not take that for the dead one."""
    log: list[str] = []
    engine, ask = engine_of(monkeypatch, "a", log, sliced=False)

    async def work() -> None:
        assert await ask("a", "first") == "a: first"
        late = asyncio.create_task(ask("a", "late"))
        together = await asyncio.gather(ask("a", "die"), ask("a", "x"), return_exceptions=True)
        assert all(isinstance(e, ModelCallError) and "\n" not in str(e) for e in together)
        assert await ask("a", "again") == "a: again"  # on a new process
        with pytest.raises(ModelCallError, match="a: vLLM: the engine is dead see above"):
            await late
        assert await ask("a", "last") == "a: last"
        engine._handles["a"].dead = True  # type: ignore[misc]
        found = await asyncio.gather(*(ask("a", str(i)) for i in range(5)))  # it died idle: nothing is lost
        assert found == [f"a: {i}" for i in range(5)]
        await engine.close()

    asyncio.run(work())
    assert engine.loads == log.count("open a") == 3 and log[-1] == "close a"
