"""Models behind servers that only write text: the same answers, each call stored, what a server must give."""

from __future__ import annotations

import attrs
import pytest
from nudged_models import GREEDY, QUESTION, TRACES, ask, scripted

from moco_core.runtime.cache import Cache
from moco_method_nudging.method import Nudging
from moco_method_nudging.options import Options
from moco_toolkit_authoring import run_method


@pytest.mark.parametrize("name", TRACES)
def test_servers_that_only_write_text_give_the_same_answers(name):
    base, nudge, options = TRACES[name]
    options = {"nudge_tokens": 3, **options}
    stepped, texted = (ask(scripted(base, nudge, text=text), **options) for text in (False, True))
    assert texted.text == stepped.text and texted.finish_reason == stepped.finish_reason
    assert [(s.model, s.text, s.tokens) for s in texted.spans] == [(s.model, s.text, s.tokens) for s in stepped.spans]
    for key in ("rounds", "handovers", "agreements", "ended_by"):
        assert texted.meta[key] == stepped.meta[key], key


def test_calls_for_text_are_stored_and_counted_one_by_one():
    base, nudge, options = TRACES["confident"]
    method = Nudging(Options(plain_template="{question}", nudge_tokens=3, **options))
    cache = Cache(None)
    pools = [scripted(base, nudge, text=True) for _ in range(2)]
    first, again = (run_method(method, pool, questions=[QUESTION], sampling=GREEDY, cache=cache) for pool in pools)
    assert again.texts == first.texts and first.texts["q"] == "a f"
    assert first.calls["respond"] == again.calls["respond"] > 2
    asked = [sum(pool[0].engine.calls.values()) for pool in pools]
    assert asked[0] > 2 and asked[1] == 0


def test_what_a_server_must_give():
    base, nudge, _ = TRACES["confident"]
    pool = scripted(base, nudge, text=True)
    assert not Nudging(Options()).needs().problems(pool)
    (problem,) = Nudging(Options(temperature=0.5)).needs().problems(pool)
    assert "'base'" in problem and "temperature=0" in problem
    bare = [attrs.evolve(pool[0], capabilities={"generate"}), pool[1]]
    (problem,) = Nudging(Options()).needs().problems(bare)
    assert "'base'" in problem and "log-probabilities" in problem and "--can logprobs" in problem
