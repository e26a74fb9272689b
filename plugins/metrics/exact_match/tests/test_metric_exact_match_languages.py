"""Exact match in many languages: numbers of other locales, truth values, labels, texts, letters, sequences."""

from __future__ import annotations

import pytest

from moco_core import Example, Question, Score
from moco_metric_exact_match import ExactMatch, Options
from moco_toolkit_authoring import score_of

SORT = "Sort the following words alphabetically: List: oven cab ant"


def scored(kind: str, gold: str, reply: str, *, labels: tuple[str, ...] = (), prompt: str = "?") -> Score:
    question = Question(id="q", prompt=prompt, answer_kind=kind, labels=labels)
    return score_of(ExactMatch(Options()), Example(question=question, references=(gold,)), reply)


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("1234567", "Die Antwort ist 1.234.567."),
        ("1600", "Die Antwort lautet 1.600 Euro."),
        ("1600", "Antwort: 1.600 €"),
        ("1600", "La respuesta es 1.600."),
        ("1600", "La réponse est 1 600."),
        ("1600", "La réponse est 1 600 €."),
        ("1600", "Réponse : 1\u202f600"),
        ("1600", "A resposta é 1.600 reais."),
        ("1600", "Ответ: 1 600 рублей"),
        ("1600", "答案是1600元。"),
        ("1600", "答案：1,600"),
        ("1600", "答案：１６００"),
        ("1600", "答えは1600円です。"),
        ("1600", "정답은 1,600원입니다."),
        ("1600", "الإجابة: ١٦٠٠"),
        ("1600", "الإجابة هي ١٬٦٠٠."),
        ("1600", "उत्तर: १६००"),
        ("123456", "सही उत्तर ₹1,23,456 है।"),
        ("12345678", "उत्तर: 1,23,45,678"),
        ("50", "50 %"),
        ("50", "Die Antwort ist 50 Prozent."),
        ("50", "La réponse est 50 pour cent."),
        ("50", "Ответ: 50%"),
        ("50", "答案是50％"),
        ("30000", "答えは3万円です。"),
        ("12000", "答えは1万2000です。"),
        ("120000000", "정답은 1억 2000만입니다."),
        ("42", "The answer is 42!"),
        ("42", "42!"),
        ("120", "\\boxed{5!}"),
        ("9", "The perimeter is \\boxed{12}, so the area is \\boxed{9}."),
        ("7", "Die Antwort ist nicht 5, sondern 7."),
        ("7", "答案不是5，而是7。"),
        ("7", "La respuesta no es 5, sino 7."),
        ("7", "The answer is 5. Wait, no: 7."),
        ("7", "Answer: 5\nCorrection: 7"),
        ("7", "答案是5。更正：7。"),
        ("-5", "Die Antwort ist −5."),
        ("12", "Ergebnis: **12** Äpfel"),
        ("12", "정답은 12개입니다."),
        ("12", "Поэтому правильный ответ — 12."),
        ("12", "जवाब 12 है।"),
        ("12", "Portanto, a resposta é **12**."),
        ("12", "所以答案为12个苹果。"),
        ("12", "答：12个。"),
        ("12", "La risposta è 12 mele."),
        ("1500000", "The answer is 1.5 million."),
        ("1500000", "1,5 Millionen"),
        ("2000000000", "2 billion"),
        ("3000", "Ответ: 3 тысячи"),
        ("300000", "उत्तर: 3 लाख"),
        ("30000", "3万"),
        ("35000", "3.5万"),
        ("35000", "3万5千円"),
        ("3000000", "3百万"),
        ("5", "5千克"),
        ("1000", "10^3"),
        ("1000", "10³"),
        ("1000", "\\boxed{10^3}"),
        ("5", "5 m²"),
        ("-5", "minus 5"),
        ("-5", "The answer is negative 5."),
        ("-5", "答案：负5"),
        ("70000", "€70.000"),
        ("70000", "70.000 €"),
        ("1234567", "1_234_567"),
        ("5", "Die Antwort ist 5,0."),
    ],
)
def test_a_whole_number_is_read(gold: str, reply: str) -> None:
    assert scored("integer", gold, reply).value == 1


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("5", "\\boxed{5!}"),
        ("1", "\\boxed{1,2}"),
        ("12", "\\boxed{1,2}"),
        ("3", "10^3"),
        ("2", "x^2"),
        ("5", "\\boxed{\\sqrt{5}}"),
        ("5", "The answer is 5 or 6."),
        ("6", "答案是5或6。"),
        ("2020", "In 2020, 3 million"),
    ],
)
def test_another_number_is_not_taken_for_it(gold: str, reply: str) -> None:
    assert scored("integer", gold, reply).value == 0


