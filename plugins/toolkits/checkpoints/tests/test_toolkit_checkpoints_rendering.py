"""Conversations as tokens: nothing that was asked goes missing on the way."""

from __future__ import annotations

from typing import Any

import pytest
import random_checkpoints

from moco_core.errors import ModelCallError
from moco_core.types import Message
from moco_toolkit_checkpoints.reasoning import DEFAULT_TAGS
from moco_toolkit_checkpoints.rendering import Renderer

pytest.importorskip("transformers", reason="tokenizers are transformers'")

PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""As templates of multimodal models may be: given a string, it writes nothing at all."""


def renderer(template: str | None, style: str = "chat", **options: Any) -> Renderer:
    return Renderer(
        "m",
        random_checkpoints.tokenizer(template),
        style=style,
        overlong="error",
        context=None,
        tags=DEFAULT_TAGS,
        template_options=options,
    )


def test_a_template_that_reads_lists_of_parts_gets_them() -> None:
    turns = [Message("system", "be brief"), Message("user", "what is it?"), Message("assistant", "a fox")]
    plain, parts = renderer(random_checkpoints.TEMPLATE), renderer(PARTS)
    assert parts.render(turns[:2]).text == "<|system|>be brief<|end|><|user|>what is it?<|end|><|assistant|>"
    assert parts.render(turns).text.endswith("<|assistant|>a fox")
    assert parts.end_of_turn == plain.end_of_turn == plain.tokenizer.convert_tokens_to_ids("<|end|>")
    assert "what is it?" in parts.render_whole({"messages": [["user", "what is it?"]]}).text


@pytest.mark.parametrize(
    "string",
    [
        "{% for part in m.content %}{{ '<u>' + part.text }}{% endfor %}",
        "{% if m.content is string %}{{ raise_exception('a list of parts') }}{% endif %}{{ m.content[0].text }}",
    ],
)
def test_a_template_that_fails_on_strings_gets_lists_of_parts(string: str) -> None:
    found = renderer("{% for m in messages %}" + string + "{% endfor %}<|assistant|>")
    assert found.render([Message("user", "what is it?")]).text.endswith("what is it?<|assistant|>")


def test_a_template_without_the_question_is_refused_when_it_is_opened() -> None:
    with pytest.raises(ModelCallError, match="leaves out what the user says; set template: plain") as caught:
        renderer("{{ bos_token }}{% if add_generation_prompt %}<|assistant|>{% endif %}")
    assert "\n" not in str(caught.value)
    assert renderer("{{ bos_token }}", style="plain").render([Message("user", "what")]).text == "what"


@pytest.mark.parametrize("whole", [False, True])
def test_a_question_that_a_template_drops_or_changes_is_an_error_of_its_call(whole: bool) -> None:
    first = renderer("{{ messages[0].content | trim }}<|end|>")
    asked = [["user", " what "], ["assistant", "a"], ["user", "which"]]
    for messages, fine in ((asked[:1], True), (asked, False)):
        give = first.render_whole if whole else first.render_input
        if fine:
            assert give({"messages": messages}).text == "what<|end|>"
            continue
        with pytest.raises(ModelCallError, match="leaves out or changes what the user says"):
            give({"messages": messages})


def test_an_earlier_reply_that_a_template_drops_is_an_error_and_one_that_it_shortens_is_not() -> None:
    asked = [
        Message("user", "what"),
        Message("assistant", "<think>hm</think><answer>a fox</answer>"),
        Message("user", "sure?"),
    ]
    silent = renderer("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}<|end|>{% endif %}{% endfor %}")
    with pytest.raises(ModelCallError, match="leaves out what the assistant said before"):
        silent.render(asked)
    assert silent.render(asked[:1]).text == "what<|end|>"
    inside = "m.content.split('</think>')[-1].split('<answer>')[-1].split('</answer>')[0]"
    short = renderer(f"{{% for m in messages %}}{{{{ {inside} }}}}<|end|>{{% endfor %}}")
    assert short.render(asked).text == "what<|end|>a fox<|end|>sure?<|end|>"


def test_a_system_message_that_a_template_drops_is_folded_in_also_where_its_words_stand_elsewhere() -> None:
    silent = renderer("{% for m in messages %}{% if m.role != 'system' %}{{ m.content }}<|end|>{% endif %}{% endfor %}")
    found = silent.render([Message("system", "be brief"), Message("user", "what does 'be brief' mean?")])
    assert found.text == "be brief\n\nwhat does 'be brief' mean?<|end|>" and found.meta["system"] == "folded"


def test_a_template_that_writes_the_date_writes_the_same_one_every_day() -> None:
    found = renderer("{{ strftime_now('%d %b %Y') }}" + random_checkpoints.TEMPLATE)
    assert found.render([Message("user", "what")]).text.startswith("26 Jul 2024<")


def test_decoding_leaves_the_marks_of_reasoning_that_the_tokenizer_has_alone() -> None:
    from tokenizers import AddedToken

    tokenizer = random_checkpoints.tokenizer(random_checkpoints.TEMPLATE)
    names = ["<|channel|>", "<|message|>", "<|start|>", "<|other|>"]
    tokenizer.add_tokens([AddedToken(name, special=True) for name in names], special_tokens=True)
    found = Renderer("m", tokenizer, style="chat", overlong="error", context=None, tags=DEFAULT_TAGS)
    said = "<|channel|>final<|message|>the<|other|> fox"
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    assert found.decode(ids, tags=True) == "<|channel|>final<|message|>the fox"
    assert found.decode(ids) == "finalthe fox"
    assert found.answer(ids) == "the fox"
    thought = tokenizer("<|channel|>analysis<|message|>hm<|start|>assistant<|channel|>final<|message|>a fox")[
        "input_ids"
    ]
    assert found.answer(thought) == "a fox"


def test_arguments_reach_the_template() -> None:
    template = random_checkpoints.TEMPLATE + "{% if enable_thinking is false %}<think></think>{% endif %}"
    asked = [Message("user", "what")]
    assert renderer(template, enable_thinking=False).render(asked).text.endswith("<think></think>")
    assert not renderer(template).render(asked).text.endswith("<think></think>")


@pytest.mark.parametrize("template", [random_checkpoints.TEMPLATE, None])
def test_half_of_a_character_pair_is_refused_in_one_line(template: str | None) -> None:
    found = renderer(template, "chat" if template else "plain")
    prompt = found.render([Message("user", "a")])
    for give in (
        lambda: found.render([Message("user", "smile \ud83d now")]),
        lambda: found.render_input({"text": "caf\udce9"}),
        lambda: found.encode("caf\udce9"),
        lambda: found.continuation_ids(prompt, "\udce9"),
    ):
        with pytest.raises(ModelCallError, match=r"m: the text holds a lone surrogate \(U\+D[8C]..\)") as caught:
            give()
        assert "\n" not in str(caught.value)
