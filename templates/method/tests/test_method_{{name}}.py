"""Tests of {{name}}: the conformance checks, and what this method alone promises."""

from {{package}}.method import {{Class}}
from {{package}}.options import Options
from moco_toolkit_authoring import ScriptedPool, example_questions, method_checks, run_method

test_conformance = method_checks("{{name}}", settings=[{}, {"samples": 2, "rank": False}], identical_is_single=True)


def test_the_answer_of_most_models_wins() -> None:
    question = example_questions(1)[0]
    pool = ScriptedPool({"a": "The answer is 1.", "b": "The answer is 2.", "c": "So the answer is 2."})
    reply = run_method({{Class}}(Options()), pool, questions=[question]).replies[question.id]
    assert reply.text == "The answer is 2."
    assert reply.meta["votes"] == {"1": 1, "2": 2}


def test_without_any_readable_reply_the_first_model_speaks() -> None:
    question = example_questions(1)[0]
    pool = ScriptedPool({"a": "I do not know.", "b": "No idea."})
    reply = run_method({{Class}}(Options()), pool, questions=[question]).replies[question.id]
    assert reply.text == "I do not know."
