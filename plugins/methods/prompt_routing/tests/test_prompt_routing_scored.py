"""Routes by scores of the labels: sums, orders of the list, calibration."""

from __future__ import annotations

import math

import pytest
from scripted_routers import QUESTION, ask, is_routing, pool_of

from moco_core import ConfigError, Question
from moco_core.options import build
from moco_method_prompt_routing.method import PromptRouting
from moco_method_prompt_routing.options import Options
from moco_toolkit_authoring import example_questions, run_method

ALL = frozenset({"generate", "score"})


def by(table):
    """Scores of labels by ``table(prompt, place)``, the log-probability of the label at a place of the list."""
    return lambda call: [(table(call.prompt, place), -0.25) for place in range(len(call.given["continuations"]))]


def row(prompt: str, place: int) -> str:
    """The list's line at a place."""
    lines = prompt.split("Models:\n")[1].splitlines()
    return lines[place]


def test_the_scored_choice_is_the_argmax_of_summed_log_probabilities():
    pool = pool_of(3, "unused", ALL, scores=by(lambda prompt, place: [-2.0, -0.5, -1.0][place]))
    reply = ask(pool, router=0)
    assert reply.text == "m2 answers"
    weights = [math.exp(x) for x in (-2.0, -0.5, -1.0)]
    assert reply.meta["shares"] == pytest.approx({f"m{i + 1}": w / sum(weights) for i, w in enumerate(weights)})
    assert [c.kind for c in pool.history] == ["score", "generate"]
    assert pool.history[0].given["continuations"] == ["1", "2", "3"]
    assert ask(pool_of(3, "3", ALL, scores=by(lambda p, i: -i)), router=0, decode="generate").text == "m3 answers"


@pytest.mark.parametrize("in_flight", [1, 8])
def test_scored_choices_depend_on_the_question_alone(in_flight):
    def table(prompt, place):
        return -float((sum(map(ord, prompt)) * (place + 3)) % 7)

    questions = example_questions(8)
    method = PromptRouting(Options(router=0))

    def run(order, n):
        outcome = run_method(method, pool_of(4, "", ALL, scores=by(table)), questions=order, in_flight=n)
        return {key: reply.meta["model"] for key, reply in outcome.replies.items()}

    expected = run(questions, 1)
    assert run(list(reversed(questions)), in_flight) == expected and len(set(expected.values())) > 1


def test_cyclic_average_removes_a_position_bias():
    """The first place gets 1.0 too much, model 3 is preferred by 0.4: a fixed order is fooled, the average is not."""

    def table(prompt, place):
        return -3.0 + (1.0 if place == 0 else 0.0) + (0.4 if "scripted model m3" in row(prompt, place) else 0.0)

    make = lambda: pool_of(3, "", ALL, scores=by(table))  # noqa: E731
    assert ask(make(), router=0).text == "m1 answers"
    pool = make()
    assert ask(pool, router=0, order="cyclic_average").text == "m3 answers"
    seen = [c.prompt for c in pool.history if c.kind == "score"]
    assert len(set(seen)) == 3
    assert {row(p, 0).split(": ")[1] for p in seen} == {f"scripted model m{i}" for i in (1, 2, 3)}


def test_the_probability_of_all_labels_together_is_recorded_and_noise_is_told():
    def outcome(log):
        pool = pool_of(2, "", ALL, scores=by(lambda prompt, place: log - place))
        return run_method(PromptRouting(Options(router=0)), pool, questions=[QUESTION])

    sure = outcome(-0.5)
    assert sure.replies["q"].meta["label_mass"] == pytest.approx(math.exp(-0.75) + math.exp(-1.75))
    assert sure.warnings == []
    (warning,) = outcome(-9.0).warnings
    assert "'m1' gives the labels together less than 1% of its probability" in warning
    assert "label_mass" not in ask(pool_of(2, "2"), router=0).meta


def test_calibration_that_would_do_nothing_is_refused_or_told():
    with pytest.raises(ConfigError, match="calibrate: subtracts log-probabilities of labels"):
        build(Options, {"calibrate": True, "decode": "generate"})
    outcome = run_method(PromptRouting(Options(router=0, calibrate=True)), pool_of(2, "2"), questions=[QUESTION])
    assert outcome.warnings == ["prompt_routing: the router 'm1' writes its choice, so that calibrate does nothing"]


def test_calibration_subtracts_what_an_empty_question_gets():
    def table(prompt, place):
        prior = [-0.1, -3.0][place]
        return prior + (0.5 if place == 1 and "two" in prompt else 0.0)

    make = lambda: pool_of(2, "", ALL, scores=by(table))  # noqa: E731
    assert ask(make(), router=0).text == "m1 answers"
    assert ask(make(), router=0, calibrate=True).text == "m2 answers"


def test_a_shuffled_list_is_mapped_back():
    """The router wants "scripted model m2" wherever it stands."""

    def find(call):
        lines = call.prompt.split("Models:\n")[1].splitlines()
        return next(line.split(":")[0] for line in lines if line.endswith("m2"))

    pool = pool_of(4, find)
    questions = [Question(id=f"q{i}", prompt=f"item {i}") for i in range(12)]
    method = PromptRouting(Options(router=0, order="shuffle"))
    outcome = run_method(method, pool, questions=questions)
    assert {reply.text for reply in outcome.replies.values()} == {"m2 answers"}
    orders = {tuple(c.prompt.split("Models:\n")[1].splitlines()[:4]) for c in pool.history if is_routing(c)}
    assert len(orders) > 3


def test_cyclic_orders_of_a_text_router_are_counted():
    def find(call):
        lines = call.prompt.split("Models:\n")[1].splitlines()
        return next(line.split(":")[0] for line in lines if line.endswith("m3")) if not lines[0].endswith("m1") else "1"

    reply = ask(pool_of(3, find), router=0, order="cyclic_average")
    assert reply.text == "m3 answers" and reply.meta["shares"] == pytest.approx({"m1": 1 / 3, "m2": 0.0, "m3": 2 / 3})
