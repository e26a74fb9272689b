"""Answers are found after the usual words of many languages, in other alphabets, digits, marks and corrections."""

from __future__ import annotations

import pytest

from moco_core import Answer, Question
from moco_toolkit_answers import find_numbers, localised, parse_list, read
from moco_toolkit_answers.phrases import LANGUAGES

COLOURS = ("red", "green", "blue", "yellow")


def chosen(reply: str, choices: tuple[str, ...] = COLOURS, labels: tuple[str, ...] = ()) -> Answer:
    return read(Question(id="q", prompt="?", choices=choices, labels=labels, answer_kind="choice"), reply)


@pytest.mark.parametrize(
    ("letter", "reply"),
    [
        ("B", "答案：B"),
        ("B", "答案是B"),
        ("B", "答案是 B。"),
        ("B", "正确答案是B，因为它是绿色的。"),
        ("B", "因此，正确选项为（B）。"),
        ("B", "故选B"),
        ("B", "所以应该选 B。"),
        ("B", "选B。"),
        ("B", "综上所述，答案为：\\boxed{B}"),
        ("B", "**答案：B**"),
        ("B", "答案：**B**。"),
        ("B", "我认为选项B正确。"),
        ("B", "B是正确答案。"),
        ("B", "【答案】B"),
        ("B", "答案：Ｂ"),
        ("B", "答案不是A，而是B。"),
        ("B", "A选项错误，B选项正确。"),
        ("B", "正确的是B"),
        ("B", "答案:（Ｂ）绿色"),
        ("C", "C。"),
        ("C", "**C**。"),
        ("C", "选项Ｃ"),
        ("A", "正解は A"),
        ("A", "正解はAです。"),
        ("A", "答えはＡです。"),
        ("A", "答え：A"),
        ("A", "したがって、正解は（A）となります。"),
        ("A", "正しい選択肢はAです。"),
        ("B", "答えはAではなくBです。"),
        ("B", "Aは間違いです。Bが正解です。"),
        ("A", "答えは、Aです。"),
        ("A", "よって、A。"),
        ("B", "정답은 B입니다."),
        ("B", "정답: B"),
        ("B", "답은 B번입니다"),
        ("B", "따라서 정답은 (B)입니다."),
        ("B", "정답은 A가 아니라 B입니다."),
        ("B", "B가 정답입니다."),
        ("B", "답: B번"),
        ("C", "Antwort: C"),
        ("C", "Die Antwort ist C."),
        ("C", "Die richtige Antwort lautet: **C**"),
        ("C", "Die korrekte Antwort ist (C), weil es blau ist."),
        ("C", "Richtig ist C."),
        ("C", "Daher ist die Antwort C."),
        ("C", "C ist die richtige Antwort."),
        ("C", "Die Antwort ist nicht A, sondern C."),
        ("C", "A ist falsch. C ist richtig."),
        ("C", "Die richtige Option ist C)"),
        ("C", "Somit ist Antwort C richtig."),
        ("C", "Lösung: C"),
        ("C", "Antwort:\n\nC"),
        ("D", "La respuesta es D"),
        ("D", "La respuesta correcta es la D."),
        ("D", "Respuesta: D"),
        ("D", "La opción correcta es la (D)."),
        ("D", "Respuesta correcta: D) amarillo"),
        ("D", "La respuesta no es A, sino D."),
        ("D", "Por lo tanto, la alternativa correcta es la letra D."),
        ("D", "La D es la respuesta correcta."),
        ("D", "Por lo tanto, D."),
        ("B", "La réponse est B"),
        ("B", "Réponse : B"),
        ("B", "La bonne réponse est la B."),
        ("B", "La bonne réponse est donc l'option B."),
        ("B", "La réponse n'est pas A mais B."),
        ("B", "B est la bonne réponse."),
        ("B", "Réponse finale : **B**"),
        ("B", "Donc, B."),
        ("C", "La risposta è C"),
        ("C", "Risposta: C"),
        ("C", "La risposta corretta è la C."),
        ("C", "L'opzione corretta è la lettera C."),
        ("C", "La risposta non è A, ma C."),
        ("C", "C è la risposta corretta."),
        ("C", "A resposta é C"),
        ("C", "Resposta: C"),
        ("C", "A alternativa correta é a letra C."),
        ("C", "A resposta correta é (C)."),
        ("C", "A resposta não é A, mas C."),
        ("C", "Gabarito: C"),
        ("C", "A opção C está correta."),
        ("B", "Ответ: B"),
        ("B", "Ответ: В"),
        ("B", "Ответ: Б"),
        ("B", "Правильный ответ — Б."),
        ("B", "Правильный ответ: (B)"),
        ("B", "Правильный ответ - B, потому что трава зелёная."),
        ("B", "Ответ не A, а B."),
        ("B", "Верный вариант: B"),
        ("B", "B — правильный ответ."),
        ("C", "Ответ: С"),
        ("B", "الإجابة: ب"),
        ("B", "الإجابة الصحيحة هي B"),
        ("B", "الجواب هو (B)."),
        ("B", "الإجابة الصحيحة هي: ب"),
        ("B", "الجواب الصحيح هو الخيار B."),
        ("B", "الإجابة ليست A بل B."),
        ("B", "الإجابة هي \u200fB\u200f."),
        ("B", "उत्तर: B"),
        ("B", "सही उत्तर B है।"),
        ("B", "सही उत्तर (B) है"),
        ("B", "उत्तर है B"),
        ("B", "सही विकल्प B है।"),
        ("B", "उत्तर A नहीं, B है।"),
        ("B", "B सही उत्तर है।"),
        ("B", "उत्तर: (ख)"),
        ("C", "Ｃ"),
        ("C", "（Ｃ）"),
        ("C", "⒞"),
        ("C", "【C】"),
        ("C", "「C」"),
        ("C", "<b>C</b>"),
        ("C", "~~A~~ C"),
        ("C", "Answer: ~~B~~ **C**"),
        ("C", "$\\mathbf{C}$"),
        ("C", "Answer → C"),
        ("C", "Answer - C"),
        ("C", "The answer is A. Wait, it's C."),
        ("C", "The answer is A. Correction: C."),
        ("C", "Answer: A\n\nActually, no, C."),
        ("C", "The answer is A? No. It's C"),
        ("C", "C - blue"),
        ("C", "C – blue, since the sky is blue"),
        ("C", "So (C)."),
        ("C", "Therefore, C."),
        ("B", "(A) can be excluded, so (B)."),
        ("B", "(A) can't be it. (C) too. (B)!"),
        ("B", "Not A, not C, not D, hence B."),
        ("B", "A: wrong. B: right."),
        ("C", "最终答案：\n\n**C**"),
        ("C", "The answer is C rather than A."),
        ("C", "Answer: C (not B)"),
        ("C", "Die Antwort lautet C, nicht B."),
        ("C", "La respuesta es C, no B."),
        ("C", "答案是C，不是B。"),
        ("C", "Ответ: C, а не B."),
    ],
)
def test_a_letter_is_found(letter: str, reply: str) -> None:
    answer = chosen(reply)
    assert (answer.key, answer.status) == (str("ABCD".index(letter)), "parsed")


