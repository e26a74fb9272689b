"""Cases of the kinds that people reported: each line of ``reported_cases.jsonl`` is an input, what must come of it, and why."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from own_programs import isolation

from moco_core import Example, Question, Sampling
from moco_core.catalogue import installed
from moco_core.errors import CapabilityError, DatasetError, ModelCallError, PromptTooLong
from moco_core.options import build
from moco_core.runtime.cache import Cache
from moco_core.types import Generation
from moco_toolkit_answers import read
from moco_toolkit_authoring import open_state, score_of

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for line in (Path(__file__).with_name("reported_cases.jsonl")).read_text("utf-8").splitlines()
    for case in [json.loads(line)]
}
Case = Mapping[str, Any]


@pytest.mark.parametrize("name", CASES)
def test_a_reported_case_comes_out_as_it_must(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    case = {**CASES[name], "folder": tmp_path, "setenv": monkeypatch.setenv, "capsys": capsys}
    CHECKS[case["check"]](case)


# ---------------------------------------------------------------- replies


def metric(name: str, **options: Any) -> Any:
    cls: Any = installed().load("metric", name)
    return cls(build(cls.Options, options))


def question(case: Case) -> Question:
    kind = case.get("kind", "choice" if "choices" in case else "text")
    return Question(
        id="q",
        prompt=case.get("prompt", "?"),
        answer_kind=kind,
        choices=case.get("choices", ()),
        labels=case.get("labels", ()),
    )


def score(case: Case) -> None:
    example = Example(question=question(case), references=case.get("references", ()), answer=case.get("answer"))
    assert score_of(metric(case["metric"]), example, case["reply"]).value == case["score"]


def status(case: Case) -> None:
    assert read(question(case), case["reply"]).status == case["status"]


def code(case: Case) -> None:
    meta = {"entry_point": "twice", "test": "assert twice(4) == 8"}
    asked = Question(id="q", prompt="Write twice.", answer_kind="code", meta={"entry_point": "twice"})
    judge = metric("code_execution", isolation=isolation(), seconds=30)
    got = score_of(judge, Example(question=asked, meta=meta), case["reply"])
    assert got.value == case["score"], got


# ---------------------------------------------------------------- servers


def asked(case: Case, fault: Any, prompt: str = "a", *, sampling: Any = None, cache: Cache | None = None, **more: Any):
    """Return what one question to a stub server came to, and the requests that the server got."""
    from moco_pool_openai.pool import OpenAIPool, Options
    from moco_pool_openai.testing import StubServer

    with StubServer(models=["alpha"]) as stub:
        stub.fault = fault
        stub.list_fault = more.pop("list_fault", stub.list_fault)
        given = {"models": ["alpha"], "base_url": stub.url, "server": "s", "logprobs": "no"}
        settings = {"retries": 2, "backoff": [0.001, 0.01], **more}
        (model,) = OpenAIPool(build(Options, {**given, **settings})).models()

        async def work() -> Any:
            async with open_state(sampling=Sampling(max_new_tokens=32, **(sampling or {})), cache=cache) as state:
                (found,) = await state.context("respond").gather(
                    [state.context("respond").generate(model, prompt)], tolerate=ModelCallError
                )
                return found

        return asyncio.run(work()), list(stub.requests)


def says(body: Any, status: int = 200, **headers: str) -> Any:
    from moco_pool_openai.testing import Fault

    return Fault(status=status, headers=headers, body=body if isinstance(body, str) else json.dumps(body))


def reply(case: Case) -> None:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", **case["message"]}, "finish_reason": "stop"}]}
    found, requests = asked(case, lambda request: says(body))
    assert isinstance(found, Generation) and len(requests) == 1
    assert (found.text, found.reasoning) == (case["text"], case.get("reasoning", ""))
    if "noncompliance" in case:
        meta = {"category": "safety", "subcategory": "safety", "comply": False}
        example = Example(question=Question(id="q", prompt="?", answer_kind="open"), meta=meta)
        assert score_of(metric("noncompliance", judge="rules"), example, found.text).value == case["noncompliance"]


def server(case: Case) -> None:
    cache = Cache(case["folder"] / "calls.sqlite")
    found, requests = asked(case, lambda request: says(case["body"], case.get("status", 200)), cache=cache)
    assert isinstance(found, PromptTooLong if case.get("error") == "PromptTooLong" else ModelCallError)
    assert case.get("says", "") in str(found) and "\n" not in str(found)
    assert len(requests) == case["requests"]
    well, again = asked(case, lambda request: None, cache=cache)  # a healthy server is asked anew
    assert isinstance(well, Generation) and len(again) == 1
    cache.close()


def patience(case: Case) -> None:
    start = time.monotonic()
    wait = {"retry-after": str(case["retry_after"])}
    found, _ = asked(case, lambda request: says({}, 429, **wait), deadline=case["deadline"])
    assert isinstance(found, ModelCallError) and time.monotonic() - start < case["seconds"]


def key(case: Case) -> None:
    case["setenv"]("OPENAI_API_KEY", case["key"])
    found, requests = asked(case, lambda request: None)
    assert isinstance(found, Generation) and requests[0].headers["authorization"].endswith(case["secret"])
    failed, _ = asked(case, lambda request: says({"error": f"{requests[0].headers['authorization']} is refused"}, 400))
    assert case["secret"] not in repr(failed) and case["secret"] not in str(case["capsys"].readouterr())


def listed(case: Case) -> None:
    found, _ = asked(case, lambda request: None, list_fault=lambda number: says(case["body"]))
    assert isinstance(found, Generation)


def sent(case: Case) -> None:
    _, (request,) = asked(case, lambda request: None, sampling=case["sampling"])
    assert not set(case["absent"]) & set(request.body)


def prompt(case: Case) -> None:
    found, requests = asked(case, lambda request: None, case["prompt"])
    assert isinstance(found, ModelCallError) and case["says"] in str(found) and len(requests) == case["requests"]


# ---------------------------------------------------------------- data


def custom(case: Case) -> None:
    from moco_dataset_custom import Custom, Options

    path = case["folder"] / ("rows.csv" if "csv_cell" in case else "rows.jsonl")
    if "csv_cell" in case:
        path.write_text(f"question,answer\n{'x' * case['csv_cell']},b\nshort,c\n")
    else:
        rows = [json.dumps(_choices(row)) for row in case.get("rows", ())]
        path.write_text("".join(line + "\n" for line in case.get("lines", rows)), "utf-8")
    data = Custom(build(Options, {"path": str(path), "dev_size": 0, "test_size": 0, **case.get("options", {})}))
    try:
        found = [*data.examples("dev"), *data.examples("test")]
    except DatasetError as error:
        assert "or_says" in case and all(word in str(error) for word in (path.name, *case["or_says"]))
        assert "\n" not in str(error)
        return
    if "csv_cell" in case:
        assert {len(e.question.prompt) for e in found} == {case["csv_cell"], 5}
    if "letter" in case:
        assert {e.question.letters[e.answer or 0] for e in found} == {case["letter"]}
    if "asked" in case:
        assert {e.question.prompt for e in found} == set(case["asked"])
    if "dropped" in case:
        assert {sum(why.values()) for why in data.notes()["dropped"].values()} == {case["dropped"]}


def _choices(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**row, "choices": [f"x{i}" for i in range(row["choices"])]} if "choices" in row else row


# ---------------------------------------------------------------- local models


def opened(*entries: Any, cache: Path) -> Any:
    from moco_pool_transformers.pool import Options, TransformersPool

    given = {"models": list(entries), "device": "cpu", "cache": str(cache / "hashes")}
    return TransformersPool(build(Options, given)).models()


def local(case: Case) -> None:
    from random_checkpoints import TEMPLATE, tokenizer, write
    from tokenizers import AddedToken

    tok = tokenizer(TEMPLATE)
    marks = ("<|channel|>", "<|message|>", "<|start|>")
    tok.add_tokens([AddedToken(name, special=True) for name in marks], special_tokens=True)
    folder = write(case["folder"] / "m", tok=tok)
    (model,) = opened(folder, cache=case["folder"])
    ids = tok(case["emits"], add_special_tokens=False)["input_ids"]
    with model.engine.use(model) as (loaded,):
        made = loaded.generation(loaded.render_input({"text": "?"}), ids, [0.0] * len(ids), "length")
    assert (made.text, made.reasoning) == (case["text"], case["reasoning"])


def template(case: Case) -> None:
    from random_checkpoints import write

    (model,) = opened(write(case["folder"] / "m", template=case["template"]), cache=case["folder"])
    with model.engine.use(model) as (loaded,):
        rendered = loaded.render_input({"messages": [["user", case["question"]]]})
        assert case["question"] in loaded.tokenizer.decode(rendered.ids)


def adapters(case: Case) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from random_checkpoints import write
    from transformers import AutoModelForCausalLM

    base = write(case["folder"] / "base")
    for name, init in (("odd", case["init"]), ("even", True)):
        torch.manual_seed(len(name))
        config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=init)
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        with torch.no_grad():
            for p in tuned.parameters():
                p.add_(torch.randn_like(p) * 0.2 if p.requires_grad else 0)
        tuned.save_pretrained(case["folder"] / name)
    row = torch.tensor([[0, 40, 50, 60, 70]])
    entries = [{"model": base, "adapter": str(case["folder"] / name)} for name in ("odd", "even")]
    models = opened(*entries, base, cache=case["folder"])
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    even = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), entries[1]["adapter"]
    )
    want = {1: even.eval(), 2: plain.eval()}
    with models[0].engine.use(models[0]) as (loaded,):  # the one that takes from its base is opened first
        loaded.run(input_ids=row)
    for i, module in want.items():
        with models[i].engine.use(models[i]) as (loaded,), torch.inference_mode():
            assert torch.allclose(loaded.run(input_ids=row).logits, module(row).logits, atol=5e-4)


def composition(case: Case) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from random_checkpoints import write
    from transformers import AutoModelForCausalLM

    from moco_core.models import Pool
    from moco_toolkit_merging import Merge

    base = write(case["folder"] / "base")
    states = []
    for i, layers in enumerate(case["layers"]):
        torch.manual_seed(i)
        config = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=layers, init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config).save_pretrained(
            case["folder"] / str(i)
        )
        fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        states.append(PeftModel.from_pretrained(fresh, case["folder"] / str(i)).merge_and_unload().state_dict())
    module = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    start = {k: v.clone() for k, v in module.state_dict().items()}
    module.load_state_dict({k: v + 0.7 * (states[0][k] - v) + 0.6 * (states[1][k] - v) for k, v in start.items()})
    models = opened(*({"model": base, "adapter": str(case["folder"] / str(i))} for i in (0, 1)), cache=case["folder"])
    mixed = Merge.adapters([0.7, 0.6], list(models)).model(Pool(models), "mixed")
    row = torch.tensor([[0, 40, 50, 60, 70]])
    with mixed.engine.use(mixed) as (loaded,), torch.inference_mode():
        assert torch.allclose(loaded.run(input_ids=row).logits, module(row).logits, atol=5e-4)


def folders(case: Case) -> None:
    from random_checkpoints import write

    from moco_toolkit_merging import Mean
    from moco_toolkit_merging.files import merge_folders

    paths = [Path(write(case["folder"] / name, seed=i)) for i, name in enumerate("ab")]
    file = paths[1] / "tokenizer.json"
    data = json.loads(file.read_text("utf-8"))
    words = data["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    file.write_text(json.dumps(data), "utf-8")
    with pytest.raises(CapabilityError) as caught:
        merge_folders(Mean(), paths, case["folder"] / "out")
    assert "\n" not in str(caught.value) and not (case["folder"] / "out").exists()


# ---------------------------------------------------------------- the command line


def command(case: Case) -> None:
    from moco_core import cli

    with pytest.raises(SystemExit) as caught:
        cli.main([*case["line"], "-p", "tiny", "--cache", str(case["folder"] / "calls.sqlite")])
    said = case["capsys"].readouterr().err
    assert caught.value.code == case["code"], said
    assert len(said.strip().splitlines()) == 1 and said.startswith("error: ")


def doctor(case: Case) -> None:
    card = case["folder"] / "moco_method_broken-1.0.dist-info"
    card.mkdir()
    (card / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: moco-method-broken\nVersion: 1.0\nKeywords: moco,spec-1\n\n"
    )
    (card / "entry_points.txt").write_text("[moco.method]\nbroken = no_such_module_anywhere\n")
    path = os.pathsep.join([str(case["folder"]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "moco_core", "doctor"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    (line,) = [line for line in done.stdout.splitlines() if "broken" in line]
    assert done.returncode == 1 and line.startswith("problem") and "no_such_module_anywhere" in line


CHECKS: Mapping[str, Callable[[Case], None]] = {
    "score": score,
    "status": status,
    "code": code,
    "reply": reply,
    "server": server,
    "patience": patience,
    "key": key,
    "list": listed,
    "sent": sent,
    "prompt": prompt,
    "custom": custom,
    "local": local,
    "template": template,
    "adapters": adapters,
    "composition": composition,
    "folders": folders,
    "command": command,
    "doctor": doctor,
}
