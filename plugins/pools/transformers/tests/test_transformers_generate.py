"""Generation: equality with transformers itself, independence of the batch, stops, templates."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers_tiny import NO_SYSTEM, TEMPLATE, THINKING, FakeInbox, ask, checkpoint, edit, pool, serve

from moco_core.errors import ModelCallError, PromptTooLong
from moco_core.models import Model

TEXTS = [
    "the quick brown",
    "what is",
    "numbers 0 1 2 3 4 5",
    "a",
    "capital of France? The capital is Paris",
    "dog and runs",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    return {
        "llama": checkpoint(root / "llama"),
        "qwen2": checkpoint(root / "qwen2", "qwen2"),
        "gpt2": checkpoint(root / "gpt2", "gpt2"),
        "mistral": checkpoint(root / "mistral", "mistral", sliding_window=6),
        "granite": checkpoint(root / "granite", "granite", logits_scaling=3.0),
        "qwen2-mixed": checkpoint(
            root / "mixed",
            "qwen2",
            use_sliding_window=True,
            sliding_window=5,
            layer_types=["full_attention", "sliding_attention"],
        ),
    }


def opened(folder: str, tmp_path: Path, **options: Any) -> Model:
    return pool(folder, cache=tmp_path, **options).models()[0]


def reference(folder: str, text: str, n: int) -> list[int]:
    """Return what transformers' own generate emits greedily."""
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tok = AutoTokenizer.from_pretrained(folder)
    ids = tok(text, return_tensors="pt")["input_ids"]
    out = module.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=n,
        pad_token_id=1,
        eos_token_id=[1, 2],  # </s>, and the end of turn that the template writes
    )
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "mistral", "qwen2-mixed", "granite"])
def test_greedy_equals_generate(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = opened(folders[kind], tmp_path)
    results = serve(model, [ask(model, t, max_new_tokens=20 + i) for i, t in enumerate(TEXTS)])
    for i, (text, result) in enumerate(zip(TEXTS, results, strict=True)):
        assert list(result.token_ids) == reference(folders[kind], text, 20 + i)
    with model.engine.use(model) as (loaded,):
        assert loaded.runner.new_cache() is not None  # the fast path is what was tested
        assert loaded.runner.plain_head == (kind != "granite")  # what Granite's head says is scaled afterwards


def test_first_tokens_of_prompts_are_those_of_a_step(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    calls = requests(model)
    calls += [ask(model, TEXTS[0], seed=s, temperature=1.0, max_new_tokens=1) for s in range(5)]  # over at once, twins
    with model.engine.use(model) as (loaded,):
        assert loaded.runner.new_cache() is not None and loaded.runner.plain_head
    told = serve(model, calls, limit=9)
    with model.engine.use(model) as (loaded,):
        loaded.runner._probe.plain_head = False
    stepped = serve(model, calls, limit=9)
    for one, other in zip(told, stepped, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def requests(model: Model) -> list[Any]:
    """Forty requests of mixed lengths, greedy and sampled with every filter."""
    out = []
    for i in range(40):
        settings: dict[str, Any] = {"max_new_tokens": 3 + (i * 7) % 25}
        if i % 3:
            settings |= {"temperature": 0.5 + (i % 4) * 0.4, "top_p": (1.0, 0.9, 0.6)[i % 3]}
            settings |= {"top_k": (0, 20, 5)[(i // 3) % 3], "min_p": (0.0, 0.02)[i % 2]}
        out.append(ask(model, TEXTS[i % 6] * (1 + i % 3), seed=1000 + i if i % 3 else None, **settings))
    return out


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_reply_does_not_depend_on_its_batch(folders: dict[str, str], kind: str, tmp_path: Path) -> None:
    model = opened(folders[kind], tmp_path)
    calls = requests(model)
    alone = [serve(model, [c])[0] for c in calls]
    eight = serve(model, calls, limit=8)
    order = list(range(len(calls)))
    random.Random(1).shuffle(order)
    shuffled = dict(zip(order, serve(model, [calls[i] for i in order]), strict=True))
    for i, one in enumerate(alone):
        for other in (eight[i], shuffled[i]):
            assert other.token_ids == one.token_ids
            assert (other.text, other.finish_reason, other.usage) == (one.text, one.finish_reason, one.usage)
            assert other.token_logprobs == pytest.approx(one.token_logprobs, abs=1e-4)
    assert len({r.token_ids for r in alone}) > 30


def test_seed_decides_a_sample(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    a, b, c = serve(model, [ask(model, "what is", seed=s, temperature=1.0) for s in (1, 2, 1)])
    assert a.token_ids == c.token_ids != b.token_ids


def test_logprobs_are_those_of_the_raw_logits(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["qwen2"], tmp_path)
    (result,) = serve(model, [ask(model, "the quick", seed=5, temperature=0.7, top_k=9)])
    module = AutoModelForCausalLM.from_pretrained(folders["qwen2"], dtype=torch.float32)
    prompt = AutoTokenizer.from_pretrained(folders["qwen2"])("the quick")["input_ids"]
    with torch.no_grad():
        table = module(torch.tensor([prompt + list(result.token_ids)])).logits[0].log_softmax(-1)
    want = [table[len(prompt) - 1 + i, t].item() for i, t in enumerate(result.token_ids)]
    assert result.token_logprobs == pytest.approx(want, abs=1e-4)
    assert result.usage.prompt_tokens == len(prompt)


def test_every_end_token_ends_a_reply(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    (first,) = serve(m := opened(folder, tmp_path), [ask(m, "what is", max_new_tokens=12)])
    ids = list(first.token_ids)
    position = next(i for i in range(2, 12) if ids[i] not in ids[:i])
    edit(tmp_path / "m" / "generation_config.json", eos_token_id=[1, ids[position]])
    again = opened(folder, tmp_path)
    assert again.fingerprint != m.fingerprint
    (second,) = serve(again, [ask(again, "what is", max_new_tokens=12)])
    assert second.finish_reason == "eos"
    assert list(second.token_ids) == ids[: position + 1]  # the end token is emitted, but no text
    tok = AutoTokenizer.from_pretrained(folder)
    assert second.text == tok.decode(ids[:position], skip_special_tokens=True)
    with again.engine.use(again) as (loaded,):
        assert loaded.end_ids == {1, 2, ids[position]}  # tokenizer, template's end of turn, generation config


def test_stop_strings_cut_the_text(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    (free,) = serve(model, [ask(model, "the quick", max_new_tokens=24)])
    text = free.text
    stop = text[7:10]  # spans whatever token borders there are
    at = text.find(stop)
    (cut,) = serve(model, [ask(model, "the quick", max_new_tokens=24, stop=("never there", stop))])
    assert cut.finish_reason == "stop" and cut.text == text[:at] and cut.meta["stop"] == stop
    assert free.token_ids[: len(cut.token_ids)] == cut.token_ids and len(cut.token_ids) < len(free.token_ids)
    assert stop in AutoTokenizer.from_pretrained(folders["llama"]).decode(cut.token_ids, skip_special_tokens=True)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.3}, {"stop": ("o",)}, {"stop": ("qu", "zz")}], ids=str)
@pytest.mark.parametrize("folder", ["llama", "gpt2"])
def test_a_reply_is_told_as_it_grows_and_nothing_of_it_is_taken_back(
    folder: str, settings: dict[str, Any], folders: dict[str, str], tmp_path: Path
) -> None:
    model = opened(folders[folder], tmp_path)
    told: list[str] = []
    calls = [ask(model, text, seed=5, max_new_tokens=24, **settings) for text in TEXTS[:3]]
    plain = serve(model, calls)
    listened = [ask(model, text, seed=5, max_new_tokens=24, **settings) for text in TEXTS[:3]]
    listened[1].tell = told.append  # one of three that are decoded together
    assert [g.text for g in serve(model, listened)] == [g.text for g in plain]
    for earlier, later in zip(told, [*told[1:], plain[1].text], strict=True):
        assert later.startswith(earlier)
    assert len(set(told)) > 2 or len(plain[1].token_ids) < 6


def test_chat_template_is_applied_once(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    tok = AutoTokenizer.from_pretrained(folders["llama"])
    turns = [("system", "be kind"), ("user", "what is")]
    want = tok.apply_chat_template([{"role": r, "content": c} for r, c in turns], add_generation_prompt=True)[
        "input_ids"
    ]
    with model.engine.use(model) as (loaded,):
        prompt = loaded.render_input({"messages": turns})
        assert list(prompt.ids) == want
        assert prompt.ids.count(0) == 1  # one BOS, although template and tokenizer both write it
        assert prompt.meta == {}
        plain = loaded.render_input({"text": "<s>what is"})
        assert plain.ids.count(0) == 1
        assert loaded.render_input({"text": "what is"}).ids == plain.ids


def test_final_assistant_message_is_continued(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    with model.engine.use(model) as (loaded,):
        open_end = loaded.render_input({"messages": [("user", "what is")]})
        continued = loaded.render_input({"messages": [("user", "what is"), ("assistant", "It is ")]})
        assert continued.text == open_end.text + "It is "  # the trailing space too


def test_system_role_is_folded_where_refused(tmp_path: Path) -> None:
    model = opened(checkpoint(tmp_path / "m", template=NO_SYSTEM), tmp_path)
    (result,) = serve(model, [ask(model, [("system", "be kind"), ("user", "what is")], max_new_tokens=2)])
    assert result.meta == {"system": "folded"}
    with model.engine.use(model) as (loaded,):
        text = loaded.render_input({"messages": [("system", "be kind"), ("user", "what is")]}).text
    assert text == "<s><|user|>\nbe kind\n\nwhat is<|end|>\n<|assistant|>\n"


def test_model_without_template_is_prompted_plainly(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", template=None)
    model = opened(folder, tmp_path)
    (chat, raw) = serve(model, [ask(model, [("user", "what is")]), ask(model, "what is")])
    assert chat.token_ids == raw.token_ids
    assert chat.meta == {"template": "plain"} and raw.meta == {"template": "raw"}
    with model.engine.use(model) as (loaded,):
        prompt = loaded.render_input(
            {"messages": [("system", "Be kind."), ("user", "one"), ("assistant", "two"), ("user", "three")]}
        )
    assert prompt.text == "Be kind.\n\nUser: one\n\nAssistant: two\n\nUser: three\n\nAssistant:"


def test_prompt_opened_reasoning_is_separated(tmp_path: Path) -> None:
    model = opened(checkpoint(tmp_path / "m", template=THINKING), tmp_path)
    (result,) = serve(model, [ask(model, [("user", "what is")], max_new_tokens=8)])
    assert result.text == "" and result.reasoning  # never closed: all of it is reasoning
    with model.engine.use(model) as (loaded,):
        prompt = loaded.render_input({"messages": [("user", "what is")]})
        assert prompt.opened == "</think>"
        ids = loaded.encode("I see. </think>\n\nthe answer is 42")
        reply = loaded.generation(prompt, ids, [0.0] * len(ids), "length")
    assert (reply.reasoning, reply.text) == ("I see.", "the answer is 42")


def test_overlong_prompt_fails_or_is_cut(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m", max_position_embeddings=32)
    strict = opened(folder, tmp_path)
    long, short = "a b c d e f g h i j k l m n o p q r s t u v w x y z", "what is"
    bad, good = serve(strict, [ask(strict, long, max_new_tokens=8), ask(strict, short, max_new_tokens=8)])
    assert isinstance(bad, PromptTooLong) and "\n" not in str(bad) and "context of 32" in str(bad)
    assert good.usage.completion_tokens == 8  # the others go on
    lenient = opened(folder, tmp_path, overlong="truncate_left")
    (cut,) = serve(lenient, [ask(lenient, long, max_new_tokens=8)])
    assert cut.usage.prompt_tokens == 24 and cut.meta["truncated_tokens"] > 0
    with lenient.engine.use(lenient) as (loaded,):
        prompt = loaded.render_input({"text": long}, reserve=8)
    whole = AutoTokenizer.from_pretrained(folder)(long)["input_ids"]
    assert list(prompt.ids) == [0, *whole[-23:]]  # BOS stays
    assert lenient.fingerprint != strict.fingerprint
    (hopeless,) = serve(lenient, [ask(lenient, short, max_new_tokens=32)])
    assert isinstance(hopeless, PromptTooLong)


def test_refused_conversation_is_one_line(tmp_path: Path) -> None:
    template = "{{ raise_exception('no assistants here') }}" + TEMPLATE
    model = opened(checkpoint(tmp_path / "m", template=template), tmp_path)
    (result,) = serve(model, [ask(model, [("user", "what is")])])
    assert isinstance(result, ModelCallError) and "no assistants here" in str(result)
    assert "\n" not in str(result)


def test_limit_and_cancellation_are_respected(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    inbox = FakeInbox([ask(model, t) for t in TEXTS * 2], limit=3)
    model.engine.serve(model, inbox)
    assert inbox.most <= 3 and len(inbox.done) == 12
    inbox = FakeInbox([ask(model, t, max_new_tokens=200) for t in TEXTS])
    inbox.on_resolve = lambda results: setattr(inbox, "cancelled", True)
    inbox.queue[0] = ask(model, "a", max_new_tokens=1)
    model.engine.serve(model, inbox)
    assert len(inbox.done) == 1 and len(inbox.taken) == 5


def test_waiting_calls_take_the_places_of_finished_rows(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["llama"], tmp_path)
    slow = ask(model, "the quick", max_new_tokens=60)
    calls = [slow, *(ask(model, t, max_new_tokens=4) for t in TEXTS * 2)]
    inbox = FakeInbox(calls, limit=4)
    finished: list[Any] = []
    inbox.on_resolve = lambda results: finished.extend(c for c, _ in results)
    model.engine.serve(model, inbox)
    assert finished[-1] is slow  # twelve short ones passed through the other three places meanwhile


def test_rows_outgrow_the_cache_and_leave_it(folders: dict[str, str], tmp_path: Path) -> None:
    model = opened(folders["gpt2"], tmp_path)
    calls = [ask(model, TEXTS[i % 6], max_new_tokens=20 + 30 * (i % 6), seed=i, temperature=1.0) for i in range(9)]
    together = serve(model, calls, limit=5)
    assert [r.token_ids for r in together] == [serve(model, [c])[0].token_ids for c in calls]
    assert max(len(r.token_ids) for r in together) > 100


def test_architecture_without_plain_cache_falls_back(folders: dict[str, str], tmp_path: Path) -> None:
    """The path for recurrent models, forced on a model whose replies are known."""
    model = opened(folders["llama"], tmp_path)
    calls = requests(model)
    fast = serve(model, calls)
    with model.engine.use(model) as (loaded,):
        loaded.runner._probed, loaded.runner._layers = True, None
    slow = serve(model, calls)
    assert [r.token_ids for r in slow] == [r.token_ids for r in fast]
