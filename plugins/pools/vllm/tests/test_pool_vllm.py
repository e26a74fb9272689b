"""What needs no engine: descriptions, plans, turns, and bad input."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from random_checkpoints import write, write_lora

from moco_core import cli
from moco_core.errors import ConfigError, ModelCallError
from moco_core.models import Call, Model
from moco_core.options import build
from moco_pool_vllm.engine import VLLMEngine
from moco_pool_vllm.opening import engine_args
from moco_pool_vllm.options import Options
from moco_pool_vllm.placement import Base, Placement, plan
from moco_pool_vllm.pool import VLLMPool
from moco_pool_vllm.switching import EngineSwitcher

GIB = 2**30


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests do not open vLLM: whether it is installed does not matter to them."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: object() if name == "vllm" else real(name, *a))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("checkpoints")
    base = write(root / "base")
    return {
        "root": str(root),
        "base": base,
        "other": write(root / "other", hidden_size=96, num_attention_heads=3),
        "judge": write(root / "judge", classifier=True, num_labels=2),
        "lora": write_lora(root / "lora", base, rank=4),
        "lora2": write_lora(root / "lora2", base, 2, rank=12),
    }


def pool(folders: dict[str, str], *models: Any, **options: Any) -> VLLMPool:
    return VLLMPool(build(Options, {"models": list(models), "cache": folders["root"], "dtype": "float32", **options}))


def test_models_state_what_vllm_gives(folders: dict[str, str]) -> None:
    base = folders["base"]
    lora = {"model": base, "adapter": folders["lora"], "name": "tuned"}
    entries = [base, lora, folders["judge"], {"model": base, "task": "embed"}]
    plain, tuned, judge, embed = pool(folders, *entries).models()
    assert pool(folders, base).models()[0].capabilities == {"generate", "logprobs", "score"}
    # with adapters, vLLM's CPU build cannot give prompt log-probabilities
    assert plain.capabilities == tuned.capabilities == {"generate", "logprobs"}
    assert judge.capabilities == {"reward"} and embed.capabilities == {"embed"}
    # an adapter given as a model stands on the base that it names
    alone = pool(folders, folders["lora"]).models()[0]
    assert (alone.adapter, alone.fingerprint, alone.base) == (True, tuned.fingerprint, tuned.base)
    assert (plain.device_group, plain.context_length, tuned.adapter) == ("cpu", 512, True)
    assert plain.tokenizer == tuned.tokenizer and len({m.fingerprint for m in (plain, tuned, judge, embed)}) == 4
    # the adapter is served on the resident base; another task needs another engine
    assert plain.info["base"] == tuned.info["base"] != embed.info["base"]
    assert pool(folders, base, max_model_len=64).models()[0].context_length == 64


def test_arguments_of_the_engine(folders: dict[str, str]) -> None:
    base = folders["base"]
    loras = [{"model": base, "adapter": folders[n]} for n in ("lora", "lora2")]
    source = pool(folders, base, *loras, max_num_seqs=5, engine_args={"block_size": 16})
    source.models()
    (only,) = source.engine.bases.values()
    args = engine_args(only, Placement(device_group="cpu"), source.options)
    assert (args["model"], args["dtype"], args["max_num_seqs"], args["block_size"]) == (base, "float32", 5, 16)
    assert (args["enable_lora"], args["max_loras"], args["max_lora_rank"]) == (True, 3, 16)
    assert args["kv_cache_memory_bytes"] == 2 * GIB and args["load_format"] == "safetensors"
    assert args["generation_config"] == "vllm" and not args["trust_remote_code"]
    two = engine_args(only, Placement(device_group="cuda:0+1", devices=(0, 1), share=0.4, sliced=True), source.options)
    assert (two["gpu_memory_utilization"], two["tensor_parallel_size"]) == (0.4, 2) and "enable_sleep_mode" not in two


def test_likeliest_tokens_are_part_of_what_is_asked(folders: dict[str, str]) -> None:
    base = folders["base"]
    plain, some, many = (pool(folders, base, top_logprobs=k) for k in (0, 3, 50))
    prints = [source.models()[0].fingerprint for source in (plain, some, many)]
    assert len(set(prints)) == 3 and prints[0] == pool(folders, base).models()[0].fingerprint
    args = [
        engine_args(next(iter(s.engine.bases.values())), Placement(device_group="cpu"), s.options) for s in (plain, some, many)
    ]
    assert [a.get("max_logprobs") for a in args] == [None, None, 50]


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"adapter": "lora", "model": "other"}, "was trained on another base"),
        ({"model": "judge", "task": "generate"}, "judge is a sequence classifier"),
        ({"model": "base", "task": "reward"}, "base is a language model"),
        ({"model": "base", "adapter": "lora", "task": "embed"}, "serves adapters on models that generate"),
        ({"model": "base", "devices": [0]}, "devices [0] asked for, but there is no GPU here"),
        ({"model": "/nowhere"}, "does not exist"),
    ],
)
def test_bad_entries_are_one_line(
    folders: dict[str, str], entry: dict[str, Any], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moco_pool_vllm.placement.gpus", list)
    real = {k: folders.get(v, v) if isinstance(v, str) else v for k, v in entry.items()}
    with pytest.raises(ConfigError) as caught:
        pool(folders, real).models()
    assert line in str(caught.value) and len(caught.value.problems) == 1


def test_vllm_is_not_installed(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None)
    with pytest.raises(ConfigError, match=r"pip install 'moco-pool-vllm\[gpu\]' .* or 'moco-pool-vllm\[cpu\]'"):
        pool(folders, folders["base"]).models()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"models": ["base"], "gpu_share": 0.1},
            "base needs about 2.0 GiB on each of cuda:0, which is more than 0.1 of",
        ),
        ({"models": [{"model": "base", "gpu_share": 0.1}]}, "which is more than 0.1 of its 8.0 GiB; raise gpu_share"),
        ({"models": ["base", {"model": "other", "adapter": "lora"}]}, "models[1].adapter: "),
        ({"models": ["base", "/nowhere"]}, "models[1]: /nowhere does not exist"),
    ],
)
def test_on_the_command_line_it_is_one_line_before_any_question(
    folders: dict[str, str],
    given: dict[str, Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On one GPU of 8 GiB, simulated."""
    monkeypatch.setattr("moco_pool_vllm.placement.gpus", lambda: [8 * GIB])

    def real(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: real(v) for k, v in value.items()}
        return folders.get(value, value)

    models = [real(m) for m in given["models"]]
    code, err = moco(monkeypatch, tmp_path, capsys, **{**given, "models": models, "dtype": "float32"})
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: ") and line in err, err


