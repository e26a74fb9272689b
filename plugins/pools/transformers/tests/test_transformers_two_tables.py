"""Models with two rotary tables: each row by the table of its own length, whatever stands beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM
from transformers_tiny import SMALL, ask, pool, serve, tokenizer

from moco_core.models import Call, Model
from moco_toolkit_decoding import runner

SWITCH = 20
SHORT, LONG = "the quick brown fox", "numbers 0 1 2 3 4 5 6 7 8 9 ten eleven; let me think about it, the answer is 42"
NEAR = "what is the capital of France? The capital is Paris."  # crosses the switch while it is answered


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("longrope")
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 4.0, 8.0],
        "original_max_position_embeddings": SWITCH,
    }
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    sizes = {**SMALL, "vocab_size": len(tokenizer()), "original_max_position_embeddings": SWITCH, **ids}
    module = Phi3ForCausalLM(Phi3Config(rope_parameters=rope, **sizes))
    with torch.no_grad():
        for name, p in module.named_parameters():
            if p.ndim > 1:
                p.mul_(4.0 if "head" in name or "embed" in name else 2.5)
    module.save_pretrained(out)
    tokenizer().save_pretrained(out)
    return out


@pytest.fixture
def model(folder: Path, tmp_path: Path) -> Model:
    (found,) = pool(str(folder), cache=tmp_path).models()
    assert found.context_length == 256 and found.can("step")
    return found


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ids_of(text: str) -> list[int]:
    found: list[int] = tokenizer()(text)["input_ids"]
    return found


@pytest.mark.parametrize("chunk", [4096, 5])
def test_replies_are_those_of_whole_forwards_alone_and_side_by_side(
    model: Model, module: Any, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(runner, "CHUNK", chunk)  # a long prompt is read in pieces, of which the first are short
    texts = [SHORT, LONG, NEAR, "a", LONG + NEAR]
    assert len(ids_of(NEAR)) < SWITCH < len(ids_of(NEAR)) + 24 and len(ids_of(LONG)) > SWITCH
    want = []
    for text in texts:
        ids = torch.tensor([ids_of(text)])
        # with a cache, the library's generate forgets the text when it crosses the switch (transformers 5.19)
        settings: dict[str, Any] = {"do_sample": False, "use_cache": False, "max_new_tokens": 24}
        settings |= {"eos_token_id": [1, 2], "pad_token_id": 0}
        want.append(module.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, ids.shape[1] :].tolist())
    calls = [ask(model, text, max_new_tokens=24) for text in texts]
    assert [list(r.token_ids) for r in serve(model, calls)] == want
    assert [list(serve(model, [call])[0].token_ids) for call in calls] == want


def test_scores_and_vectors_are_those_of_forwards_of_their_own(model: Model, module: Any) -> None:
    tails = [" fox", " over the lazy dog and runs away"]
    prompts = [SHORT, LONG, NEAR]
    calls = [Call(model, "score", {"text": text, "continuations": tails}, {}) for text in prompts]
    for text, scores in zip(prompts, serve(model, calls), strict=True):
        for tail, score in zip(tails, scores, strict=True):
            ids, n = ids_of(text + tail), len(score.token_ids)
            with torch.inference_mode():
                logp = module(torch.tensor([ids[:-1]]), use_cache=False).logits[0].log_softmax(-1)
            want = logp[-n:].gather(-1, torch.tensor(ids[-n:])[:, None])[:, 0].tolist()
            assert list(score.token_logprobs) == pytest.approx(want, abs=2e-4)
    (got,) = serve(model, [Call(model, "embed", {"texts": prompts}, {})])
    for text, vector in zip(prompts, got, strict=True):
        with torch.inference_mode():
            states = module.model(torch.tensor([ids_of(text)]), use_cache=False).last_hidden_state[0]
        assert list(vector) == pytest.approx(states.mean(0).tolist(), abs=2e-4)


@pytest.mark.parametrize("plain_head", [True, False])
def test_rows_that_cross_the_switch_in_either_direction_are_read_anew(
    model: Model, module: Any, plain_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [ids_of(text) for text in (SHORT, LONG, NEAR)]

    def agree(logits: torch.Tensor, rows: list[list[int]]) -> None:
        for got, row in zip(logits, rows, strict=True):
            with torch.inference_mode():
                want = module(torch.tensor([row]), use_cache=False).logits[0, -1]
            assert torch.allclose(got, want, atol=2e-3)

    with model.engine.use(model) as (loaded,):  # type: ignore[attr-defined]
        reader = loaded.runner
        cache = reader.cache()
        monkeypatch.setattr(reader._probe, "plain_head", plain_head)
        agree(reader.feed(cache, cache.append(3), texts)[0], texts)
        more = [[*row, *ids_of(" and runs away from it")] for row in texts]  # the third crosses it forwards
        agree(reader.feed(cache, [0, 1, 2], [b[len(a) :] for a, b in zip(texts, more, strict=True)])[0], more)
        back = [more[0], more[1][: SWITCH - 2], more[2][:-8]]  # the second backwards
        for row, ids in enumerate(back):
            cache.rollback(row, len(ids) - 1)
        agree(reader.feed(cache, [0, 1, 2], [[*ids[cache.lengths[row] :]] for row, ids in enumerate(back)])[0], back)
        scores = [row for _, row, _ in reader.feed_all(cache, [1], [ids_of(LONG)])]
        with torch.inference_mode():
            whole = module(torch.tensor([[*back[1], *ids_of(LONG)]]), use_cache=False).logits[0, len(back[1]) :]
        assert torch.allclose(torch.cat(scores), whole, atol=2e-3)
