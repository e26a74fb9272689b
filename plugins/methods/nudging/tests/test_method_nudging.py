"""Nudging against hand traces on scripted models and against single models."""

from __future__ import annotations

import math

import attrs
import pytest
import torch

from moco_core import ConfigError, Example, Question, Sampling
from moco_core.models import Pool
from moco_core.options import NoOptions, build
from moco_core.runtime.cache import Cache
from moco_core.types import Answer
from moco_method_nudging.method import Nudging, NudgingSystem
from moco_method_nudging.options import Options
from moco_method_nudging.writing import repeats, without_repeated_end
from moco_toolkit_authoring import example_questions, examples, method_checks, run_method
from moco_toolkit_authoring.toy import LastWord
from moco_toolkit_decoding import Vocabulary
from moco_toolkit_decoding.testing import (
    LocalEngine,
    ScriptedModule,
    bpe_tokenizer,
    spaced_tokenizer,
    tiny_llama,
    word_tokenizer,
)

torch.set_num_threads(1)
GREEDY = Sampling(max_new_tokens=20)
TOKENIZER = bpe_tokenizer()
QUESTION = Question(id="q", prompt="go")
PROMPTS = ("the quick brown fox", "and", "rivers 12 + 34", "international", "the lazy dog runs home over it", "yes no")
WORDS = word_tokenizer(["a", "b", " c", " d", " e", " f", " g"])
IDS = WORDS.get_vocab()
END = WORDS.eos_token_id


def tok(text):
    return END if text == "<end>" else WORDS.encode(text, add_special_tokens=False)[0]


def script(answers, *, marker="go"):
    """Answer with a table: text so far -> (next token, its probability)."""

    def scores(ids):
        text = WORDS.decode([i for i in ids if i != END])
        said = text[text.rindex(marker) + len(marker) :] if marker in text else text
        token, p = answers(said)
        # all other tokens together have 1 - p: two rivals are enough when p is above a third
        rest = math.log(max(1e-9, (1 - p) / 2))
        rivals = [i for i in (tok("a"), tok("b"), tok(" g")) if i != tok(token)][:2]
        return {tok(token): math.log(p), rivals[0]: rest, rivals[1]: rest}

    return scores


def scripted(base, nudge, *, text=False):
    """A pool of two scripted models; ``text``: as behind a server, which writes text and gives log-probabilities."""
    engine = LocalEngine()
    models = []
    for name, answers in (("base", base), ("nudge", nudge)):
        module = ScriptedModule(len(WORDS), script(answers))
        module.script = _quiet(module.script)
        kinds = {"generate", "logprobs"} if name == "base" else {"generate"}
        models.append(engine.add(name, module, WORDS, **({"capabilities": kinds} if text else {})))
    return Pool(models)


def _quiet(inner):
    def scores(ids):
        return {**dict.fromkeys(range(len(WORDS)), -60.0), **inner(ids)}

    return scores


def along(path, probability):
    """Follow a fixed text token by token with a probability for each place; anything else ends."""

    def answers(said):
        for n in range(len(path) + 1):
            if "".join(path[:n]) == said:
                return (path[n], probability[n]) if n < len(path) else ("<end>", 0.99)
        return "<end>", 0.99

    return answers


def ask(pool, question=QUESTION, sampling=GREEDY, gamma=None, **options):
    options = {"plain_template": "{question}", **options}
    outcome = run_method(_Fixed(Options(**options), gamma), pool, questions=[question], sampling=sampling)
    for error in outcome.errors.values():
        raise error
    return outcome.replies[question.id]


class _Fixed(Nudging):
    """The method with a gamma that its options refuse (0, or above 1)."""

    def __init__(self, options, gamma):
        super().__init__(options)
        self.gamma = gamma

    async def fit(self, pool, dev, context):
        system = await super().fit(pool, dev, context)
        return (
            system if self.gamma is None else NudgingSystem(pool, self.options, system.base, system.nudging, self.gamma)
        )


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


# -------------------------------------------------------------------- models that only write text


def _path(*words, p=0.9):
    return along(list(words), [p] * len(words))


TRACES = {
    "confident": (along(["a", " f", " g"], [0.3, 0.9, 0.35]), _path("a", " c", " d", " e"), {"agreement_rule": False}),
    "agreement": (along(["a", " c", " g"], [0.3, 0.36, 0.34]), _path("a", " c", " d", " e", " f"), {}),
    "unsure": (lambda said: (" g", 0.34), _path("a", " c", " d", " e", " f"), {"agreement_rule": False}),
    "long": (_path("a", " c", " d", " e", " f", " g"), _path("a", " c"), {"base_chunk": 2}),
    "base stops": (lambda said: ("<end>", 0.9) if said else ("a", 0.9), _path("a", " c"), {"base_eos": "stop"}),
    "repeats": (lambda said: (" g", 0.34), lambda said: (" c", 0.9), {}),
}


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