def test_vllm_is_not_installed_on_the_command_line(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else real(name, *a))
    code, err = moco(monkeypatch, tmp_path, capsys, models=[folders["base"]])
    assert (
        code == 2
        and err.startswith("error: pool vllm: vLLM is not installed; pip install 'moco-pool-vllm[")
        and err.count("\n") == 1
    )


def moco(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str], **options: Any
) -> tuple[int, str]:
    """Run a method on the pool; return the exit code and what was said on standard error."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    monkeypatch.chdir(folder)
    given = [f"-opool.{key}={json.dumps(value)}" for key, value in {"cache": str(folder), **options}.items()]
    code = cli._run(["run", "majority_vote", "-p", "vllm", "-d", "skills", "--dev", "1", "--test", "2", *given])
    out, err = capsys.readouterr()
    assert out == "" and not (folder / "runs").exists()
    return code, err


def test_the_plan_is_shown(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two simulated GPUs: each engine's place and share, who has to take turns, and what vLLM cannot serve."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    monkeypatch.setattr("moco_pool_vllm.placement.gpus", lambda: [8 * GIB, 8 * GIB])
    lora = {"model": folders["base"], "adapter": folders["lora"], "name": "tuned"}
    models = [folders["base"], lora, folders["other"], folders["judge"]]

    def groups(cache: float) -> dict[str, str]:
        given = [f"-opool.models={json.dumps(models)}", f"-opool.cache={tmp_path}", f"-opool.kv_cache={cache}"]
        code = cli._run(["plan", "majority_vote", "-p", "vllm", "-d", "skills", "--json", *given])
        body = json.loads(capsys.readouterr().out)
        assert code == 2 and "judge" in body["problems"][0]  # a classifier does not write
        fusion = body["ruled_out"].get("logit_fusion")
        assert fusion is None or "`moco list pool --can step`" in fusion
        return {m["model"]: m["device_group"] for m in body["models"]}

    # the largest has a GPU to itself, and the adapter is where its base is
    together = groups(2.0)
    assert together == {"other": "cuda:0, 90 %", **dict.fromkeys(("base", "tuned", "judge"), "cuda:1, 45 %")}
    turns = {name: group + ", in turns" for name, group in together.items() if name != "other"}
    assert groups(4.0) == {"other": "cuda:0, 90 %", **{n: group.replace("45", "90") for n, group in turns.items()}}


# ---------------------------------------------------------------- plans


def base(key: str, size: float, **fields: Any) -> Base:
    return Base(key=key, name=key, spec=None, task="generate", bytes=int(size * GIB), dtype="bfloat16", **fields)


def test_what_fits_together_stays() -> None:
    places = plan([base("a", 20), base("b", 10)], 0.9, 2 * GIB, memory=[80 * GIB])
    assert {p.device_group for p in places.values()} == {"cuda:0"} and not any(p.sliced for p in places.values())
    assert sum(p.share for p in places.values()) == pytest.approx(0.9, abs=1e-3)
    assert places["a"].share > places["b"].share  # what is left is divided by need
    assert all(p.share * 80 * GIB > 1.15 * b * GIB for p, b in ((places["a"], 20), (places["b"], 10)))


def test_what_does_not_fit_takes_turns() -> None:
    places = plan([base("a", 40), base("b", 40)], 0.9, 2 * GIB, memory=[80 * GIB])
    assert all(p.sliced and p.share == 0.9 for p in places.values())


def test_several_gpus_and_tensor_parallelism() -> None:
    places = plan([base("a", 60), base("b", 50), base("c", 10)], 0.9, 2 * GIB, memory=[80 * GIB, 80 * GIB])
    assert (places["a"].devices, places["b"].devices, places["c"].devices) == ((0,), (1,), (1,))
    places = plan([base("big", 120, tensor_parallel=2)], 0.9, 2 * GIB, memory=[80 * GIB, 80 * GIB])
    assert places["big"].devices == (0, 1) and places["big"].device_group == "cuda:0+1"
    places = plan([base("a", 10, devices=(1,)), base("b", 10)], 0.9, 2 * GIB, memory=[80 * GIB, 80 * GIB])
    assert (places["a"].devices, places["b"].devices) == ((1,), (0,))


def test_the_plan_leaves_other_pools_what_they_need() -> None:
    two = [80 * GIB, 80 * GIB]
    assert plan([base("a", 20)], 0.9, 2 * GIB, memory=two, beside={"cuda:0": 30 * GIB})["a"].devices == (1,)
    (place,) = plan([base("a", 20)], 0.9, 2 * GIB, memory=[80 * GIB], beside={"cuda:0": 20 * GIB}).values()
    assert place.share == pytest.approx(0.9 - 1.15 * 20 / 80, abs=1e-4)  # all that is left
    with pytest.raises(ConfigError, match=r"more than 0\.325 of its 80\.0 GiB"):
        plan([base("a", 30)], 0.9, 2 * GIB, memory=[80 * GIB], beside={"cuda:0": 40 * GIB})


@pytest.mark.parametrize(
    ("bases", "line"),
    [
        ([base("a", 100)], "a needs about 117.0 GiB on each of cuda:0, which is more than 0.9 of its 80.0 GiB"),
        ([base("a", 20, share=0.1)], "more than 0.1 of its 80.0 GiB"),
        ([base("a", 20, share=0.6), base("b", 20, share=0.6)], "add up to 1.2"),
        ([base("a", 20, tensor_parallel=2)], "needs 2 GPUs (devices [0]), there are 1"),
        ([base("a", 20, devices=(3,))], "needs 1 GPUs (devices [3]), there are 1"),
    ],
)
def test_plans_that_cannot_be(bases: list[Base], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(bases, 0.9, 2 * GIB, memory=[80 * GIB])
    assert line in str(caught.value)


def test_groups_of_gpus_may_not_overlap_in_part() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        plan(
            [base("a", 1, devices=(0, 1), tensor_parallel=2), base("b", 1, devices=(1,))],
            0.9,
            GIB,
            memory=[80 * GIB] * 2,
        )


# ---------------------------------------------------------------- turns


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


# ---------------------------------------------------------------- engines that come and go


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
