"""Mixture of agents against its paper's loop and hand-made cases, on scripted models."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from scipy.stats import chisquare

from moco_core import ConfigError, ModelCallError, PromptTooLong, Question, Sampling
from moco_core.options import build
from moco_method_mixture_of_agents.method import MixtureOfAgents
from moco_method_mixture_of_agents.options import Options
from moco_toolkit_authoring import ScriptedCall, ScriptedPool, examples, method_checks, run_method

test_conformance = method_checks(
    "mixture_of_agents",
    settings=[
        {},
        {"layers": 3, "aggregator": "best", "order": "fixed"},
        {"layers": 1},
        {"self_moa": True, "role": "user", "dev_sample": 2},
        {"top": 2, "aggregator": "first"},
    ],
    identical_is_single=False,
)

QUESTION = Question(id="q", prompt="Which letter is it?", system="Be brief.", answer_kind="text")
QUOTED = re.compile(r"Answer (\d+):\n<quote>\n(.*?)\n</quote>", re.DOTALL)


def references(call: ScriptedCall) -> list[str]:
    """Return the references a call was shown, in order; they are numbered from 1."""
    found = QUOTED.findall(call.transcript)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [text for _, text in found]


def proposer(name: str, letter: str):
    """A model whose reply tells its layer: one more than that of what it read."""

    def reply(call: ScriptedCall) -> str:
        layer = 1 + max((int(re.search(r"layer (\d+)", text)[1]) for text in references(call)), default=0)
        return f"layer {layer} by {name[::-1]}: the answer is {letter}"

    return reply


def pool_of(**letters: str) -> ScriptedPool:
    return ScriptedPool({name: proposer(name, letter) for name, letter in letters.items()})


def ask(pool, question=QUESTION, dev=(), sampling=None, **options):
    given = {} if sampling is None else {"sampling": sampling}
    return run_method(MixtureOfAgents(Options(**options)), pool, questions=[question], dev=dev, **given).reply


def test_one_layer_is_the_aggregator_alone() -> None:
    pool = pool_of(one="a", two="b")
    assert ask(pool, layers=1, aggregator="two").text == "layer 1 by owt: the answer is b"
    (call,) = pool.history
    assert not references(call)


def test_a_single_model_with_two_layers_is_asked_twice() -> None:
    pool = pool_of(only="a")
    assert ask(pool).text == "layer 2 by ylno: the answer is a" and len(pool.history) == 2


@pytest.mark.parametrize("role", ["system", "user"])
def test_every_layer_reads_the_layer_before_once_each_and_the_question_once(role) -> None:
    pool = pool_of(one="a", two="b", three="c")
    reply = ask(pool, layers=3, aggregator="first", role=role)
    assert len(pool.history) == 3 * 2 + 1 and reply.text.startswith("layer 3 by eno")
    for call in pool.history:
        read = references(call)
        layers = {re.search(r"layer (\d+)", text)[1] for text in read}
        assert len(set(read)) == len(read) and len(read) in (0, 3) and len(layers) <= 1
        assert call.transcript.count(QUESTION.prompt) == 1 and call.transcript.count("Be brief.") == 1
        assert not re.search(r"\b(two|three)\b", call.transcript)
    assert [len(row) for row in reply.meta["layers"]] == [3, 3]


def test_references_stand_in_the_system_message_or_before_the_question() -> None:
    for role, place in (("system", 0), ("user", 1)):
        pool = pool_of(one="a", two="b")
        ask(pool, aggregator="first", role=role)
        messages = pool.history[-1].messages
        assert [turn.role for turn in messages] == ["system", "user"]
        assert [("<quote>" in turn.content) for turn in messages] == [place == 0, place == 1]
        assert messages[1].content.endswith(QUESTION.text()) and messages[0].content.startswith("Be brief.")


def echo(call: ScriptedCall) -> str:
    read = references(call)
    return read[0] if read else "the answer is C"


def test_in_fixed_order_the_first_reference_is_the_first_proposers() -> None:
    pool = ScriptedPool({"a": "the answer is A", "b": "the answer is B", "c": echo})
    assert ask(pool, aggregator="c", order="fixed").text == "the answer is A"


def test_in_shuffled_order_no_model_owns_the_first_place() -> None:
    pool = ScriptedPool({"a": "the answer is A", "b": "the answer is B", "c": echo})
    questions = [Question(id=f"q{i}", prompt=f"Which letter, {i}?", answer_kind="text") for i in range(300)]
    outcome = run_method(MixtureOfAgents(Options(aggregator="c")), pool, questions=questions, dev=())
    counts = Counter(reply.text for reply in outcome.replies.values())
    assert len(counts) == 3 and chisquare(list(counts.values())).pvalue > 1e-3


def test_an_aggregator_that_counts_equals_the_vote_over_the_first_layer() -> None:
    def counting(call: ScriptedCall) -> str:
        read = references(call)
        return Counter(read).most_common(1)[0][0] if read else "the answer is B"

    pool = ScriptedPool({"x": "the answer is A", "y": "the answer is B", "z": counting})
    assert ask(pool, aggregator="z").meta["answer"] == "b"


def test_a_failed_or_empty_proposal_is_left_out_and_the_rest_renumbered() -> None:
    for broken in (lambda call: ModelCallError("down"), "   "):
        pool = ScriptedPool({"a": "the answer is A", "b": broken, "c": echo})
        ask(pool, aggregator="c", order="fixed")
        assert references(pool.history[-1]) == ["the answer is A", "the answer is C"]


def test_without_proposals_the_question_is_asked_plainly() -> None:
    def late(call: ScriptedCall):
        return ModelCallError("down") if call.params["temperature"] > 0 else "the answer is A"

    pool = ScriptedPool({"a": lambda call: ModelCallError("down"), "b": late})
    reply = ask(pool, aggregator="b")
    assert reply.text == "the answer is A" and not references(pool.history[-1])
    with pytest.raises(ModelCallError, match="down"):
        ask(ScriptedPool({"a": lambda call: ModelCallError("down")}))


def test_an_unreadable_answer_gives_way_to_the_vote_and_to_the_aggregators_own_proposal() -> None:
    def mumbling(call: ScriptedCall) -> str:
        return "hm" if references(call) else "the answer is B"

    pool = ScriptedPool({"a": "the answer is A", "b": mumbling, "c": "the answer is B"})
    reply = ask(pool, aggregator="b")
    assert (reply.meta["final"], reply.meta["answer"], reply.meta["model"]) == ("vote", "b", "b")
    mute = ScriptedPool({"a": "hm", "b": lambda call: ModelCallError("down") if references(call) else "hm, hm"})
    reply = ask(mute, aggregator="b")
    assert (reply.text, reply.meta["final"], reply.meta["unparsed"]) == ("hm, hm", "unparsed", True)


def test_a_reference_far_too_long_leaves_question_and_instruction_whole() -> None:
    long = "x" * 20_000 + " the answer is A"
    pool = ScriptedPool({"a": long, "b": echo}, fields={"b": {"context_length": 600}})
    ask(pool, aggregator="b", order="fixed", sampling=Sampling(max_new_tokens=32))
    asked = pool.history[-1].transcript
    assert QUESTION.prompt in asked and "Judge what they say" in asked and len(asked) < 600 * 4
    assert references(pool.history[-1])[0].endswith("the answer is A")
    short = ScriptedPool({"a": long, "b": echo}, fields={"b": {"context_length": 60}})
    with pytest.raises(PromptTooLong, match="60 tokens"):
        ask(short, aggregator="b", sampling=Sampling(max_new_tokens=16))


def right_of(dev):
    return {e.question.prompt: e.references[0] if e.answer is None else e.question.letters[e.answer] for e in dev}


def test_the_aggregator_is_who_makes_most_of_the_same_references_not_who_answers_best_alone() -> None:
    dev = examples(6)
    right = right_of(dev)

    def knows(call: ScriptedCall) -> str:
        return next((f"the answer is {a}" for p, a in right.items() if p in call.transcript), "the answer is A")

    def soloist(call: ScriptedCall) -> str:
        return "the answer is nonsense" if references(call) else knows(call)

    def editor(call: ScriptedCall) -> str:
        return knows(call) if references(call) else "the answer is nonsense"

    pool = ScriptedPool({"soloist": soloist, "editor": editor})
    outcome = run_method(MixtureOfAgents(Options()), pool, questions=[], dev=dev)
    assert outcome.state["aggregator"] == "editor"
    assert outcome.calls["fit"] == 2 * 6 + (2 + 2) * 6
    outcome = run_method(MixtureOfAgents(Options(aggregator="best")), pool, questions=[], dev=dev)
    assert outcome.state["aggregator"] == "soloist" and outcome.calls["fit"] == 2 * 6


def test_the_best_propose_in_pool_order_and_self_moa_asks_the_best_as_often_as_there_are_models() -> None:
    dev = examples(4)
    right = right_of(dev)

    def knowing(share: int):
        known = dict(list(right.items())[:share])
        return lambda call: next((f"the answer is {a}" for p, a in known.items() if p in call.transcript), "hm")

    pool = ScriptedPool({"some": knowing(2), "none": knowing(0), "all": knowing(4)})
    for options, expected in (({"top": 2}, ["some", "all"]), ({"self_moa": True}, ["all"] * 3)):
        method = MixtureOfAgents(Options(aggregator="first", **options))
        assert run_method(method, pool, questions=[], dev=dev).state["proposers"] == expected
    reply = ask(pool, dev=dev, self_moa=True, aggregator="first")
    assert reply.meta["proposers"] == ["all"] * 3
    assert len({call.seed for call in pool.history[-4:-1]}) == 3  # independent samples


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"self_moa": True, "top": 2}, "leave proposers and top out"),
        ({"proposers": ["a"], "top": 1}, "give one of the two"),
        ({"layers": 0}, "layers"),
    ],
)
def test_options_that_cannot_be_are_refused(options, line) -> None:
    with pytest.raises(ConfigError, match=line):
        build(Options, options)


def test_models_that_are_not_there_and_choices_without_dev_are_refused() -> None:
    needs = MixtureOfAgents(Options(proposers=("one", "ghost"), aggregator=7)).needs()
    assert len(needs.problems(list(pool_of(one="a", two="b").models()))) == 2
    with pytest.raises(ConfigError, match="there are none"):
        ask(pool_of(one="a", two="b"), aggregator="best")
