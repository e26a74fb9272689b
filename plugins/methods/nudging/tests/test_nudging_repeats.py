"""A base model that repeats itself: what is taken for a repetition, and how it ends."""

from __future__ import annotations

import pytest
from nudged_models import ask

from moco_core import Sampling
from moco_core.models import Pool
from moco_method_nudging.writing import repeats, without_repeated_end
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, word_tokenizer

LOOP = word_tokenizer([" one", " two", " three", " four", " five", " six", " so", " then", " done"])


def looping(text=False):
    """A base model that says the same six words for ever, and a nudging model that opens and would close."""
    words = [" one", " two", " three", " four", " five", " six"]

    def scores(token):
        number = LOOP.encode(token, add_special_tokens=False)[0] if token else LOOP.eos_token_id
        return {**dict.fromkeys(range(len(LOOP)), -60.0), number: 0.0}

    def base(ids):
        said = LOOP.decode(ids).split("go")[-1].split()
        at = next((i for i, w in enumerate(words) if said and w.strip() == said[-1]), -1)
        return scores(words[(at + 1) % 6])

    def nudge(ids):
        said = LOOP.decode(ids).split("go")[-1].split()
        return scores(" then" if said == ["so"] else "" if said else " so")

    engine = LocalEngine()
    kinds = {"capabilities": {"generate", "logprobs"}} if text else {}
    return Pool(
        [engine.add(n, ScriptedModule(len(LOOP), f), LOOP, **kinds) for n, f in (("base", base), ("nudge", nudge))]
    )


@pytest.mark.parametrize("text", [False, True])
def test_the_guard_ends_a_base_model_that_repeats_itself(text):
    free = ask(looping(text), sampling=Sampling(max_new_tokens=40), nudge_tokens=2)
    assert len(free.text.split()) == 40 and free.finish_reason == "length"
    # chunks of six words: the second one is the first again
    guarded = ask(
        looping(text), sampling=Sampling(max_new_tokens=40), nudge_tokens=2, base_chunk=6, repetition_guard=True
    )
    assert guarded.text == " so one two three four five six"
    assert guarded.finish_reason == "stop" and guarded.meta["ended_by"] == "repeated chunk"
    assert "".join(s.text for s in guarded.spans) == guarded.text
    # chunks of seven never stand in what was said before they came round; the repeated end is dropped all the same
    odd = ask(looping(text), sampling=Sampling(max_new_tokens=13), nudge_tokens=2, base_chunk=13, repetition_guard=True)
    assert odd.text == " so one two three four five six"


def test_what_the_guard_takes_for_a_repetition():
    assert repeats(b" one two three four five six", b"zero one two three four five six seven")
    assert not repeats(b" one two three four five", b"zero one two three four five six")  # five words are allowed
    six, seven = "one two three four five six", "a b c d e f g"
    assert without_repeated_end(f"so {six} {six}") == f"so {six}"
    assert without_repeated_end(f"{seven}\n{seven} {seven}") == seven
    assert without_repeated_end(f"{six} {six} end") == f"{six} {six} end"
    assert without_repeated_end("no " * 10 + "no") == "no " * 10 + "no"  # twelve would be six twice
    assert without_repeated_end("") == ""
