"""The shared reader: reasoning, evidence, numbers, LaTeX, code; linear time on any text."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hard_texts import HARD
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import Question
from moco_toolkit_answers import (
    READERS,
    called_name,
    clean_latex,
    decimals_of,
    evidence,
    extract_code,
    fill,
    find_numbers,
    mark_of,
    math_key,
    parse_list,
    parse_number,
    plain_markdown,
    read,
    round_to,
    split_items,
    strip_outer,
    strip_reasoning,
    text_only,
    visible,
)
from moco_toolkit_answers.evidence import cut_sentence


def question(kind: str, **fields: object) -> Question:
    return Question(id="q", prompt="?", answer_kind=kind, **fields)  # type: ignore[arg-type]


# ---------------------------------------------------------------- reasoning


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>a</think>b", "b"),
        ("b<think>a", None),
        ("a < b and c > d", "a < b and c > d"),
        ("<|channel|>analysis<|message|>a", None),
    ],
)
def test_reasoning_is_removed(text: str, rest: str | None) -> None:
    assert strip_reasoning(text) == rest


def test_unicode_is_normalised() -> None:
    assert visible("\u201cI can\u2019t\u201d\u00a0\u2212 ５\r\n½") == '"I can\'t" - 5\n1/2'
    assert visible("x² + 3½") == "x^{2} + 3 1/2"


def test_markdown_marks_go_and_words_stay() -> None:
    assert plain_markdown("## **Final** _answer_: `x_1 * 2`\n> quoted") == "Final answer: x_1 * 2\nquoted"
    assert plain_markdown("2*3*4 and a_b_c") == "2*3*4 and a_b_c"


# ---------------------------------------------------------------- evidence


def found(text: str) -> list[tuple[str, str]]:
    return [(e.kind, e.text) for e in evidence(text)]


def test_order_of_evidence() -> None:
    text = "The answer is 1.\n#### 2\n<answer>3</answer>\n\\boxed{4}\nlast"
    assert found(text) == [("box", "4"), ("tag", "3"), ("hash", "2"), ("declared", "1"), ("line", "last")]


@pytest.mark.parametrize(
    ("text", "declared"),
    [
        ("The final answer is: **42**.", "42"),
        ("**Final Answer**\n\n42", "42"),
        ("Answer:\n42", "42"),
        ("The answer to life is 42", "42"),
        ("Answer: 3. Wait, no. Answer: 4", "4"),
        ("Therefore, the correct answer is J. K. Rowling. She wrote it.", "J. K. Rowling"),
        ("The answer is 7. Because it is", "7"),
        ("The answer is 3.5 because", "3.5 because"),
        ("42 is the answer.", "42"),
        ("So it is Paris.", "Paris"),
    ],
)
def test_declared_answers(text: str, declared: str) -> None:
    assert dict(found(text))["declared"] == declared


@pytest.mark.parametrize(
    "text",
    [
        "the question is answered: 5",
        "It has every answer in the model's words",
        "an option's text is matched",
        "As for the answer, much matters.",
        "What is the answer?",
    ],
)
def test_no_declaration(text: str) -> None:
    assert "declared" not in dict(found(text))


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed 5", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} or \boxed{2}", "1 or 2"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"$x = \boxed{1}$ or $x = \boxed{2}$", "1 or 2"),
        (r"\boxed{1} und \boxed{2}", "1, 2"),
        (r"\boxed{12}, so the area is \boxed{9}", "9"),
        (r"$\boxed{3}$, hence $\boxed{9}$", "9"),
        (r"\fbox{A}", "A"),
    ],
)
def test_boxes(text: str, box: str) -> None:
    assert dict(found(text))["box"] == box


def test_sentences_end_but_numbers_and_abbreviations_do_not() -> None:
    assert cut_sentence("It is 3.5. Then") == "It is 3.5."
    assert cut_sentence("Dr. Who ran. He") == "Dr. Who ran."
    assert cut_sentence("C. Because", initials=False) == "C."


def test_outer_wrappers_are_removed_layer_by_layer() -> None:
    assert strip_outer(r' **$\text{"x"}$**. ') == "x"
    assert strip_outer(r"\frac{1}{2}") == r"\frac{1}{2}"
    assert strip_outer("$1$ and $2$") == "$1$ and $2$"


# ---------------------------------------------------------------- numbers and LaTeX


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,600", 1600), ("1 600", 1600), ("1{,}600", 1600), ("+7", 7), ("-$5", -5), ("$-5", -5), ("50%", 50),
        ("18 dollars", 18), (r"20\text{ miles}", 20), (r"60^\circ", 60), ("1.2e-3", "3/2500"), ("3 1/2", "7/2"),
        (r"1.2 \times 10^{-3}", "3/2500"), (".50", "1/2"), (r"\frac{1}{2}", "1/2"), (r"3\frac12", "7/2"), ("5.", 5),
        ("1.234.567", 1234567), ("1.234,5", "2469/2"), ("3{,}5", None), ("18 Äpfel", 18), ("5!", 120), ("5 km!", None),
        ("1,2", None), ("1,23,456", None), ("x", None), ("", None), ("1/0", None), ("1e99999", None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_numbers(text: str, value: object) -> None:
    assert parse_number(text) == (None if value is None else Fraction(str(value)))


def test_decimal_comma_only_when_asked_for() -> None:
    assert parse_number("4,90", comma=True) == Fraction("4.90")
    assert parse_number("4,90") is None
    assert parse_number("4,900", comma=True) == 4900


def test_numbers_of_a_text() -> None:
    assert find_numbers("First 20, then 3-4 = -1, and $1,600.50.") == [20, 3, 4, -1, Fraction("1600.5")]


@settings(max_examples=300, deadline=None)
@given(st.fractions(max_denominator=10**6), st.integers(0, 6))
def test_rounding_is_half_away_from_zero(value: Fraction, decimals: int) -> None:
    rounded = round_to(value, decimals)
    assert abs(rounded - value) * 2 <= Fraction(1, 10**decimals)
    assert round_to(-value, decimals) == -rounded
    assert round_to(Fraction(5, 10 ** (decimals + 1)), decimals) == Fraction(1, 10**decimals)


def test_decimals_shown() -> None:
    assert [decimals_of(t) for t in ("4.90", "18", "3/10", "$1,600.5", "1e-3")] == [2, 0, None, 1, None]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\tfrac{1}2", r"\frac{1}{2}"),
        (r"\left( 1,\, 2 \right)", "( 1, 2 )"),
        ("10,000", "10000"),
        ("(1,234)", "(1,234)"),
        ("1,234,5", "1,234,5"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"a \\ b", r"a \\ b"),
    ],
)
def test_latex_has_one_form(text: str, clean: str) -> None:
    assert clean_latex(text) == clean


def test_items_and_their_delimiters() -> None:
    assert split_items("(1,2]") == ("(", ["1", "2"], "]")
    assert split_items(r"\{1,(2,3)\}") == (r"\{", ["1", "(2,3)"], r"\}")
    assert split_items("(x+1)(x-1)") == ("", ["(x+1)(x-1)"], "")


def test_words_are_not_mathematics() -> None:
    assert text_only(r"\text{Tuesday}") == text_only("Tuesday") == "tuesday"
    assert text_only("x") is None
    assert text_only("x+y") is None


def test_keys_of_equal_answers_meet() -> None:
    assert len({math_key(t) for t in ("0.5", "1/2", r"\frac{1}{2}", ".50", r"\dfrac12", "x = 0.5")}) == 1
    assert (
        len({math_key(t) for t in (r"\frac{1}{23}", r"\frac{12}{3}", "(-4,8)", "-48", "1.5x", "15x", "1,2", "12")}) == 8
    )


@pytest.mark.parametrize("text", ["[1, 2]", "(1,2)", "1, 2", "1 and 2", r"\{1, 2\}", "1.0, 2.0"])
def test_lists(text: str) -> None:
    assert parse_list(text) == [1, 2]


# ---------------------------------------------------------------- code


def test_code_of_a_reply() -> None:
    assert extract_code("```bash\nls\n```\nThen:\n```python\nx = 1\n```", "") == ("x = 1", "block")
    assert extract_code("```python\nf(1)\n```\n```python\ndef f(x):\n    return x\n```", "f")[0].startswith("def f")
    assert extract_code("Sure.\n\ndef f():\n    return 1\n\nThat is all, folks.", "f") == (
        "def f():\n    return 1",
        "bare",
    )
    assert extract_code("```python\n>>> def f():\n...     return 1\n```", "f")[0] == "def f():\n    return 1"
    assert extract_code("I do not know.", "f") == ("", "")


ADD = "def add(a, b):\n    return a + b"
DOCUMENTED = 'def add(a, b):\n    """Add.\n\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b'


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (f"{ADD}\n```\n\nThis adds two numbers.", ADD),
        (f"{ADD}\n```\nUsed like this:\n```python\nadd(1, 2)\n```", ADD),
        (f"Sure:\n```python\n{ADD}\n\nprint(add(1,", ADD),
        ("1. So:\n\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n\n2. Done.", ADD),
        ("* a\n    * b\n\n      ```py\n      def add(a, b):\n          return a + b\n      ```", ADD),
        ("```python\n    def add(a, b):\n        return a + b\n```", ADD),
        (f"```python\n{DOCUMENTED}\n```", DOCUMENTED),
        (
            f'```python\n"""Add.\n\n```\nadd(1, 2)\n```\n"""\n{ADD}\n```\nDone',
            f'"""Add.\n\n```\nadd(1, 2)\n```\n"""\n{ADD}',
        ),
        (f'```python\n# """\n{ADD}\n```\nand prose', f'# """\n{ADD}'),
    ],
)
def test_fences_are_those_of_commonmark(reply: str, code: str) -> None:
    assert extract_code(reply, "add") == (code, "block")