def test_a_word_of_magnitude_that_the_question_asks_in_is_a_unit() -> None:
    assert scored("integer", "2", "The answer is 2 million.", prompt="How many million people live there?").value == 1
    assert (
        scored("integer", "2000000", "2 million", prompt="Of 3 million people a third left. How many are there?").value
        == 1
    )


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("3.5", "Die Antwort ist 3,5."),
        ("1234.56", "Die Antwort ist 1.234,56 €."),
        ("1234.56", "Die Lösung beträgt 1.234,56 Euro"),
        ("1234.56", "1.234,56"),
        ("1234.56", "1 234,56"),
        ("1234.56", "1'234.56"),
        ("4.90", "4,90 €"),
        ("4.90", "Das kostet 4,90 €."),
        ("0.25", "Le résultat est 0,25."),
        ("12.345", "Le résultat est 12,345"),
        ("12345", "The answer is 12,345"),
        ("3.5", "الإجابة: ٣٫٥"),
        ("3,5", "Antwort: 3,5"),
        ("3,5", "3.5"),
    ],
)
def test_a_decimal_is_read(gold: str, reply: str) -> None:
    assert scored("decimal", gold, reply).value == 1


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("True", "Ja"),
        ("False", "Nein, das stimmt nicht."),
        ("True", "答案：对"),
        ("False", "答案：错误"),
        ("False", "不正确。"),
        ("True", "Sí, es verdad."),
        ("False", "Ответ: Нет"),
        ("True", "はい、そうです。"),
        ("False", "いいえ。"),
        ("False", "아니요"),
        ("True", "نعم"),
        ("False", "नहीं"),
        ("True", "La respuesta es verdadero."),
        ("False", "Die Aussage ist falsch. Antwort: Falsch"),
        ("True", "**正しい**です。"),
        ("True", "सही उत्तर सत्य है।"),
        ("True", "Vrai."),
    ],
)
def test_a_truth_value_is_read(gold: str, reply: str) -> None:
    assert scored("boolean", gold, reply).value == 1


@pytest.mark.parametrize(
    ("gold", "reply"),
    [
        ("北京", "答案是北京。因为它是首都。"),
        ("東京", "答えは東京です。"),
        ("東京", "東京です。"),
        ("서울", "서울입니다."),
        ("서울", "정답은 서울입니다."),
        ("Berlin", "Die Antwort lautet: Berlin."),
        ("Madrid", "La respuesta es Madrid."),
        ("Москва", "Правильный ответ — Москва."),
        ("القاهرة", "الإجابة هي القاهرة."),
        ("दिल्ली", "सही उत्तर दिल्ली है।"),
        ("दिल्ली", "उत्तर: दिल्ली"),
        ("Paris", "Réponse : Paris"),
        ("Roma", "La risposta corretta è Roma."),
        ("Lisboa", "Resposta: Lisboa"),
        ("iPhone手机", "答案是iPhone手机"),
        ("Paris", "The answer is Paris!"),
    ],
)
def test_a_text_is_read(gold: str, reply: str) -> None:
    assert scored("text", gold, reply).value == 1


@pytest.mark.parametrize(
    ("labels", "gold", "reply"),
    [
        (("yes", "no", "maybe"), "maybe", "答案：maybe。"),
        (("支持", "反对"), "反对", "答案是反对。"),
        (("ja", "nein"), "ja", "Die Antwort ist ja, weil es stimmt."),
        (("positivo", "negativo"), "negativo", "La respuesta es negativo."),
        (("positive", "negative"), "negative", "Label: negative"),
        (("正面", "负面"), "正面", "正面，因为很好"),
    ],
)
def test_labels_of_any_language_are_read(labels: tuple[str, ...], gold: str, reply: str) -> None:
    assert scored("label", gold, reply, labels=labels).value == 1


@pytest.mark.parametrize(
    "reply",
    [
        "(A) is incorrect. (B) is correct.",
        "(A) is wrong since red. (C) too. So (B).",
        "答案：（B）",
        "Die Antwort ist B.",
        "B。",
    ],
)
def test_a_rejected_letter_is_no_answer(reply: str) -> None:
    assert scored("letter", "(B)", reply, labels=("(A)", "(B)", "(C)")).value == 1


@pytest.mark.parametrize(
    "reply",
    [
        "ant\ncab\noven",
        "1. ant\n2. cab\n3. oven",
        "- ant\n- cab\n- oven",
        "Answer:\n\n* ant\n* cab\n* oven\n\nI hope this helps!",
        "The answer is ant, cab and oven.",
        "The sorted words are: ant, cab, and oven.",
        "1. ant 2. cab 3. oven",
        "\\boxed{ant, cab, oven}",
    ],
)
def test_a_sequence_may_be_one_item_a_line(reply: str) -> None:
    assert scored("tokens", "ant cab oven", reply, prompt=SORT).value == 1
    assert scored("tokens", "cab ant oven", reply, prompt=SORT).value == 0


def test_a_sequence_is_read_without_a_list_in_the_prompt_too() -> None:
    for reply in ("ant\ncab\noven", "1) ant\n2) cab\n3) oven", "ant, cab and oven"):
        assert scored("tokens", "ant cab oven", reply).value == 1
    assert scored("tokens", "rock and roll", "rock and roll").value == 1


def test_an_escaped_brace_of_a_formula_is_a_bracket() -> None:
    prompt = "Complete the rest of the sequence. Input: [ { ["
    assert scored("tokens", "] } ]", "$] \\} ]$", prompt=prompt).value == 1
