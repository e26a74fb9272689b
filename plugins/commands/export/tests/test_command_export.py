"""A fitted system that leaves: as weights that other libraries load, or as a system that is opened again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import moco_core as moco
from moco_core import Model, NoOptions, PoolSource, cli, read_records
from moco_core.catalogue import installed
from moco_toolkit_authoring.scripted import ScriptedPool


class Said(PoolSource[NoOptions]):
    """Scripted models."""

    def models(self) -> Sequence[Model]:
        return ScriptedPool({n: lambda call: f"I am {call.model}. The answer is 1." for n in "ab"}).models()


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOCO_CACHE", str(tmp_path / "calls.sqlite"))
    monkeypatch.setattr(installed(), "_registered", {})
    moco.register(Said, "said")
    return tmp_path


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---")[1])
    return found


def test_a_vote_leaves_as_a_system_that_says_the_same(folder: Path, capsys: Any) -> None:
    run = moco.run(pool="said", method="majority_vote", dataset="skills", dev=2, test=4, baselines=False).runs[0]
    assert cli._run(["export", str(run.folder), "--to", "out/vote"]) == 0
    assert capsys.readouterr().err == "out/vote: a system of Majority vote\n"
    assert sorted(p.name for p in Path("out").iterdir()) == ["vote"]  # nothing is left beside it
    with moco.load("out/vote") as there, moco.load(run.folder) as here:
        assert there.ask("What is 1?").reply == here.ask("What is 1?").reply
    text = Path("out/vote/README.md").read_text()
    assert front(text) == {"library_name": "moco", "tags": ["moco", "majority_vote"], "license": "other"}
    assert "| a | `" in text and "| unknown |" in text and "moco run majority_vote -d skills -p said" in text
    score = json.loads((run.folder / "run.json").read_text())["score"]
    assert f"| skills | exact_match | {score['mean']:.3f} | [{score['low']:.3f}, {score['high']:.3f}] | 4 |" in text


def test_wrong_folders_are_one_line(folder: Path, capsys: Any) -> None:
    Path("full").mkdir()
    Path("full/file").touch()
    run = moco.run(pool="said", method="majority_vote", dataset="skills", dev=0, test=2, baselines=False).runs[0]
    for args, code, line in (
        (["no/run", "--to", "x"], 1, "error: no/run: no saved system here"),
        ([str(run.folder), "--to", "full"], 2, "error: --to full: not empty; give a new folder"),
        ([str(run.folder), "--to", "full/file"], 2, "error: --to full/file: not empty; give a new folder"),
    ):
        capsys.readouterr()
        assert cli._run(["export", *args]) == code
        assert capsys.readouterr().err.startswith(line)
    assert not Path("x").exists()


@pytest.mark.slow
def test_a_merge_leaves_as_a_checkpoint_that_transformers_loads(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pool = {"name": "tiny", "models": ["base", "arithmetic", "facts"]}
    merging = {"name": "dare_ties", "base": "base"}
    run = moco.run(pool=pool, method=merging, dataset="skills", dev=0, test=2, baselines=False).runs[0]
    assert cli._run(["export", str(run.folder), "--to", "merged"]) == 0
    model, tokenizer = AutoModelForCausalLM.from_pretrained("merged"), AutoTokenizer.from_pretrained("merged")
    row = next(iter(read_records(run.folder)))
    asked = [{"role": role, "content": text} for role, text in row["calls"][0]["seen"]["messages"]]
    read = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**read, max_new_tokens=row["calls"][0]["completion_tokens"], do_sample=False)
    text = tokenizer.decode(said[0, read["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text == row["reply"]["text"]
    card = Path("merged/README.md").read_text()
    assert front(card)["library_name"] == "transformers" and "| arithmetic |" in card


@pytest.mark.slow
def test_a_merge_of_adapters_leaves_as_an_adapter_that_peft_loads(folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    pool = {"name": "tiny", "models": ["arithmetic", "facts"], "form": "adapter"}
    merging = {"name": "lorahub", "max_inference_step": 2, "dev_samples": 1}
    run = moco.run(pool=pool, method=merging, dataset="skills", dev=2, test=2, baselines=False).runs[0]
    assert cli._run(["export", str(run.folder), "--to", "adapter"]) == 0
    told = json.loads(Path("adapter/adapter_config.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(told["base_model_name_or_path"])
    loaded = PeftModel.from_pretrained(base, "adapter")
    assert any("lora" in name for name, _ in loaded.named_parameters())
    assert front(Path("adapter/README.md").read_text())["library_name"] == "peft"
