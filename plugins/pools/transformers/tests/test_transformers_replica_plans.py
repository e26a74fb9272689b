"""On which devices a model is: the plan of replicas, by numbers and as models and commands show it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers_tiny import checkpoint, pool

from moco_core.errors import ConfigError
from moco_pool_transformers import placement
from moco_pool_transformers.placement import Held, Room, replicate

GIB = 1 << 30


def held(label: str, size: float, replicas: int | None = None, adapter: float = 0) -> Held:
    base = label.partition("+")[0]
    return Held(
        label=label,
        base=base,
        bytes=int(size * GIB),
        adapter=label if adapter else "",
        adapter_bytes=int(adapter * GIB),
        replicas=replicas,
    )


def gpus(*sizes: float, kinds: Sequence[str] = ()) -> dict[str, Room]:
    return {f"cuda:{i}": Room(bytes=int(s * GIB), kind=kinds[i] if kinds else "x") for i, s in enumerate(sizes)}


# ---------------------------------------------------------------- the plan


def plan(models: list[Held], homes: list[int], rooms: dict[str, Room]) -> list[list[int]]:
    found, problems = replicate(models, [f"cuda:{h}" for h in homes], rooms)
    assert problems == []
    on = dict.fromkeys(rooms, 0)  # bases once per device, adapters beside them
    seen = set()
    for model, home, further in zip(models, homes, found, strict=True):
        for device in (f"cuda:{home}", *further):
            for key, size in ((model.base, model.bytes), (model.adapter, model.adapter_bytes)):
                if key and (key, device) not in seen:
                    seen.add((key, device))
                    on[device] += size
    if any(found):  # what is planned fits, on every device
        assert all(on[d] <= rooms[d].bytes for d in rooms), on
    return [[int(d[5:]) for d in further] for further in found]


def test_replicas_fill_the_room_that_is_left() -> None:
    assert plan([held("a", 10)], [0], gpus(20)) == [[]]
    assert plan([held("a", 10)], [0], gpus(20, 20, 20)) == [[1, 2]]
    assert plan([held("a", 15)], [0], gpus(20, 20)) == [[1]]  # an empty device may be filled as the home is
    # beside another model only up to 60 %: caches need room too
    assert plan([held("a", 5), held("b", 5)], [0, 1], gpus(20, 20)) == [[1], [0]]
    assert plan([held("a", 7), held("b", 7)], [0, 1], gpus(20, 20)) == [[], []]
    # the one with the fewest replicas is next, the larger first; the device with the least on it
    assert plan([held("a", 8), held("b", 4)], [0, 1], gpus(20, 20, 20, 20)) == [[2, 1, 3], [3, 0, 2]]


def test_no_replicas_where_models_take_turns() -> None:
    assert plan([held("a", 15), held("b", 15), held("c", 1)], [0, 0, 1], gpus(20, 20)) == [[], [], []]


def test_only_devices_alike_serve_one_model() -> None:
    assert plan([held("a", 5)], [0], gpus(20, 20, 20, kinds="xyx")) == [[2]]


def test_a_base_and_its_adapters_are_replicated_together() -> None:
    models = [held("a", 10), held("a+x", 10, adapter=1), held("a+y", 10, adapter=1)]
    assert plan(models, [0, 0, 0], gpus(20, 20)) == [[1], [1], [1]]
    assert plan(models, [0, 0, 0], gpus(20, 11)) == [[], [], []]  # 12 with the adapters


def test_models_listed_several_times_are_their_own_copies() -> None:
    assert plan([held("a", 5), held("a", 5)], [0, 1], gpus(20, 20, 20)) == [[], []]


def test_numbers_of_replicas_are_kept_or_refused() -> None:
    assert plan([held("a", 5, 2)], [0], gpus(20, 20, 20)) == [[1]]
    assert plan([held("a", 5, 1), held("b", 5, 1)], [0, 1], gpus(20, 20)) == [[], []]
    assert plan([held("a", 7, 2), held("b", 7)], [0, 1], gpus(20, 20)) == [[1], []]  # asked for: up to the limit
    assert plan([held("a", 5, 1), held("a+x", 5, 2, adapter=1)], [0, 0], gpus(20, 20)) == [[], [1]]
    _, problems = replicate([held("a", 15, 3)], ["cuda:0"], gpus(20, 20, 10))
    assert problems == [
        "a: 3 replicas of 15.0 GiB do not fit, 2 would on cuda:0, cuda:1, cuda:2 (alike, with room for it)"
    ]


def test_described_models_know_their_devices(tmp_path: Path, two: list[str]) -> None:
    folder, other = checkpoint(tmp_path / "m"), checkpoint(tmp_path / "o", seed=1)
    (alone,) = pool(folder, cache=tmp_path, device="cpu").models()
    (one,) = pool(folder, cache=tmp_path, device="auto").models()
    assert (one.device_group, one.info["replicas"]) == ("cpu:0", ("cpu:1",)) and "replicas" not in alone.info
    same = ("name", "fingerprint", "capabilities", "copy", "memory", "tokenizer", "architecture")
    assert all(getattr(one, n) == getattr(alone, n) for n in same)  # cache keys and seeds come from these
    (off,) = pool(folder, cache=tmp_path, device="auto", replicas=1).models()
    assert "replicas" not in off.info
    a, b = pool({"model": folder, "replicas": 1}, other, cache=tmp_path, device="auto").models()
    assert "replicas" not in a.info and b.info["replicas"] == ({"cpu:0": "cpu:1", "cpu:1": "cpu:0"}[b.device_group],)


def test_machines_with_one_device_are_unaffected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "m")
    monkeypatch.setattr(placement, "rooms", lambda *_: pytest.fail("nothing to ask"))
    monkeypatch.setattr(placement, "devices", lambda: ["cpu"])
    (model,) = pool(folder, cache=tmp_path, device="auto").models()
    assert model.device_group == "cpu" and set(model.info) == {"spec"} and model.info["spec"].dtype == "float32"
    with pytest.raises(ConfigError, match="'m': replicas: 2, but this machine has cpu alone; set replicas: auto"):
        pool(folder, cache=tmp_path, device="auto", replicas=2).models()
    for options in ({"device": "cpu", "replicas": 2}, {"device": "auto"}):
        entry = {"model": folder} if "replicas" in options else {"model": folder, "device": "cpu", "replicas": 2}
        with pytest.raises(ConfigError, match="'m': replicas: 2, but device: cpu names one"):
            pool(entry, cache=tmp_path, **options).models()


def test_replicas_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, two: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "m")
    monkeypatch.setattr(placement, "rooms", lambda names, memory: {d: Room(bytes=1000) for d in names})
    with pytest.raises(ConfigError, match=r"^model 'm': 2 replicas of 0.0 GiB do not fit, 1 would") as caught:
        pool(folder, cache=tmp_path, device="auto", replicas=2).models()
    assert len(caught.value.problems) == 1


def test_the_plan_shows_replicas(tmp_path: Path, two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    from moco_core import cli

    given = [f"-opool.models={json.dumps([checkpoint(tmp_path / 'm')])}", f"-opool.cache={tmp_path}"]
    command = ["plan", "majority_vote", "-p", "transformers", "-d", "skills", *given]
    assert cli._run([*command, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["device_group"], row["replicas"]) == ("cpu:0", ["cpu:1"])
    assert cli._run(command) == 0
    out = capsys.readouterr().out
    assert "cpu:0 + cpu:1" in out and f"all weights together: {2 * row['memory_bytes'] / 2**20:,.1f} MiB" in out
