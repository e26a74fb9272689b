"""Nudging by hand: who hands over when, what is kept, tuning, bad input."""

from __future__ import annotations

import pytest
from nudged_models import GREEDY, QUESTION, TOKENIZER, TRACES, WORDS, _path, _quiet, along, ask, script, scripted

from moco_core import ConfigError, Example, Question, Sampling
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_core.types import Answer
from moco_method_nudging.method import Nudging
from moco_method_nudging.options import Options
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_decoding.testing import LocalEngine, ScriptedModule, tiny_llama


def test_hand_trace_with_a_confident_handover():
    # the nudging model would write "a c d e"; the base is unsure at first, and sure of " f" after "a"
    base = along(["a", " f", " g"], [0.3, 0.9, 0.35])
    nudge = along(["a", " c", " d", " e"], [0.9] * 4)

    def both(said):
        return nudge(said) if said in ("", "a", "a c", "a c d") else ("<end>", 0.9)

    reply = ask(scripted(base, both), agreement_rule=False, nudge_tokens=3)
    assert reply.text == "a f"  # " g" has 0.35 < 0.4; the nudging model then ends
    assert [(s.model, s.text, s.tokens) for s in reply.spans] == [("nudge", "a", 1), ("base", " f", 1)]
    assert reply.meta["handovers"] == 1 and reply.meta["agreements"] == 0
    assert reply.finish_reason == "eos"


def test_agreement_hands_over_below_gamma_and_the_triggering_token_is_kept():
    base = along(["a", " c", " g"], [0.3, 0.36, 0.34])
    nudge = along(["a", " c", " d", " e", " f"], [0.9] * 5)
    with_rule = ask(scripted(base, nudge), nudge_tokens=3)
    # after "a" the base predicts " c" with 0.36: agreement; " c" is the base's, then it is unsure of " g"
    assert [(s.model, s.text) for s in with_rule.spans][:2] == [("nudge", "a"), ("base", " c")]
    assert with_rule.meta["agreements"] == 1
    without = ask(scripted(base, nudge), agreement_rule=False, nudge_tokens=3)
    assert without.spans[0].text.startswith("a c")


def test_the_last_word_of_a_draft_without_handover_is_dropped():
    base = along([], [])
    drafts = []

    def nudge(said):
        drafts.append(said)
        return along(["a", " c", " d", " e", " f"], [0.9] * 5)(said)

    def unsure(said):
        return " g", 0.34

    reply = ask(scripted(unsure, nudge), nudge_tokens=3, agreement_rule=False)
    assert reply.text == "a c d e f"
    # drafts of 3 words commit 2 each time: " d" is drafted twice, as the dropped last word and again
    assert reply.meta["rounds"] >= 3
    assert base("") == ("<end>", 0.99)


def test_gamma_zero_nudges_one_word_and_then_the_base_writes():
    base = along(["b", " c"], [0.4, 0.4])

    def after(said):
        if said == "a":
            return " f", 0.34
        return ("<end>", 0.99) if said == "a f" else base(said)

    nudge = along(["a", " c", " d"], [0.9] * 3)
    reply = ask(scripted(after, nudge), gamma=0.0, base_eos="stop", nudge_tokens=2)
    assert reply.text == "a f"
    assert reply.spans[0].model == "nudge" and reply.spans[0].tokens == 1


def test_base_end_is_left_to_the_nudging_model_or_ends():
    base = along(["a"], [0.9])
    nudge = along(["a", " c", " d"], [0.9] * 3)

    def end_after_c(said):
        return ("<end>", 0.9) if said.startswith("a") else base(said)

    assert ask(scripted(end_after_c, nudge), base_eos="stop", nudge_tokens=2).text == "a"
    deferred = ask(scripted(end_after_c, nudge), base_eos="defer", agreement_rule=False, nudge_tokens=2)
    assert deferred.text == "a c d"


def test_limits_stops_and_repeats():
    forever = lambda said: (" c", 0.9)  # noqa: E731
    unsure = lambda said: (" g", 0.34)  # noqa: E731
    pool = scripted(unsure, forever)
    reply = ask(pool, sampling=Sampling(max_new_tokens=7), nudge_tokens=2)
    assert len(reply.text.split()) <= 7
    repeated = ask(pool, sampling=Sampling(max_new_tokens=50), nudge_tokens=2)
    assert repeated.text == " c c c" and repeated.meta["ended_by"] == "repeated nudge"
    limited = ask(pool, sampling=Sampling(max_new_tokens=50), nudge_tokens=2, max_rounds=3)
    assert limited.text == " c c c" and limited.finish_reason == "length"
    counting = along(["a", " c", " d", " e", " f"], [0.9] * 5)
    stopped = ask(scripted(unsure, counting), sampling=Sampling(max_new_tokens=20, stop=(" d",)))
    assert stopped.text == "a c" and stopped.finish_reason == "stop"


