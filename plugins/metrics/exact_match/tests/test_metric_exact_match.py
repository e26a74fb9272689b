"""Exact match by kind: the tricky replies, conformance, groups, and invariances."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moco_core import Answer, Example, Question, Reply, Score, Scored
from moco_metric_exact_match import ExactMatch, Options, macro_f1
from moco_toolkit_authoring import metric_checks, score_of

test_conformance = metric_checks("exact_match", settings=[{}, {"tolerance": 0.04, "ordered": False}])

YES_NO = ("yes", "no", "maybe")
DYCK = "Complete the rest of the sequence. Input: [ ("


def example(kind: str, gold: str, **fields: Any) -> Example:
    fields = {"prompt": "What?", **fields}
    return Example(question=Question(id="q", answer_kind=kind, **fields), references=(gold,))


def scored(kind: str, gold: str, reply: str, options: Options | None = None, **fields: Any) -> Score:
    return score_of(ExactMatch(options or Options()), example(kind, gold, **fields), reply)


@pytest.mark.parametrize(
    ("kind", "gold", "reply", "value"),
    [
        ("integer", "18", "She makes $18 every day.", 1),
        ("integer", "18", "The answer is 18 dollars.", 1),
        ("integer", "1600", r"\boxed{1{,}600}", 1),
        ("integer", "5", r"\boxed{-5}", 0),
        ("integer", "12", r"\boxed{1,2}", 0),
        ("integer", "18", "First I got 20, but #### 18", 1),
        ("decimal", "4.90", "$4.9", 1),
        ("decimal", "4.90", "4.94", 0),
        ("decimal", "0.3", "3/10", 1),
        ("letter", "A", ".", 0),
        ("letter", "A", "", 0),
        ("letter", "A", "the", 0),
        ("letter", "(D)", "The answer is (D) the blue book.", 1),
        ("boolean", "True", "**True**", 1),
    ],
)
def test_tricky_replies(kind: str, gold: str, reply: str, value: float) -> None:
    assert scored(kind, gold, reply).value == value


@pytest.mark.parametrize(
    ("answer_type", "gold", "reply", "value"),
    [
        ("float", "3.54e-07", r"3.54 \times 10^{-7}", 1),
        ("float", "3.54e-07", "0.0000005", 0),
        ("list of integer", "[1, 2]", "1 and 2", 1),
        ("list of integer", "[1, 2]", "(1, 2)", 1),
        ("bool", "True", "It is not true: False", 0),
        ("option", "(b)", "option (b)", 1),
        ("float", "1.732", r"\boxed{\sqrt{3}}", 1),
        ("float", "0.0", "0.001", 0),
        ("integer", "100", "101", 0),
    ],
)
def test_typed_replies(answer_type: str, gold: str, reply: str, value: float) -> None:
    assert scored("typed", gold, reply, meta={"answer_type": answer_type}).value == value


def test_tolerance_and_order_are_options() -> None:
    meta = {"answer_type": "float"}
    official = Options(tolerance=0.04, ordered=False)
    assert [scored("typed", "100.0", "103", o, meta=meta).value for o in (Options(), official)] == [0, 1]
    meta = {"answer_type": "list of float"}
    assert [scored("typed", "[1.0, 2.0]", "(2, 1)", o, meta=meta).value for o in (Options(), official)] == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        (") ]", "} >", 0),
        (") ]", "Input: [ (\nThe brackets are closed one by one.\nSo the full sequence is [ ( ) ]", 1),
        (") ]", ") ]", 1),
        (") ]", "The answer is ) ].", 1),
        (") ]", "]", 0),
        (") ]", ") )", 0),
    ],
)
def test_bracket_tokens(gold: str, reply: str, value: float) -> None:
    assert scored("tokens", gold, reply, prompt=DYCK).value == value


def test_word_tokens_take_commas_or_spaces() -> None:
    assert scored("tokens", "apple banana cow", "The sorted words are: apple, banana, cow").value == 1
    assert scored("tokens", "apple banana cow", "apple cow banana").value == 0


@pytest.mark.parametrize(
    ("gold", "reply", "value", "status"),
    [
        ("yes", "Yes, they do.", 1, "parsed"),
        ("no", "Not yes.", 0, "unparsed"),
        ("maybe", "It may be yes or no: maybe", 1, "parsed"),
        ("yes", "The answer is yes, since it does.", 1, "parsed"),
        ("yes", "yes or no", 0, "ambiguous"),
        ("yes", "<think>yes", 0, "cut"),
    ],
)
def test_labels(gold: str, reply: str, value: float, status: str) -> None:
    score = scored("label", gold, reply, labels=YES_NO)
    assert (score.value, score.answer.status) == (value, status)


@pytest.mark.parametrize("reply", ["0.5", "1/2", r"\frac{1}{2}", ".50", r"$\frac12$", "The answer is 0.50."])
@pytest.mark.parametrize("kind", ["decimal", "math", "text"])
def test_forms_of_one_number_have_one_key(kind: str, reply: str) -> None:
    if kind == "text" and "frac12" in reply:
        reply = r"\frac{1}{2}"
    assert ExactMatch(Options()).read(example(kind, "x").question, reply).key == "1/2"


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        ("12", "Answer: 3 was my guess. Answer: 12", 1),
        ("9", "I first thought the answer was 7. The answer is 9.", 1),
        ("42", "The answer to life is 42", 1),
        ("5", "the question is answered: 5", 0),
        ("9", "<think>\\boxed{7}</think> 9 is the answer", 1),
        ("J. K. Rowling", "Answer: J. K. Rowling. She wrote it.", 1),
        ("The Who", "the who", 1),
        ("1.5x", "15x", 0),
        ("101", "100.0", 0),
    ],
)
def test_text_replies(gold: str, reply: str, value: float) -> None:
    assert scored("text", gold, reply).value == value


def rows(group: str, golds: str, said: str, size: int = 4) -> list[Scored]:
    metric, out = ExactMatch(Options()), []
    for index, (gold, reply) in enumerate(zip(golds, said, strict=True)):
        name = {"T": "True", "F": "False"}
        item = Example(
            question=Question(id=f"{group}{index}", prompt="?", answer_kind="boolean"),
            references=(name[gold],),
            group=group,
            meta={"group_size": size},
        )
        out.append(Scored(example=item, reply=Reply(text=""), score=score_of(metric, item, name[reply])))
    return out


def test_groups_are_all_or_nothing() -> None:
    metric = ExactMatch(Options())
    table = rows("a", "FFFT", "FFFF") + rows("b", "FTFF", "FTFF") + rows("c", "FT", "FT")
    assert {u.id: u.score for u in metric.units(table)} == {"a": 0.0, "b": 1.0}  # c lacks two members
    assert len(ExactMatch(Options(grouped=False)).units(table)) == 10


def test_macro_f1_weighs_labels_equally() -> None:
    def row(gold: str, said: str | None) -> Scored:
        answer = Answer(key=said, status="parsed") if said else Answer()
        return Scored(example=example("label", gold), reply=Reply(text=""), score=Score(value=0, answer=answer))

    # yes: F1 = 2*2/(3+2) = 0.8; no: F1 = 0
    assert macro_f1([row("yes", "yes"), row("yes", "yes"), row("no", "yes"), row("no", None)]) == pytest.approx(0.4)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    gold = ["yes"] * 6 + ["no"] * 4 + ["maybe"] * 2
    said = ["yes", "yes", "no", "maybe", "yes", ".", "no", "yes", "no", "", "yes", "no"]
    metric = ExactMatch(Options())
    rows = []
    for number, (label, reply) in enumerate(zip(gold, said, strict=True)):
        item = Example(
            question=Question(id=str(number), prompt="?", answer_kind="label", labels=YES_NO), references=(label,)
        )
        rows.append(Scored(example=item, reply=Reply(text=reply), score=score_of(metric, item, reply)))
    wanted = metrics.f1_score(gold, said, labels=list(YES_NO), average="macro", zero_division=0)
    assert metric.extra_metrics(rows) == {"macro_f1": pytest.approx(wanted)}
    # by hand: yes 2*3/(5+6), no 2*2/(4+4), maybe 0
    assert wanted == pytest.approx((6 / 11 + 1 / 2 + 0) / 3)


def test_always_the_commonest_label_has_accuracy_but_no_macro_f1() -> None:
    metric = ExactMatch(Options())
    rows = []
    for number, label in enumerate(["yes"] * 8 + ["no", "maybe"]):
        item = Example(
            question=Question(id=str(number), prompt="?", answer_kind="label", labels=YES_NO), references=(label,)
        )
        rows.append(Scored(example=item, reply=Reply(text="yes"), score=score_of(metric, item, "yes")))
    units = metric.units(rows)
    assert sum(u.score for u in units) / len(units) == 0.8
    assert metric.extra_metrics(rows)["macro_f1"] == pytest.approx(16 / 18 / 3)
    assert metric.extra_metrics([]) == {}


def test_extra_metrics_of_groups_tell_members_and_what_was_left_out() -> None:
    metric = ExactMatch(Options())
    rows = []
    for number, (group, gold) in enumerate(
        [("a", "True"), ("a", "False"), ("b", "False"), ("b", "False"), ("c", "False")]
    ):
        item = Example(
            question=Question(id=str(number), prompt="?", answer_kind="boolean"),
            references=(gold,),
            group=group,
            meta={"group_size": 2},
        )
        rows.append(Scored(example=item, reply=Reply(text="False"), score=score_of(metric, item, "False")))
    assert [(u.id, u.score) for u in metric.units(rows)] == [("a", 0.0), ("b", 1.0)]
    assert metric.extra_metrics(rows) == {"member_score": 0.8, "groups_left_out": 1.0}
    assert metric.extra_metrics(rows[:4])["groups_left_out"] == 0.0


KINDS = ["text", "letter", "label", "boolean", "integer", "decimal", "math", "typed", "tokens", "short", "open", "code"]
PIECES = st.sampled_from(
    ["The answer is ", "18", "1,600", "-", "$", "\\frac{", "}", "{", "1/2", ".5", "e-7", " or ", "yes", "**", "\n", "####",
     "\\boxed{", "<think>", "</think>", "Answer:", "[", ")", ", ", "not ", "```python\n", "def f(): pass\n", "\\text{", "²"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=150), st.lists(PIECES, max_size=14).map("".join))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None)
@given(text=TEXTS)
def test_scoring_never_raises_and_is_deterministic(kind: str, text: str) -> None:
    metric, item = (
        ExactMatch(Options()),
        example(kind, "18", labels=YES_NO, meta={"answer_type": "list of float"}),
    )
    if kind == "letter":
        item = example(kind, "A")
    first = metric.score(item, Reply(text=text), None)  # type: ignore[arg-type]
    assert first == metric.score(item, Reply(text=text), None)  # type: ignore[arg-type]
    assert (first.answer.key is None) == (first.answer.status != "parsed")


CASES = [("integer", "18"), ("decimal", "4.90"), ("text", "Jane Austen"), ("label", "yes"), ("boolean", "True"),
         ("math", "\\frac{1}{2}"), ("letter", "(B)"), ("tokens", "apple cow")]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(CASES),
    st.sampled_from(["{}", "The answer is {}.", "Answer: {}", "So:\n{}"]),
    st.sampled_from(["", " ", "\n\n", "\t", "\r\n", "\u00a0"]),
    st.sampled_from(["", "*", "**", "***", "_", "__"]),
)
def test_space_and_emphasis_change_nothing(case: tuple[str, str], frame: str, space: str, mark: str) -> None:
    kind, gold = case
    item = example(kind, gold, labels=YES_NO if kind == "label" else ())
    said = f"{space}{frame.format(mark + gold + mark)}{space}"
    assert score_of_fast(item, said) == 1.0


def score_of_fast(item: Example, text: str) -> float | None:
    return ExactMatch(Options()).score(item, Reply(text=text), None).value  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(st.fractions(min_value=-10000, max_value=10000, max_denominator=1000))
def test_a_number_is_read_back_exactly(value: Fraction) -> None:
    metric, question = ExactMatch(Options()), example("decimal", "1").question
    sign, n, d = "-" if value < 0 else "", abs(value.numerator), value.denominator
    for text in (f"{sign}{n}/{d}", f"{sign}\\frac{{{n}}}{{{d}}}", f"The answer is {sign}{n:,}/{d:,}."):
        assert metric.read(question, text).key == str(value)


@pytest.mark.parametrize(("kind", "gold"), CASES)
def test_a_reference_scores_one_and_nothing_scores_zero(kind: str, gold: str) -> None:
    item = example(kind, gold, labels=YES_NO if kind == "label" else ())
    assert score_of_fast(item, gold) == 1.0
    for empty in ("", " ", "\n", "**", "<think></think>"):
        assert score_of_fast(item, empty) == 0.0


def test_a_list_whose_fractions_look_like_thousands_scores_for_its_own_gold() -> None:
    from moco_toolkit_answers import parse_list, read

    question = Question(id="1", prompt="?", answer_kind="typed", meta={"answer_type": "list of float"})
    key = read(question, "The answer is [8.8, 24.4]").key
    assert key is not None and parse_list(key) == parse_list("[8.8, 24.4]") and len(key.split(";")) == 2
