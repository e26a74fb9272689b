"""Where models go: devices that are there, sizes, what the plan shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers_tiny import checkpoint

from moco_pool_transformers import placement
from moco_pool_transformers.placement import missing, spread


@pytest.mark.parametrize(
    ("device", "found", "problem"),
    [
        ("auto", ["cpu"], None),
        ("cpu", ["cuda:0"], None),
        ("cuda", ["cuda:0", "cuda:1"], None),
        ("cuda:1", ["cuda:0", "cuda:1"], None),
        ("mps", ["mps"], None),
        ("cuda:2", ["cuda:0", "cuda:1"], "'cuda:2' is not on this machine; it has cuda:0, cuda:1"),
        ("cuda", ["cpu"], "'cuda' is not on this machine; it has cpu"),
        ("cuda:x", ["cuda:0"], "expected cpu, cuda, cuda:N, mps or auto, got 'cuda:x'"),
        ("gpu", ["cuda:0"], "expected cpu, cuda, cuda:N, mps or auto, got 'gpu'"),
    ],
)
def test_devices_that_are_not_there_are_named(
    device: str, found: list[str], problem: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "devices", lambda: found)
    assert missing(device) == problem


def test_models_are_spread_by_size() -> None:
    gpus = ["cuda:0", "cuda:1"]
    sizes = [("a", "a", 8), ("b", "b", 6), ("c", "c", 5), ("d", "d", 1)]
    assert spread(sizes, [""] * 4, gpus) == ["cuda:0", "cuda:1", "cuda:1", "cuda:0"]
    assert spread(sizes, ["cuda:1", "", "", ""], gpus) == ["cuda:1", "cuda:0", "cuda:0", "cuda:1"]
    adapters = [("a", "a", 8), ("b", "b", 2), ("a", "a+x", 8), ("a", "a+y", 8)]
    assert spread(adapters, [""] * 4, gpus) == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]  # with their base
    copies = [("a", "a", 8), ("a", "a", 8), ("a", "a", 8)]
    assert spread(copies, [""] * 3, gpus) == ["cuda:0", "cuda:1", "cuda:0"]  # replicas while there is a free device
    assert spread(sizes, [""] * 4, ["cpu"]) == ["cpu"] * 4
    assert spread(sizes, ["cuda"] + [""] * 3, gpus)[0] == "cuda:0"
    assert spread(sizes, [""] * 4, gpus, {"cuda:0": 20}) == ["cuda:1"] * 4  # another pool works on the first
    assert spread(sizes, [""] * 4, gpus, {"cuda:0": 7}) == ["cuda:1", "cuda:0", "cuda:1", "cuda:0"]


def test_the_plan_shows_the_placement(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two simulated GPUs: the large model on one, the small ones on the other, a second copy where there is none yet."""
    pytest.importorskip("moco_dataset_skills", reason="needs a dataset")
    pytest.importorskip("moco_method_majority_vote", reason="needs a method")
    from moco_core import cli

    monkeypatch.setattr(placement, "devices", lambda: ["cuda:0", "cuda:1"])
    monkeypatch.setattr(placement, "rooms", lambda names, memory: {d: placement.Room(bytes=1 << 30) for d in names})
    large = checkpoint(tmp_path / "large", "qwen2", hidden_size=256)
    models = [str(folder), large, {"model": checkpoint(tmp_path / "small", "qwen2"), "name": "small"}, large]
    given = [f"-opool.models={json.dumps(models)}", f"-opool.cache={tmp_path}"]
    assert cli._run(["plan", "majority_vote", "-p", "transformers", "-d", "skills", "--json", *given]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    shown = {m["model"]: m["device_group"] for m in rows}
    assert (shown["large-1"], shown["large-2"]) == ("cuda:0", "cuda:1")
    assert sorted((shown["model"], shown["small"])) == ["cuda:0", "cuda:1"]
    # what is listed twice has its copies; the others get a replica, since there is room
    both = {"cuda:0", "cuda:1"}
    assert {m["model"]: set(m["replicas"]) for m in rows} == {
        "large-1": set(),
        "large-2": set(),
        **{name: both - {shown[name]} for name in ("model", "small")},
    }