@pytest.mark.parametrize(
    "reply",
    [
        "Die Antwort ist A oder B.",
        "La respuesta es A o B.",
        "答案是A或B。",
        "La réponse est A ou B.",
        "Ответ: A или B.",
        "答えはAまたはBです。",
        "정답은 A 또는 B입니다.",
        "الإجابة هي A أو B.",
        "उत्तर A या B है।",
    ],
)
def test_two_letters_that_a_word_joins_are_ambiguous(reply: str) -> None:
    assert chosen(reply).status == "ambiguous"


@pytest.mark.parametrize(
    "reply",
    [
        "As for the answer, much matters.",
        "В этом вопросе ответ не ясен.",
        "La solución depende de muchos factores.",
        "我不知道答案。",
        "A ist falsch, und B ist falsch.",
        "So lautet die Antwort eines Menschen, der es nicht weiß.",
    ],
)
def test_no_letter_is_read_where_none_is_declared(reply: str) -> None:
    assert chosen(reply).key is None


def test_option_texts_are_found_in_scripts_without_spaces_too() -> None:
    chinese, german = ("红色", "绿色", "蓝色", "黄色"), ("rot", "grün", "blau", "gelb")
    assert chosen("答案是蓝色", chinese).key == "2"
    assert chosen("这个物体的颜色是蓝色。", chinese).key == "2"
    assert chosen("不是红色，而是蓝色。", chinese).key == "2"
    assert chosen("答えは蓝色です。", chinese).key == "2"
    assert chosen("Die Lösung ist grün.", german).key == "1"
    assert chosen("Die Antwort lautet nicht rot, sondern grün.", german).key == "1"


@pytest.mark.parametrize(
    ("labels", "index", "reply"),
    [
        (("А", "Б", "В", "Г"), 2, "Ответ: В"),
        (("А", "Б", "В", "Г"), 2, "Ответ: B"),
        (("А", "Б", "В", "Г"), 1, "Правильный ответ — Б."),
        (("А", "Б", "В", "Г"), 0, "Ответ: А"),
        (("أ", "ب", "ج", "د"), 1, "الإجابة: ب"),
        (("أ", "ب", "ج", "د"), 2, "الجواب الصحيح هو (ج)"),
        (("가", "나", "다", "라"), 1, "정답은 나입니다."),
        (("क", "ख", "ग", "घ"), 1, "सही उत्तर (ख) है।"),
        (("ア", "イ", "ウ", "エ"), 1, "正解はイです。"),
        (("甲", "乙", "丙", "丁"), 1, "答案：乙"),
        (("α", "β", "γ", "δ"), 1, "The answer is β."),
        (("1", "2", "3", "4"), 1, "答案：２"),
        (("1", "2", "3", "4"), 1, "정답은 ②번입니다."),
        (("1", "2", "3", "4"), 1, "Die Antwort ist 2."),
        (("1", "2", "3", "4"), 1, "(2)"),
        (("a", "b", "c", "d"), 1, "The answer is b."),
        (("i", "ii", "iii", "iv"), 1, "Answer: ii"),
        (("A1", "A2", "A3", "A4"), 1, "The answer is A2."),
    ],
)
def test_a_datasets_own_labels_are_read_in_any_alphabet(labels: tuple[str, ...], index: int, reply: str) -> None:
    assert chosen(reply, labels=labels).key == str(index)