def test_nudge_share_does_not_fall_with_gamma():
    path = ["a", " c", " d", " e", " f", " g"]
    base = along(path, [0.5, 0.9, 0.6, 0.95, 0.7, 0.8])
    nudge = along(path, [0.9] * 6)
    shares = []
    for gamma in (0.35, 0.55, 0.65, 0.75, 0.85, 0.93, 1.0):
        reply = ask(scripted(base, nudge), gamma=gamma, agreement_rule=False, nudge_tokens=2)
        assert reply.text == "".join(path)
        shares.append(reply.meta["share"]["nudge"])
    assert shares == sorted(shares) and shares[0] < shares[-1]


class Whole(LastWord):
    """The whole reply is the answer."""

    def read(self, question, text):
        return Answer(key=text, text=text, status="parsed")


def test_tuning_takes_the_best_pair_and_of_equal_ones_the_fewest_nudges():
    base = along(["a", " f", " g"], [0.3, 0.9, 0.35])  # takes over after "a" unless gamma is above 0.9
    engine = LocalEngine()
    models = []
    for name, answers in (("base", base), ("short", _path("a", " c")), ("long", _path("a", " c", " d"))):
        module = ScriptedModule(len(WORDS), script(answers))
        module.script = _quiet(module.script)
        models.append(engine.add(name, module, WORDS))

    def tuned(reference, **options):
        fixed = {"tune": True, "nudge_tokens": 2, "agreement_rule": False, "plain_template": "{question}"}
        settings = {**fixed, **options}
        dev = [Example(question=Question(id="d", prompt="go"), references=(reference,))]
        method = Nudging(Options(**settings))
        return run_method(method, models, dev=dev, metric=Whole(NoOptions()), sampling=GREEDY).state

    grid = (0.95, 0.5, 0.4, 0.92)
    assert tuned("a f", gamma_grid=grid) == {"base": 0, "nudging": 1, "gamma": 0.4}
    assert tuned("a c d", gamma_grid=grid) == {"base": 0, "nudging": 2, "gamma": 0.92}
    assert tuned("a c", gamma_grid=grid, candidates=("long", "short"))["nudging"] == 1
    # every pair scores 0: the first of the smallest gamma, since a winner always exists; without a grid what was configured
    assert tuned("never", gamma_grid=grid) == {"base": 0, "nudging": 1, "gamma": 0.4}
    assert tuned("a f", gamma_grid=(), gamma=0.7, nudging="long") == {"base": 0, "nudging": 2, "gamma": 0.7}


def test_options_that_decide_nothing_recompute_nothing():
    base, nudge, options = TRACES["confident"]
    cache = Cache(None)

    def work(**more):
        pool = scripted(base, nudge)
        settings = Options(**{"plain_template": "{question}", **options, **more})
        outcome = run_method(Nudging(settings), pool, questions=[QUESTION], sampling=GREEDY, cache=cache)
        assert not outcome.errors
        return sum(one.forwards for one in pool[0].engine.loaded.values())

    assert work() > 0
    for more in ({"gamma_grid": (0.1,)}, {"candidates": ("nudge",)}, {"base_chunk": 5}, {"base": "base"}):
        assert work(**more) == 0, more
    assert work(gamma=0.35) > 0 and work(plain_template="go{question}") > 0


def _pool(capabilities=frozenset({"generate", "logprobs", "step", "hidden"})):
    engine = LocalEngine()
    return [engine.add(n, tiny_llama(TOKENIZER, i), TOKENIZER, capabilities=capabilities) for i, n in enumerate("ab")]


test_conformance = method_checks(
    "nudging",
    settings=[{}, {"gamma": 0.02, "base_prompt": "chat"}],
    pool=_pool,
    sampling=Sampling(max_new_tokens=6),
    questions=example_questions(2),
)


test_conformance_of_models_that_only_write_text = method_checks(
    "nudging",
    settings=[{"nudge_tokens": 3, "base_chunk": 2, "tune": True, "gamma_grid": [0.02, 0.3]}],
    pool=lambda: _pool({"generate", "logprobs"}),
    sampling=Sampling(max_new_tokens=24),
    questions=example_questions(2),
    dev=examples(2, prefix="d"),
)


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="gamma"):
        build(Options, {"gamma": 1.5})
    with pytest.raises(ConfigError, match="question"):
        build(Options, {"plain_template": "no place"})
    pool = _pool()
    assert Nudging(Options(nudging=7)).needs().problems(pool) == [
        "nudging: model index 7 is out of range, the pool has 2 models"
    ]
    assert len(Nudging(Options()).needs().problems(pool[:1])) == 1
    assert "base model too" in Nudging(Options(nudging="a")).needs().problems(pool)[0]
    tuned = [Nudging(Options(tune=True, candidates=(name,))).needs().problems(pool)[0] for name in ("c", "a")]
    assert "candidates: no model 'c'" in tuned[0] and "the base model is the only one" in tuned[1]
