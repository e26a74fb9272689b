"""Math equivalence: the tricky replies, agreement with math-verify, and a worker that cannot hang."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import Answer, Example, Question, Reply, Score, Scored
from moco_metric_math_equivalence import MathEquivalence, Options
from moco_metric_math_equivalence.equivalence import Checker
from moco_toolkit_authoring import metric_checks, score_of

test_conformance = metric_checks("math_equivalence")


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    yield Checker(seconds=20.0)


@pytest.fixture(scope="module")
def metric() -> MathEquivalence:
    return MathEquivalence(Options(seconds=20.0))


def example(gold: str) -> Example:
    return Example(question=Question(id="q", prompt="?", answer_kind="math"), references=(gold,))


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        (r"\frac{1}{2}", r"The probability is \boxed{0.5}", 1),
        (r"\frac{12}{3}", r"\boxed{\frac{1}{23}}", 0),
        ("(-4,8)", r"\boxed{-48}", 0),
        (r"(4,\infty)", r"\boxed{[4,\infty)}", 0),
        (r"2\sqrt{3}", r"\boxed{\sqrt{12}}", 1),
        ("(x+1)^2", "$x^2 + 2x + 1$ is the answer", 1),
        ("3", r"so x = \boxed{\frac{\sqrt{81}}{3}}", 1),
        (r"\text{orange}", r"\boxed{groane}", 0),
        (r"60^\circ", r"\boxed{60}", 1),
        ("(1,2)", r"\boxed{(2,1)}", 0),
        (r"20\text{ miles}", "20", 1),
        ("7", r"<think>\boxed{3}</think>It is \boxed{7}", 1),
        ("7", r"\boxed{7", 0),
        ("6", r"\boxed{}", 0),
    ],
)
def test_tricky_replies(metric: MathEquivalence, gold: str, reply: str, value: float) -> None:
    assert score_of(metric, example(gold), reply).value == value


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        ("5, 7", "\\boxed{5 \\text{ and } 7}", 1),
        ("5 \\text{ and } 7", "\\boxed{5, 7}", 1),
        ("5,7", "The answer is 5 and 7.", 1),
        ("7,-7", "\\boxed{\\pm 7}", 1),
        ("\\pm 7", "\\boxed{7, -7}", 1),
        ("2021", "\\boxed{\\pm 2021}", 0),
        ("3 \\pm \\sqrt{2}", "\\boxed{3+\\sqrt{2}, 3-\\sqrt{2}}", 1),
        ("3 \\pm \\sqrt 2", "\\boxed{3\\pm\\sqrt{2}}", 1),
        ("19, 46, 82", "\\boxed{19, 46, \\text{ and } 82}", 1),
        ("1,2", "x = 1 or x = 2", 1),
        ("1,2", "\\boxed{x=1} or \\boxed{x=2}", 1),
        ("1,2", "Die Lösungen sind 1 und 2.", 1),
        ("5", "\\boxed{5 \\text{ or } 7}", 0),
        ("10^{-19}", "\\boxed{10^{-31}}", 0),
        ("\\frac{1}{10^{30}}", "\\boxed{\\frac{2}{10^{30}}}", 0),
        ("1 - \\frac{1}{2^{60}}", "\\boxed{1 - \\frac{1}{2^{61}}}", 0),
        ("\\frac{1}{2^{99}}", "\\boxed{2^{-99}}", 1),
        ("\\frac{1}{2^{98}}", "\\boxed{\\frac{1}{2^{99}}}", 0),
        ("\\frac{2^{2005}+1}{3\\cdot 2^{2006}}", "\\boxed{\\frac{1}{3\\cdot 2^{2006}}}", 0),
        ("10^{-19}x", "\\boxed{10^{-31}x}", 0),
        ("10^{-20}\\sqrt{2}", "\\boxed{10^{-20}\\sqrt{3}}", 0),
        ("\\frac{\\sqrt{2}}{2}", "\\boxed{\\frac{1}{\\sqrt{2}}}", 1),
        ("\\sin^2 x + \\cos^2 x", "\\boxed{1}", 1),
        ("0.0000001", "\\boxed{0.0000002}", 0),
        ("0.333333", "\\boxed{\\frac13}", 1),
        ("\\frac13", "\\boxed{0.333333}", 1),
        ("e^{-50}", "\\boxed{e^{-51}}", 0),
        ("2\\cdot 10^{-7}", "\\boxed{3 \\cdot 10^{-7}}", 0),
        ("x^2+2x+1", "\\boxed{(x+1)^2}", 1),
        ("\\pi/4", "\\boxed{\\frac{\\pi}{4}}", 1),
        ("5", "\\boxed{5!}", 0),
        ("120", "\\boxed{5!}", 1),
        ("5!", "\\boxed{120}", 1),
        ("5", "The answer is 5!", 1),
        ("120", "The answer is $5!$", 1),
        ("2\\cdot 5!", "\\boxed{240}", 1),
        ("n!", "\\boxed{n!}", 1),
        ("9", "The perimeter is \\boxed{12}, so the area is \\boxed{9}.", 1),
        ("9", "The side is $\\boxed{3}$, hence the area is $\\boxed{9}$.", 1),
        ("1,2", "$\\boxed{1}$ and $\\boxed{2}$", 1),
        ("1,2", "\\boxed{1}, \\boxed{2}", 1),
        ("1,2", "$x = \\boxed{1}$ or $x = \\boxed{2}$", 1),
        ("4", "答案：\\boxed{4}", 1),
        ("\\frac12", "Die Antwort ist $\\frac12$.", 1),
        ("3.5", "Die Antwort ist $3{,}5$.", 1),
        ("(1,2)", "\\boxed{(1,2)}", 1),
        ("x=5", "5", 1),
    ],
)
def test_lists_tiny_numbers_factorials_and_boxes_apart(
    metric: MathEquivalence, gold: str, reply: str, value: float
) -> None:
    assert score_of(metric, example(gold), reply).value == value


def test_cut_and_empty_boxes_are_told_apart(metric: MathEquivalence) -> None:
    assert score_of(metric, example("7"), r"\boxed{7").answer.status == "cut"
    assert score_of(metric, example("6"), r"\boxed{}").answer.status == "unparsed"


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"\frac{15}{4}", r"\dfrac{15}{4}", True),
        (r"7-2\pi", r"7 - 2 \pi", True),
        ("1,2", "2,1", True),  # a list of solutions has no order
        ("(1,2)", "1,2", False),
        ("[2,5)", "[2, 5)", True),
        (r"\{1,2\}", "2, 1", True),
        ("23_5", "23", False),
        ("23_5", "23_{5}", True),
        ("3.54e-07", r"3.54 \times 10^{-7}", True),
        (r"20\%", "20", True),
        (r"20\%", "0.2", False),
        ("x=5", "5", True),
        ("5", "x = 5", True),
        ("x=5", "y=5", False),
        (r"\text{no}", "on", False),
        ("no", "on", False),
        (r"\text{Tuesday}", "tuesday", True),
        (r"\frac{1}{3}", "0.333", False),
        (r"\frac{1}{3}", "0.333333", True),
        (r"1\,000", "1000", True),
        ("10,000", "10000", True),
        ("1.5x", "15x", False),
        ("x+1", "x-1", False),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}", False),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
        ("p-q", "q-p", False),
    ],
)
def test_pitfalls(checker: Checker, gold: str, answer: str, same: bool) -> None:
    assert checker.equal(gold, answer) is same


def test_agrees_with_math_verify_on_random_expressions(checker: Checker) -> None:
    math_verify = pytest.importorskip("math_verify")
    rng = random.Random(0)

    def parsed(text: str) -> list[object]:
        config = (math_verify.LatexExtractionConfig(),)
        found: list[object] = math_verify.parse(f"${text}$", config, parsing_timeout=None)
        return found

    for _ in range(25):
        a, b, c = (rng.randint(1, 9) for _ in range(3))
        gold = rng.choice([f"{a}x+{b}", f"\\frac{{{a}}}{{{b}}}", f"{a}\\sqrt{{{b}}}", f"(x+{a})(x-{b})"])
        answer = rng.choice(
            [
                f"{b}+{a}x",
                f"\\frac{{{a * c}}}{{{b * c}}}",
                f"\\sqrt{{{a * a * b}}}",
                f"x^2+{a - b}x-{a * b}".replace("+-", "-"),
            ]
        )
        expected = math_verify.verify(parsed(gold), parsed(answer), timeout_seconds=None)
        assert checker.equal(gold, answer) == expected, (gold, answer)


def test_an_expression_that_never_ends_is_given_up_and_the_next_one_is_compared() -> None:
    metric = MathEquivalence(Options(seconds=0.5))
    score = score_of(metric, example("9^{9^{9^{9}}}+y"), r"\boxed{9^{9^{9^{9^{9}}}}-y}")
    assert score.value == 0
    assert "too long" in score.meta["undecided"]
    metric._checker.seconds = 20.0
    assert score_of(metric, example(r"2\sqrt{3}"), r"\boxed{\sqrt{12}}").value == 1


def test_votes_meet_where_scores_do(metric: MathEquivalence) -> None:
    question = example("x").question
    a, b = metric.read(question, r"\boxed{2\sqrt{3}}"), metric.read(question, r"\boxed{\sqrt{12}}")
    assert a.key != b.key
    assert metric.utility(question, a, b) == 1
    assert metric.utility(question, a, Answer()) == 0
    forms = ("0.5", "1/2", r"\frac{1}{2}", ".50")
    assert {metric.read(question, f"\\boxed{{{form}}}").key for form in forms} == {"1/2"}


def test_comparisons_that_were_given_up_stand_in_the_extra_metrics(metric: MathEquivalence) -> None:
    metas = [{}, {"undecided": "took too long"}, {}, {}]
    rows = [Scored(example=example("1"), reply=Reply(text=""), score=Score(value=0.0, meta=m)) for m in metas]
    assert metric.extra_metrics(rows) == {"undecided": 0.25}


PIECES = st.sampled_from(
    ["The answer is ", "18", "1,600", "-", "+", "$", "\\frac{", "}", "{", "1/2", "x", "\\sqrt{", "^2", "=", " or ", "(", "]",
     "\\boxed{", "<think>", "</think>", "Answer:", ", ", "\\text{", "²", "\\pi", "\\begin{pmatrix}", "\\infty", "%", "\n"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(text=st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=10).map("".join)))
def test_scoring_never_raises_and_is_deterministic(metric: MathEquivalence, text: str) -> None:
    first, second = (
        asyncio.run(metric.score(example(r"\frac{x}{2}"), Reply(text=text), None))  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert first == second
    assert first.value in (0.0, 1.0)
    assert (first.answer.key is None) == (first.answer.status != "parsed")


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([r"\frac{1}{2}", "18", "(1,2)", r"2\sqrt{3}", "x^2+1", r"\text{Tuesday}", r"60^\circ"]),
    st.sampled_from([r"\boxed{{{}}}", "The answer is ${}$.", "So:\n$${}$$"]),
    st.sampled_from(["", " ", "\n\n", "\t", "\r\n", "\u00a0"]),
    st.sampled_from(["", "*", "**", "***", "__"]),
)
def test_space_and_emphasis_change_nothing(
    metric: MathEquivalence, gold: str, frame: str, space: str, mark: str
) -> None:
    question, said = example(gold).question, frame.format(gold)
    assert metric.read(question, f"{space}{mark}{said}{mark}{space}").key == metric.read(question, gold).key