# -------------------------------------------------------------------- random models


@pytest.mark.parametrize("gamma", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("tokens", [1, 5, 16])
def test_identical_models_equal_the_single_model(gamma, tokens):
    engine = LocalEngine()
    a, b = (engine.add(n, tiny_llama(TOKENIZER, 2), TOKENIZER) for n in "ab")
    questions = example_questions(3)
    single = {}
    for q in questions:
        one = engine.loaded["a"]
        ids = torch.tensor([one.render_input({"messages": [["user", q.text()]]}).ids])
        out = one.module.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=0, pad_token_id=1)
        single[q.id] = one.decode(out[0, ids.shape[1] :].tolist())
    method = _Fixed(Options(gamma=gamma, nudge_tokens=tokens, base_prompt="chat"), None)
    outcome = run_method(method, [a, b], questions=questions, sampling=Sampling(max_new_tokens=12))
    for key, reply in outcome.replies.items():
        if reply.meta["ended_by"] != "repeated nudge":  # random models repeat themselves
            assert reply.text == single[key]


def test_gamma_above_one_is_the_nudging_model():
    engine = LocalEngine()
    a, b = (engine.add(n, tiny_llama(TOKENIZER, i), TOKENIZER) for i, n in enumerate("ab"))
    questions = example_questions(3)
    method = _Fixed(Options(agreement_rule=False, base_prompt="chat"), 1.01)
    outcome = run_method(method, [a, b], questions=questions, sampling=Sampling(max_new_tokens=10))
    for q in questions:
        one = engine.loaded["b"]
        ids = torch.tensor([one.render_input({"messages": [["user", q.text()]]}).ids])
        out = one.module.generate(ids, do_sample=False, max_new_tokens=10, eos_token_id=0, pad_token_id=1)
        expected = one.decode(out[0, ids.shape[1] :].tolist())
        reply = outcome.replies[q.id]
        assert reply.text == expected or (
            reply.meta["ended_by"] == "repeated nudge" and expected.startswith(reply.text)
        )


def test_different_tokenizers_hold_the_same_text_and_batches_change_nothing():
    """An emoji of four byte tokens comes through, whoever writes it and wherever a draft ends."""
    told = "ok \U0001f600 \u4e2d\u6587 fine"

    def spelling(tokenizer, p):
        view = Vocabulary(tokenizer, [tokenizer.eos_token_id])

        def script(read):
            data = view.text(read)
            # nothing inside the prompt; a SentencePiece reply that was encoded again begins with a space of its own
            said = data.partition(b"go!")[2].removeprefix(b" ")
            rest = told.encode()[len(said) :] if told.encode().startswith(said) else b""
            # several readings of the rest would do: byte by byte, so that characters are split over tokens
            token = view.single[rest[:1]] if rest else tokenizer.eos_token_id
            rival = next(i for i in view.single.values() if i != token)
            chance = p(said)
            return {**dict.fromkeys(view.single.values(), -60.0), token: math.log(chance), rival: math.log(1 - chance)}

        return script

    for k in (1, 2, 3, 7):
        for sure in (b"\xf0", b"\x9f", b" ", b"k"):  # the base model is unsure inside the character, too
            engine = LocalEngine()
            models = []
            for name, tokenizer in (("base", TOKENIZER), ("nudge", spaced_tokenizer())):
                chance = (lambda said, sure=sure: 0.9 if said[-1:] == sure else 0.3) if name == "base" else _certain
                module = ScriptedModule(len(tokenizer), spelling(tokenizer, chance))
                models.append(engine.add(name, module, tokenizer))
            question = Question(id="q", prompt="go!")
            reply = ask(Pool(models), question, Sampling(max_new_tokens=60), nudge_tokens=k, gamma=0.7)
            assert reply.text == told and reply.finish_reason == "eos"
            assert "".join(s.text for s in reply.spans) == told
    method = Nudging(Options(gamma=0.1, nudge_tokens=5, base_prompt="chat"))
    questions = [Question(id=f"q{i}", prompt=p) for i, p in enumerate(PROMPTS)]
    a, b = (
        run_method(method, _mixed(), questions=questions, sampling=Sampling(max_new_tokens=16), in_flight=n)
        for n in (1, 8)
    )
    assert a.texts == b.texts and not a.errors and any(a.texts.values())
    assert not any(t in text for text in a.texts.values() for t in ("<end>", "<pad>", "<unk>"))


def _certain(said):
    return 0.9


def _mixed():
    engine = LocalEngine()
    spaced = spaced_tokenizer()
    return [
        engine.add("a", tiny_llama(TOKENIZER, 1, spread=0.8), TOKENIZER),
        engine.add("b", tiny_llama(spaced, 2, spread=0.8), spaced),
    ]


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