def test_the_end_of_a_body_may_have_a_fence_whose_beginning_was_in_the_prompt() -> None:
    assert extract_code("    return a + b\n```\nThat is it.", "add") == ("    return a + b", "body")


def test_called_names() -> None:
    assert called_name(["assert set(f(1)) == {1}", "assert math.isclose(f(2), 2)"]) == "f"
    assert called_name("assert (g(1)) == 2") == "g"
    assert called_name("not python at all") == ""


# ---------------------------------------------------------------- judges


def test_texts_in_a_prompt_are_not_read_as_slots() -> None:
    assert fill("{a}{b} {c}", a="{b}", b=r"\frac{1}{2}") == r"{b}\frac{1}{2} {c}"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=50))
def test_a_text_does_not_hold_its_own_mark(text: str) -> None:
    assert mark_of(text) not in text and mark_of(text) == mark_of(text)
    assert mark_of(text) != mark_of(f"{text}\n{mark_of(text)}\n")


# ---------------------------------------------------------------- any text


@pytest.mark.parametrize("kind", sorted(READERS))
def test_long_hard_texts_are_read(kind: str) -> None:
    """Patterns that backtrack would not come to an end on these; tests/benchmarks/bench_scoring.py measures the growth."""
    asked = question(
        kind,
        choices=("alpha ray", "8 lb", "a", "1,234") if kind == "choice" else (),
        labels=("yes", "no") if kind == "label" else (),
        meta={"answer_type": "list of float", "entry_point": "f"},
    )
    for piece in HARD:
        answer = read(asked, piece * 10_000)
        assert (answer.key is None) == (answer.status != "parsed"), piece


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.integers(0, 2**32))
def test_pieces_in_any_order_are_read(text: str, seed: int) -> None:
    rng = random.Random(seed)
    mixed = "".join(rng.choice([*HARD, text[:20]]) for _ in range(rng.randint(0, 12)))
    for kind in READERS:
        asked = question(
            kind, choices=("a", "1,234") if kind == "choice" else (), labels=("yes", "no") if kind == "label" else ()
        )
        for reply in (text, mixed):
            first = read(asked, reply)
            assert first == read(asked, reply)
            assert (first.key is None) == (first.status != "parsed")
