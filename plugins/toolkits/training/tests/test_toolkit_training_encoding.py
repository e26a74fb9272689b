"""Rows become the very tokens that asking reads and writes, for templates of every family; lengths follow the policy."""

from __future__ import annotations

from typing import Any

import pytest
import random_checkpoints

from moco_core import ConfigError, Message
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS
from moco_toolkit_checkpoints.rendering import Renderer
from moco_toolkit_training import (
    Classify,
    Demonstration,
    Dpo,
    Duel,
    Grpo,
    Labelled,
    Preference,
    Rank,
    Reward,
    Sft,
    Task,
)
from moco_toolkit_training.encoding import IGNORED, Encoded, absent, encode

# Written for these tests, in the manner of each family: where turns begin and end, what a system message becomes.
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|stop|>\n\n{{ m.content | trim }}<|turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
QWEN2 = (
    "{% if messages[0].role != 'system' %}<|start|>system\nBe helpful.<|turn|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1] | trim }}{% else %}{{ m.content }}{% endif %}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}{% else %}"
    "{{ raise_exception('user and assistant only') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
OLMO = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
FAMILIES = {
    "llama": (LLAMA, "<|turn|>"),
    "qwen2": (QWEN2, "<|turn|>"),
    "qwen3": (QWEN3, "<|turn|>"),
    "mistral": (MISTRAL, "</s>"),
    "gemma": (GEMMA, "<|turn|>"),
    "phi": (PHI, "<|end|>"),
    "olmo": (OLMO, "</s>"),
    "none": (None, "</s>"),
}
TALK = (
    Message("user", "What is 2 + 3?"),
    Message("assistant", "The answer is 5."),
    Message("user", "And then?"),
    Message("assistant", "Stop here."),
)


def renderer(family: str = "llama") -> Renderer:
    template, _ = FAMILIES[family]
    tokenizer = random_checkpoints.tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|stop|>", "<|turn|>"]})
    style = "plain" if template is None else "chat"
    return Renderer(family, tokenizer, style=style, overlong="error", context=None, tags=DEFAULT_TAGS)


def rows(found: Encoded) -> list[dict[str, Any]]:
    return [dict(zip(found.columns, values, strict=True)) for values in zip(*found.columns.values(), strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_a_training_prefix_is_the_prompt_that_asking_reads(family: str, system: str) -> None:
    ask = renderer(family)
    prompt = (*([Message("system", system)] if system else []), TALK[0])
    (row,) = rows(encode(Sft(rows=[]), [Demonstration.of(prompt, TALK[1].content)], ask, None))
    learnt = [i for i, label in enumerate(row["labels"]) if label != IGNORED]
    read = row["input_ids"][: learnt[0]]
    assert read == list(ask.render(prompt).ids) and learnt == list(range(len(read), len(row["labels"])))
    if ask.tokenizer.chat_template and not (
        system and family in ("gemma", "mistral")
    ):  # those fold it into the question
        turns = [{"role": m.role, "content": m.content} for m in prompt]
        text = ask.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        assert read == ask.tokenizer(text, add_special_tokens=False)["input_ids"]
    end = ask.tokenizer.convert_tokens_to_ids(FAMILIES[family][1])
    assert row["labels"][-1] == end  # it learns to stop, by the token that ends its turns
    assert ask.decode(row["labels"][learnt[0] : -1]).strip() == "The answer is 5."


@pytest.mark.parametrize("family", FAMILIES)
def test_all_turns_of_a_talk_are_learnt_each_after_the_prompt_it_will_be_asked_with(family: str) -> None:
    ask = renderer(family)
    talk = [TALK[0], Message("assistant", "<think>2 and 3</think>Five."), *TALK[2:]]
    row = Demonstration(messages=talk, trained=(1, 3))
    found = rows(encode(Sft(rows=[row]), [row], ask, None))
    for turn in (1, 3):
        prompt = list(ask.render(talk[:turn]).ids)
        (held,) = [f for f in found if f["input_ids"][: len(prompt)] == prompt and f["labels"][len(prompt)] != IGNORED]
        assert held["labels"][len(prompt) - 1] == IGNORED
    assert len(found) == (2 if family in ("qwen3", "none") else 1)  # where the past is written another way


def test_the_prompt_is_never_learnt_however_long_it_is() -> None:
    ask = renderer()
    found = [Demonstration.of("word " * n, "The answer is 5.") for n in (1, 5, 20)]
    encoded = rows(encode(Sft(rows=found), found, ask, None))
    assert len({sum(label != IGNORED for label in row["labels"]) for row in encoded}) == 1
    assert len({len(row["input_ids"]) for row in encoded}) == 3


def test_what_looks_like_a_special_token_in_a_reply_is_text() -> None:
    ask = renderer()
    (row,) = rows(encode(Sft(rows=[]), [Demonstration.of("Hi", "a <|turn|> b")], ask, None))
    turn = ask.tokenizer.convert_tokens_to_ids("<|turn|>")
    assert [i for i, label in enumerate(row["labels"]) if label == turn] == [len(row["labels"]) - 1]


LONG = Demonstration.of("word " * 30, "The answer is 5.")


def test_long_rows_lose_what_the_policy_says_and_are_counted() -> None:
    ask = renderer()
    whole = rows(encode(Sft(rows=[]), [LONG], ask, None))[0]
    bound = len(whole["input_ids"]) - 10
    cut = encode(Sft(rows=[LONG], max_length=bound), [LONG], ask, None)
    assert cut.truncated == 1 and not cut.dropped
    assert rows(cut)[0]["input_ids"] == [whole["input_ids"][0], *whole["input_ids"][11:]]  # the start token stays
    kept = encode(Sft(rows=[], overlong="keep_start"), [LONG], ask, bound + 7)  # the context bounds it, too
    assert rows(kept)[0]["input_ids"] == whole["input_ids"][: bound + 7] and kept.truncated == 1
    gone = encode(Sft(rows=[], max_length=bound, overlong="drop"), [LONG, Demonstration.of("Hi", "Yes")], ask, None)
    assert (gone.count, dict(gone.dropped)) == (1, {f"longer than {bound} tokens": 1})
    assert gone.warnings() == [f"1 rows are left out: longer than {bound} tokens"]
    with pytest.raises(
        ConfigError, match=f"a row has {bound + 10} tokens and at most {bound} are allowed; raise max_length"
    ):
        encode(Sft(rows=[], max_length=bound, overlong="error"), [LONG], ask, None)


def test_a_reply_is_never_cut_on_the_left() -> None:
    row = Demonstration.of("Hi", "word " * 30)
    found = encode(Sft(rows=[], max_length=10), [row], renderer(), None)
    assert (found.count, dict(found.dropped)) == (0, {"longer than 10 tokens": 1})


def test_rows_without_anything_to_learn_are_left_out_by_name() -> None:
    ask = renderer()
    assert dict(encode(Sft(rows=[]), [Demonstration.of("Hi", "")], ask, None).dropped) == {"empty reply": 1}
    same = Preference(prompt="Hi", chosen="a", rejected="a")
    for job in (Dpo(rows=[]), Reward(rows=[])):
        assert dict(encode(job, [same], ask, None).dropped) == {"equal replies": 1}
    with pytest.raises(ConfigError, match="trains on turn 0, which is not one of the assistant's"):
        encode(Sft(rows=[]), [Demonstration(messages="only a prompt")], ask, None)


def test_both_replies_of_a_pair_follow_one_prompt_and_end() -> None:
    ask = renderer()
    pair = Preference(prompt="word " * 30, chosen="The answer is 5.", rejected="fox")
    (row,) = rows(encode(Dpo(rows=[]), [pair], ask, None))
    assert row["prompt_ids"] == list(ask.render((Message("user", pair.prompt[0].content),)).ids)
    end = ask.end_of_turn
    assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == end and len(row["chosen_ids"]) > len(row["rejected_ids"])
    bound = len(row["prompt_ids"]) + len(row["chosen_ids"]) - 5
    cut = encode(Dpo(rows=[], max_length=bound), [pair], ask, None)
    assert rows(cut)[0]["prompt_ids"] == [row["prompt_ids"][0], *row["prompt_ids"][6:]] and cut.truncated == 1


def test_prompts_to_practise_on_leave_room_for_the_reply() -> None:
    async def judge(completions: Any) -> Any:
        return []

    def job(**given: Any) -> Grpo:
        return Grpo(rows=[], judge=judge, judged_by=0, max_new_tokens=16, **given)

    ask, task = renderer(), Task(prompt="word " * 30)
    found = encode(job(), [task], ask, 40)
    assert found.truncated == 1 and len(rows(found)[0]["ids"]) == 24 and rows(found)[0]["prompt"] == "0"
    assert dict(encode(job(overlong="drop"), [task], ask, 40).dropped) == {"prompt longer than 24 tokens": 1}
    with pytest.raises(ConfigError, match="max_new_tokens leaves no room for a prompt"):
        encode(job(), [task], ask, 17)


def test_conversations_that_are_judged_are_rendered_as_the_engine_renders_them_for_rewards() -> None:
    ask = renderer("qwen2")
    pair = Preference(prompt=TALK[0], chosen="5", rejected="6")
    (row,) = rows(encode(Reward(rows=[]), [pair], ask, None))
    whole = [["user", TALK[0].content], ["assistant", "5"]]
    assert row["chosen_ids"] == list(ask.render_whole({"messages": whole}).ids)
    duel = Duel(query="q", a="x", b="y", label=0.75)
    first, second = rows(encode(Rank(rows=[]), [duel], ask, None))
    assert (first["labels"], second["labels"]) == ([0.75, 0.25], [0.25, 0.75])
    assert first["input_ids"] != second["input_ids"]
    assert encode(Rank(rows=[], both_orders=False), [duel], ask, None).count == 1


def test_a_class_that_no_row_has_is_told() -> None:
    job = Classify(rows=[Labelled(messages="a", label=0), Labelled(messages="b", label=(0.5, 0.0, 0.5))], classes=3)
    assert absent(job) == ["no row has the class 1: it will never be chosen with reason"]
    assert absent(Sft(rows=[])) == []
