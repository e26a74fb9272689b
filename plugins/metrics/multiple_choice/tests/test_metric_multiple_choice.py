"""Multiple-choice accuracy: the tricky replies, conformance, and invariances."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import ContinuationScore, Example, NoOptions, Question, Reply, Score, Scored
from moco_metric_multiple_choice import MultipleChoice, likelihood_choice
from moco_toolkit_authoring import metric_checks, score_of

test_conformance = metric_checks("multiple_choice")

RAYS = ("alpha ray", "beta ray", "gamma ray", "X-ray")
CLAIM = ("support", "refute")
TWELVE = tuple(f"option number {chr(97 + i) * 3}" for i in range(12))


def example(gold: str, choices: tuple[str, ...] = RAYS, labels: tuple[str, ...] = ()) -> Example:
    question = Question(id="q", prompt="Which?", choices=choices, labels=labels, answer_kind="choice")
    return Example(question=question, answer=question.letters.index(gold))


def scored(gold: str, reply: str, choices: tuple[str, ...] = RAYS, labels: tuple[str, ...] = ()) -> Score:
    return score_of(MultipleChoice(NoOptions()), example(gold, choices, labels), reply)


@pytest.mark.parametrize(
    ("gold", "reply", "value", "status"),
    [
        ("C", "A good question. The answer is C", 1, "parsed"),
        ("C", "I would rule out A. So it is C", 1, "parsed"),
        ("C", "**Answer:** C", 1, "parsed"),
        ("C", "The answer is **C**.", 1, "parsed"),
        ("B", r"The final answer is: $\boxed{\text{B}}$", 1, "parsed"),
        ("B", "The correct option is (B), not (A).", 1, "parsed"),
        ("C", "The answer is not A, it is C", 1, "parsed"),
        ("D", "Is the answer A? No. It's D", 1, "parsed"),
        ("C", "<think>So the answer is A</think>C", 1, "parsed"),
        ("A", "<think>The answer is A, because", 0, "cut"),
        ("A", "… so it is A</think> The answer is B", 0, "parsed"),
        ("C", "The answer is a gamma ray", 1, "parsed"),
        ("A", "As for the answer, a number of effects matter.", 0, "unparsed"),
        ("B", "Answer:\n\nB", 1, "parsed"),
        ("C", "Answer: C\n(A) is tempting but wrong.", 1, "parsed"),
        ("A", "The answer is A or B.", 0, "ambiguous"),
        ("B", "The answer is A. Wait, I forgot the charge. The answer is B.", 1, "parsed"),
        ("D", "Answer: E", 0, "invalid"),
    ],
)
def test_tricky_replies(gold: str, reply: str, value: float, status: str) -> None:
    score = scored(gold, reply)
    assert (score.value, score.answer.status) == (value, status)


def test_pronoun_is_no_letter() -> None:
    assert scored("B", "I believe it is B", TWELVE).value == 1


def test_negated_options_do_not_count() -> None:
    assert scored("B", "The claim is refuted, not supported.", CLAIM).value == 1
    assert scored("A", "This is not supported by the paper.", CLAIM).value == 0


def test_option_inside_a_longer_number_does_not_count() -> None:
    assert scored("B", "It weighs 0.8 lb", ("8 lb", "0.8 lb")).value == 1


def test_identical_options_are_one_answer() -> None:
    choices = ("100 mL", "150 mL", "200 mL", "200 mL")
    assert scored("C", "D", choices).value == 1
    assert scored("B", "D", choices).value == 0


def test_own_labels_and_letters() -> None:
    assert scored("2", "2", labels=("1", "2", "3", "4")).value == 1
    assert scored("B", "(B)").value == 1
    assert scored("2", "(B)", labels=("1", "2", "3", "4")).value == 1
    assert scored("B", "2").value == 0  # no digits were shown


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        (r"\boxed{C}", "2"),
        ("[C]", "2"),
        ("Option C", "2"),
        ("The answer: Option C", "2"),
        ("c", "2"),
        ("answer: c", "2"),
        ("### Final Answer\n\nC", "2"),
        ('{"answer": "C"}', "2"),
        ("<answer>C</answer>", "2"),
        ("C) beta ray", "2"),
        ("The answer is neither A nor B but C.", "2"),
        ("A is wrong, B is wrong, so C is the correct answer.", "2"),
        ("A, B", None),
        ("To answer a question one needs e.g. a lens.", None),
        ("", None),
        (r"\boxed{}", None),
    ],
)
def test_forms_of_an_answer(reply: str, read: str | None) -> None:
    assert scored("C", reply).answer.key == read


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("C", "<seed:think>The answer is A. Hmm.</seed:think>C"),
        ("C", "◁think▷The answer is A. Hmm.◁/think▷C"),
        ("C", "analysisThe answer is A? No.assistantfinalC"),
        ("B", "(A) can be excluded, so (B)."),
        ("C", "C。"),
        ("C", "**C**。"),
    ],
)
def test_reasoning_rejected_letters_and_other_stops_do_not_mislead(gold: str, reply: str) -> None:
    assert scored(gold, reply).value == 1


def test_letter_that_contradicts_its_text_is_told() -> None:
    score = scored("B", "B) gamma ray")
    assert score.value == 1
    assert score.answer.meta["conflict"] == "C"


def test_every_choice_as_letter_and_text_scores_its_own() -> None:
    for letter, text in zip("ABCD", RAYS, strict=True):
        assert scored(letter, letter).value == 1
        assert scored(letter, text).value == 1
        assert sum(scored(other, text).value or 0 for other in "ABCD") == 1


def test_a_question_without_the_right_index_is_not_scored() -> None:
    bare = Example(question=Question(id="q", prompt="?", choices=RAYS, answer_kind="choice"))
    assert score_of(MultipleChoice(NoOptions()), bare, "A").value is None


def test_likelihood_choice_by_sum_and_per_byte() -> None:
    def score(*logprobs: float) -> ContinuationScore:
        return ContinuationScore(token_ids=tuple(range(len(logprobs))), token_logprobs=logprobs)

    # sums -2.0 and -2.4; per byte -2.0/2 and -2.4/8
    assert likelihood_choice([score(-2.0), score(-1.2, -1.2)], ["no", "probably"]) == (0, 1)


PIECES = st.sampled_from(
    ["the answer is ", "A", "B", "C", " or ", "not ", "(", ")", "**", "\n", "\\boxed{", "}", "<think>", "</think>", "Answer:",
     "gamma ray", "I ", "a ", ". ", ", ", "$", "####", "option ", "…", "it's "]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=14).map("".join))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_reading_never_raises_and_is_deterministic(text: str) -> None:
    metric, question = MultipleChoice(NoOptions()), example("A").question
    first = metric.read(question, text)
    assert first == metric.read(question, text)
    assert (first.key is None) == (first.status != "parsed")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(
        ["A", "C", "(B)", "The answer is C", "gamma ray", "Answer: B. It is beta.", "I think so", r"\boxed{D}"]
    ),
    st.sampled_from(["", " ", "\n\n", "\t", "\r\n", "\u00a0"]),
    st.sampled_from(["", "*", "**", "***", "_", "__", "`"]),
)
def test_space_and_emphasis_around_a_reply_change_nothing(reply: str, space: str, mark: str) -> None:
    metric, question = MultipleChoice(NoOptions()), example("A").question
    assert metric.read(question, f"{space}{mark}{reply}{mark}{space}").key == metric.read(question, reply).key


def test_the_accuracy_of_guessing_stands_in_the_extra_metrics() -> None:
    metric, rows = MultipleChoice(NoOptions()), []
    for item in (
        example("A"),
        example("B", CLAIM),
        Example(question=Question(id="x", prompt="?", answer_kind="choice")),
    ):
        rows.append(Scored(example=item, reply=Reply(text="A"), score=score_of(metric, item, "A")))
    assert metric.extra_metrics(rows) == {"chance": (1 / 4 + 1 / 2) / 2}
    assert metric.extra_metrics(rows[2:]) == {}
