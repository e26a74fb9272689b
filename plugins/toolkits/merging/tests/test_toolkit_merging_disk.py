"""Saving merged weights on a disk that is really full, and in a folder that is really read-only."""

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

steps = pytest.importorskip("small_disk").steps

FILLER = Path(__file__).with_name("disk_filler.py")
SKILLS = [
    "-d",
    "skills",
    "-o",
    "sampling.max_new_tokens=4",
    "-o",
    "metric=filler",
    "--plugin",
    str(FILLER),
    "--dev",
    "2",
]
ROOM = 700_000  # takes any of the results here once, beside nothing else

pytest.importorskip("moco_dataset_skills")
pytest.importorskip("moco_method_greedy_soup")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    return tmp_path


@pytest.fixture
def entries(factory):
    def make(kind):
        if kind == "full":
            return [factory.model("a", 1), factory.model("b", 2)]
        base = factory.model("base", 7)
        return [factory.adapter(n, base, i, rank=12) for i, n in enumerate(("one", "two"))]

    return make


def command(name, entries, export, *more):
    pool = ["-p", "transformers", "-o", f"pool.models={json.dumps(entries)}", "-o", "pool.device=cpu"]
    own = {
        "run": ["greedy_soup", "--test", "2", "--no-baselines", "--json"],
        "plan": ["greedy_soup"],
        "ask": ["greedy_soup", "What is 3 plus 4?"],
    }[name]
    given = [*SKILLS]
    if name == "plan":
        given = given[:-2]
    return {"moco": [name, *own, *given, *pool, "-o", f"method.export={export}", "-o", "method.recipe=uniform", *more]}


def errors(result):
    assert "Traceback" not in result["err"], result["err"]
    return [line for line in result["err"].splitlines() if line.startswith("error: ")]


SEARCH = ("-o", "method.recipe=greedy", "-o", "method.accept=ge")
LOAD = {
    "full": "transformers.AutoModelForCausalLM.from_pretrained({0!r}).config.vocab_size",
    "adapter": "len(peft.PeftConfig.from_pretrained({0!r}).target_modules)",
}


def tensors(kind, given):
    """Bytes of the result's tensors: what is known of its size before the work."""
    if kind == "full":
        return Path(given[0], "model.safetensors").stat().st_size
    return sum(
        4 * t.numel() for e in given for t in load_file(Path(e["adapter"], "adapter_model.safetensors")).values()
    )


@pytest.mark.parametrize("kind", ["full", "adapter"])
@pytest.mark.parametrize("beside", [None, pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_during_the_search(place, entries, kind, beside):
    """Nothing is left, or room for the tensors and ``beside`` pages, too little for what comes with them: writing begins."""
    disk = place / "disk"
    export, filler = str(disk / "deep" / "out"), str(disk / "filler")
    given = entries(kind)
    left = 0 if beside is None else 4096 * (math.ceil(tensors(kind, given) / 4096) + beside)
    environ = {"environ": {"FILL": filler, "LEFT": str(left)}}
    run, ask = (command(c, given, export, *SEARCH) for c in ("run", "ask"))
    load = {"eval": LOAD[kind].format(export), "with": ["transformers", "peft"]}
    todo = [run | environ, {"list": str(disk)}, ask, {"list": str(disk)}, {"remove": filler}, run, load, run, ask]
    torn, after, asked, after_ask, _, again, loaded, third, answered = steps(disk, ROOM, todo, cwd=place)
    for result, late in ((torn, True), (asked, beside is not None)):
        (line,) = errors(result)
        assert result["code"] == (1 if late else 2), line  # too small from the beginning: refused before the work
        if beside is None:
            assert f"{export}: needs " in line and line.endswith("are free on that disk; choose another one")
        else:
            assert f"{export}: cannot be written: No space left on device; nothing was left behind" in line
            assert line.endswith("make room and run the same command again")
    assert after == after_ask == ["filler"]
    assert again["code"] == third["code"] == answered["code"] == 0, again["err"] + third["err"] + answered["err"]
    (row,) = json.loads(again["out"])[0]["rows"]
    assert loaded and row["status"] == "finished" and row["calls"] - row["cached_calls"] <= 2  # the two test questions


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_disk_that_is_too_small_is_refused_before_the_work(place, entries, kind):
    disk, given = place / "disk", entries(kind)
    todo = [command(c, given, disk / "out") for c in ("run", "plan", "ask")]
    for result in steps(disk, 16_384, todo, cwd=place):
        (line,) = errors(result)
        assert result["code"] == 2 and "are free on that disk; choose another one" in line
    assert not list(disk.iterdir()) and not (place / "runs").exists()


def test_a_read_only_folder_is_refused_before_the_work(place, entries):
    readonly, given = place / "readonly", entries("full")
    todo = [command(c, given, readonly / deep) for c in ("run", "plan", "ask") for deep in ("out", "deep/out")]
    todo.append(command("run", given, readonly))  # the folder itself: it is there and empty
    todo.append(command("run", given, place / "disk"))  # what is written beside it cannot take its place
    *inside, mounted = steps(place / "disk", ROOM, todo, readonly=readonly, cwd=place)
    for result in inside:
        (line,) = errors(result)
        assert result["code"] == 2 and f"cannot be written: no permission in {readonly}" in line
    assert mounted["code"] == 2 and "disk: is a mounted disk; give a new folder on it" in errors(mounted)[0]
    assert not list(readonly.iterdir()) and not (place / "runs").exists()


def test_streaming_to_a_disk_that_fills_up_and_to_a_read_only_folder(place, factory):
    disk, readonly = place / "disk", place / "readonly"
    folders, filler = [factory.model("a", 1), factory.model("b", 2)], str(disk / "filler")

    def merge(out, rule="Filling"):
        return {"eval": f"disk_filler_steps.merge({rule!r}, {folders!r}, {str(out)!r})", "with": ["disk_filler_steps"]}

    torn = merge(disk / "deep" / "out") | {"environ": {"FILL": filler, "LEFT": "20000"}}
    todo = [
        torn,
        {"list": str(disk)},
        {"remove": filler},
        merge(disk / "deep" / "out"),
        merge(readonly / "out"),
        merge(readonly),
    ]
    failed, left, _, again, refused, itself = steps(
        disk, ROOM, todo, readonly=readonly, cwd=place, path=[Path(__file__).parent]
    )
    assert (
        failed[0] == "ExportFailed"
        and failed[1] == 1
        and "No space left on device; nothing was left behind" in failed[2]
    )
    assert left == ["filler"] and again == []
    assert refused[:2] == itself[:2] == ["ConfigError", 2]
    assert all(f"no permission in {readonly}" in line for _, _, line in (refused, itself))
