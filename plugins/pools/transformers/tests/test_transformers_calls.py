"""Scores, embeddings, rewards, private calls, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers_tiny import FakeInbox, ask, checkpoint, encoder, pool, serve

from moco_core.errors import EngineOutOfMemory, ModelCallError, PromptTooLong
from moco_core.models import Call
from moco_pool_transformers.loaded import LoadedModel


def test_score_equals_cross_entropy(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "qwen2")
    model = pool(folder, cache=tmp_path).models()[0]
    prompts = ["the quick brown", "what is the capital", "a"]
    tails = [" fox jumps", " of France? The capital is Paris. Stop here." * 9, "", "x"]
    calls = [Call(model, "score", {"text": p, "continuations": tails}, {}) for p in prompts]
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tok = AutoTokenizer.from_pretrained(folder)
    for prompt, scores in zip(prompts, serve(model, calls), strict=True):
        assert [type(s).__name__ for s in scores] == ["ContinuationScore"] * 4
        head = tok(prompt)["input_ids"]
        # the prompt is read once for all continuations
        assert [s.prompt_tokens for s in scores][1:] == [0] * 3 and len(head) - 2 <= scores[0].prompt_tokens <= len(
            head
        )
        for tail, got in zip(tails, scores, strict=True):
            whole = tok(prompt + tail)["input_ids"]
            kept = next((i for i, (a, b) in enumerate(zip(head, whole, strict=False)) if a != b), len(head))
            assert list(got.token_ids) == whole[kept:]
            if whole[kept:]:
                with torch.no_grad():
                    logits = module(torch.tensor([whole])).logits[0]
                loss = torch.nn.functional.cross_entropy(
                    logits[kept - 1 : -1], torch.tensor(whole[kept:]), reduction="none"
                )
                assert list(got.token_logprobs) == pytest.approx((-loss).tolist(), abs=2e-4)
            else:
                assert got.logprob == 0


def test_score_where_the_seam_merges(tmp_path: Path) -> None:
    """A continuation that changes the prompt's last token is scored from where the tokens part."""
    folder = checkpoint(tmp_path / "m")
    model = pool(folder, cache=tmp_path).models()[0]
    tok = AutoTokenizer.from_pretrained(folder)
    whole, head = tok("the capital")["input_ids"], tok("the cap")["input_ids"]
    kept = next(i for i, (a, b) in enumerate(zip([*head, -1], [*whole, -1], strict=False)) if a != b)
    assert kept < len(head)  # otherwise this test shows nothing
    ((score,),) = serve(model, [Call(model, "score", {"text": "the cap", "continuations": ["ital"]}, {})])
    assert list(score.token_ids) == whole[kept:]


def test_embedding_is_the_mean_of_the_last_hidden_states(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "gpt2")
    model = pool(folder, cache=tmp_path).models()[0]
    texts = ["the quick brown fox", "a", "what is the capital of France?"]
    (got,) = serve(model, [Call(model, "embed", {"texts": texts}, {})])
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tok = AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(texts, got, strict=True):
        with torch.no_grad():
            hidden = module.transformer(**tok(text, return_tensors="pt")).last_hidden_state[0]
        assert list(vector) == pytest.approx(hidden.mean(0).tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "RobertaModel", "ModernBertModel"])
def test_an_encoder_embeds_as_it_does_alone_and_does_nothing_else(tmp_path: Path, kind: str) -> None:
    """Texts of different lengths share a batch: a shorter one is neither shifted nor does it read its padding."""
    folder = encoder(tmp_path / "m", kind)
    model = pool(folder, cache=tmp_path).models()[0]
    assert model.capabilities == {"embed", "train", "weights"}
    texts = ["the quick brown fox jumps over the lazy dog", "a", "what is the capital of France?"]
    (got,) = serve(model, [Call(model, "embed", {"texts": texts}, {})])
    module = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    tok = AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(texts, got, strict=True):
        row = tok(text, return_tensors="pt")
        with torch.no_grad():
            hidden = module(row["input_ids"], attention_mask=row["attention_mask"]).last_hidden_state[0]
        assert row["input_ids"][0, -1] == tok.eos_token_id  # what closes a text is read too
        assert list(vector) == pytest.approx(hidden.mean(0).tolist(), abs=1e-4)


def test_a_text_beyond_the_positions_that_an_encoder_counts_fails_alone(tmp_path: Path) -> None:
    """RoBERTa's table of positions is longer than what it reads: it begins behind the padding token."""
    folder = encoder(tmp_path / "m", "RobertaModel", model_max_length=20)
    model = pool(folder, cache=tmp_path).models()[0]
    calls = [Call(model, "embed", {"texts": [text]}, {}) for text in ("a", "a b c d e f g h i j k l m n o p q r s t")]
    short, long = serve(model, calls)
    assert len(short[0]) == 32 and isinstance(long, PromptTooLong)