@pytest.mark.parametrize(
    ("index", "reply"),
    [
        (27, "The answer is AB."),
        (27, "AB"),
        (27, "(AB)"),
        (27, "Answer: AB) option 27 text"),
        (0, "A"),
        (0, "The answer is A."),
        (25, "It's Z."),
        (26, "Option AA is correct."),
        (8, "The answer is I."),
        (27, "ab"),
        (27, "\\boxed{AB}"),
    ],
)
def test_labels_beyond_z_are_read(index: int, reply: str) -> None:
    assert chosen(reply, tuple(f"option {i} text" for i in range(30))).key == str(index)


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "comma", "continental", "written"),
    [
        ("1.234.567", False, False, "1234567"),
        ("1.234,56", False, False, "1234.56"),
        ("1 234,56", False, False, "1234.56"),
        ("12,34,567", False, False, "1234567"),
        ("1,234.56", False, False, "1,234.56"),
        ("1.234", False, False, "1.234"),
        ("1.234", False, True, "1234"),
        ("12,345", False, True, "12.345"),
        ("12,345", True, False, "12,345"),
        ("4,90", True, False, "4.90"),
        ("4,90", False, False, "4,90"),
        ("(1.234,5)", False, False, "(1.234,5)"),
        ("1,2,3", True, False, "1,2,3"),
        ("3万円", False, False, "30000 円"),
        ("1億2000万", False, False, "120000000 "),
    ],
)
def test_numbers_of_other_locales_have_one_form(text: str, comma: bool, continental: bool, written: str) -> None:
    assert localised(text, comma=comma, continental=continental) == written


def test_numbers_in_other_digits_are_found() -> None:
    from moco_toolkit_answers import normalise_unicode

    assert find_numbers(normalise_unicode("٤٢ و ٣٫٥ و १२ और ５")) == [42, 3.5, 12, 5]
    assert normalise_unicode("１，２３４。") == "1,234. "


def test_lists_are_joined_by_the_words_of_their_language() -> None:
    for text in ("1 und 2", "1 et 2", "1 y 2", "1 e 2", "1 и 2", "1和2", "1と2", "1와 2", "1 و 2", "1 और 2"):
        assert parse_list(text) == [1, 2]


SAID = {
    "af": "Die korrekte antwoord is {}",
    "ar": "الإجابة الصحيحة هي {}",
    "bn": "সঠিক উত্তর হল {}",
    "cs": "Správná odpověď je {}",
    "de": "Die Antwort lautet {}",
    "en": "The answer is {}",
    "es": "La respuesta correcta es {}",
    "fr": "La bonne réponse est {}",
    "hi": "सही उत्तर है {}",
    "hu": "A helyes válasz az {}",
    "id": "Jawaban yang benar adalah {}",
    "it": "La risposta corretta è {}",
    "ja": "答えは{}です",
    "ko": "정답은 {}입니다",
    "mr": "योग्य उत्तर आहे {}",
    "ne": "सही उत्तर {} हो।",
    "pt": "A resposta correta é {}",
    "ru": "Ответ: {}",
    "sr": "Tačan odgovor je {}",
    "sw": "Jibu sahihi ni {}",
    "te": "సరైన సమాధానం {}",
    "th": "คำตอบที่ถูกต้องคือ {}",
    "uk": "Правильна відповідь це {}",
    "ur": "درست جواب {} ہے",
    "vi": "Đáp án đúng là {}",
    "wo": "Tontu bi mooy {}",
    "yo": "Ìdáhùn náà ni {}",
    "zh": "正确答案是{}",
    "zu": "Impendulo ithi {}",
}
"""How a reply declares its answer, in each of the 29 languages of MMLU-ProX."""


@pytest.mark.parametrize("language", SAID)
@pytest.mark.parametrize("form", ["{}", "({})", "**{}**"])
def test_a_letter_is_found_after_the_words_of_every_language_that_benchmarks_ask_in(language: str, form: str) -> None:
    """Ten options, other letters before, nothing but a full stop behind."""
    question = Question(id="q", prompt="?", choices=tuple(f"x{i}y" for i in range(10)), answer_kind="choice")
    said = SAID[language].format(form.format("H"))
    assert read(question, f"A) 12\nB) 7, C) 8\n{said}").key == "7"
    assert read(question, f"{said}.").key == "7"


def test_every_language_has_a_sentence_that_is_read() -> None:
    said = [text.lower() for text in SAID.values()]
    assert all(any(stem in text for stem in language.stems for text in said) for language in LANGUAGES)