def test_reward_equals_the_classifier_alone(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", "reward", num_labels=2)
    model = pool(folder, cache=tmp_path).models()[0]
    assert model.can("reward") and not model.can("generate")
    talks = [[("user", "what is"), ("assistant", "Paris")], [("user", "the quick brown fox"), ("assistant", "no")]]
    results = serve(model, [Call(model, "reward", {"messages": t}, {}) for t in talks])
    module = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tok = AutoTokenizer.from_pretrained(folder)
    for talk, got in zip(talks, results, strict=True):
        text = tok.apply_chat_template([{"role": r, "content": c} for r, c in talk], tokenize=False)
        with torch.no_grad():
            want = module(torch.tensor([tok(text, add_special_tokens=False)["input_ids"]])).logits[0]
        assert list(got) == pytest.approx(want.tolist(), abs=1e-4)


@attrs.frozen
class Peek:
    """A private call: the next-token logits after some ids. One forward answers all calls of a group."""

    ids: tuple[int, ...]
    log: list[int] = attrs.field(eq=False)
    group: str = "peek"

    def run(self, loaded: LoadedModel, calls: Sequence[Call]) -> list[Any]:
        self.log.append(len(calls))
        out: list[Any] = []
        for call in calls:
            ids = call.payload.ids
            if not ids:
                out.append(ModelCallError("nothing to read"))
                continue
            row = torch.tensor([ids])
            places = torch.arange(len(ids))[None]
            out.append(loaded.forward(row, torch.ones_like(row), places, None).logits[0].argmax().item())
        return out


def test_private_calls_are_grouped_and_mixed_with_generation(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    model = pool(folder, cache=tmp_path).models()[0]
    log: list[int] = []
    peeks = [Call(model, "step", None, {}, payload=Peek(ids, log)) for ids in [(0, 5, 6), (), (0, 7)]]
    results = serve(model, [ask(model, "the quick"), *peeks, Call(model, "nonsense", None, {})])
    assert log == [3]
    assert isinstance(results[2], ModelCallError) and isinstance(results[4], ModelCallError)
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        assert results[1] == module(torch.tensor([[0, 5, 6]])).logits[0, -1].argmax().item()
    assert results[0].token_ids == serve(model, [ask(model, "the quick")])[0].token_ids


@pytest.mark.parametrize("kind", ["device", "host"])
def test_out_of_memory_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    model = pool(checkpoint(tmp_path / "m"), cache=tmp_path).models()[0]
    calls = [ask(model, "the quick brown") for _ in range(8)]
    want = serve(model, calls[:1])[0].token_ids
    with model.engine.use(model) as (loaded,):
        real = loaded.module.forward

        def small(**inputs: Any) -> Any:
            if inputs["input_ids"].shape[0] > 2:
                if kind == "device":
                    raise torch.OutOfMemoryError("CUDA out of memory")
                raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
            return real(**inputs)

        monkeypatch.setattr(loaded.module, "forward", small)
    inbox = FakeInbox(calls)
    while inbox.queue:  # what the scheduler does
        try:
            model.engine.serve(model, inbox)
        except EngineOutOfMemory:
            inbox.limit = min(inbox.limit, len(inbox.taken)) // 2
            inbox.queue.extendleft(reversed(inbox.taken))
            inbox.taken.clear()
    assert inbox.limit == 2
    assert all(inbox.done[id(c)].token_ids == want for c in calls)


def test_two_models_stay_until_the_budget_is_exceeded(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path / f"m{i}", seed=i) for i in range(3)]
    source = pool(*folders, cache=tmp_path)
    models = source.models()
    residency = source.engine.residency
    residency.budget = int(2.5 * models[0].memory)
    for m in models[:2]:
        serve(m, [ask(m, "a")])
    assert residency.names() == ["m0", "m1"] and residency.loads == 2
    serve(models[0], [ask(models[0], "a")])
    assert residency.loads == 2  # still there
    inbox = FakeInbox([ask(models[2], "a")])
    type(inbox).demand, kept = property(lambda self: {"m1": 3, "m2": 1}), type(inbox).demand
    try:
        models[2].engine.serve(models[2], inbox)
    finally:
        type(inbox).demand = kept  # type: ignore[misc]
    assert residency.names() == ["m1", "m2"]  # m0 was used last, but nobody waits for it
    with pytest.raises(EngineOutOfMemory, match="must be in memory together"), source.engine.use(*models):
        pass
    with source.engine.use(models[0], models[2]):
        assert residency.names() == ["m0", "m2"]
    source.engine.free()
    assert residency.names() == []


def test_copies_of_a_model_share_its_memory(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    source = pool(folder, folder, cache=tmp_path)
    a, b = source.models()
    assert (a.copy, b.copy, a.fingerprint == b.fingerprint, a.name != b.name) == (0, 1, True, True)
    with source.engine.use(a, b) as (one, two):
        assert one.module is two.module
    assert source.engine.residency.loads == 1
