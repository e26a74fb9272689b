"""The words by which answers are declared, rejected and joined, in the languages of multilingual datasets.

English is read by :mod:`moco_toolkit_answers.evidence` itself. Patterns are compiled when a reply first needs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import attrs

__all__ = [
    "AND",
    "BUT",
    "CROSSES",
    "FALSE",
    "JOIN",
    "NOT",
    "OPTION",
    "OR",
    "THEREFORE",
    "TICKS",
    "TRUE",
    "WRONG",
    "Language",
    "spoken",
]

# ---------------------------------------------------------------- small words, as alternatives of a pattern

AND = r"(?:\b(?:and|und|et|и|و)\b|(?:और|तथा|एवं)(?=\s)|和|及び|及|与|與|と|および|와|과|그리고)"
OR = r"(?:\b(?:or|and/or|oder|ou|или|либо|أو)\b|(?:या|अथवा)(?=\s)|或者?|または|もしくは|또는|이나|혹은)"
"""Both leave out the words of one letter that some languages have (y, e, o, u): they are variables too."""

JOIN = rf"(?:{AND}|{OR}|\b[yeou]\b|[&/])"
"""Joins two answers between which a reply does not decide."""

BUT = r"(?:but|sondern|aber|mais|sino|pero|bensì|ma|mas|а|но|بل|لكن|बल्कि|लेकिन)"

TICKS, CROSSES = "\u2705\u2713\u2714\u2611", "\u274c\u2717\u2718\u2716\u2612"
"""Signs behind what is right, and behind what is wrong."""

OPTION = (
    r"option|choice|answer|ans|letter|antwort(?:möglichkeit)?|möglichkeit|buchstabe|variante|réponse|lettre|proposition|respuesta|"
    r"opción|letra|alternativa|risposta|opzione|lettera|resposta|opção|вариант(?:\s+ответа)?|ответ|буква|пункт|答案|选项|選項|选择?|選擇?|"
    r"答え|正解|選択肢|정답|답|선택지|보기|الخيار|الإجابة|الحرف|خيار|उत्तर|विकल्प"
)
"""What may stand before a letter that is the whole answer."""

NOT = (
    r"(?:\b(?:not|never|no|neither|nor|isn't|wasn't|aren't|doesn't|don't|cannot|can't|than|instead\s+of|rather\s+than|except|"
    r"unlike|excludes?|excluding|eliminat(?:es?|ed|ing)|reject(?:s|ed|ing)?|rules?\s+out|ruled\s+out|ruling\s+out|"
    r"nicht|keine?[nrs]?|weder|außer|statt|pas|ni|sauf|non|né|tranne|não|nem|exceto|не|ни|кроме|ليست?|لا|غير|سوى)\b|नहीं(?=\s)"
    r"|n't\b|不是|并非|並非|不[选選为為]|除了)"
)
"""Denies what follows."""

WRONG = (
    r"(?:(?:is|are|was|would\s+be|looks|seems)\s+(?:also\s+|clearly\s+|obviously\s+|definitely\s+)?(?:(?:in|not\s+)correct\b|wrong|"
    r"false|tempting|unlikely|implausible|ruled\s+out|eliminated|excluded|out\b|a\s+distractor|not\b)|isn't|aren't|"
    r"can(?:not|'t)\b|can\s+be\s+(?:ruled|elim|exclu|dismiss|discard|reject|crossed)|(?:does\s+not|doesn't|do\s+not)\b|"
    r"(?:too|also|either|neither|as\s+well)\s*[.,;]|"
    r"(?:ist|sind|wäre)\s+(?:\w+\s+)?(?:falsch|inkorrekt|nicht|auszuschließen|ausgeschlossen|unwahrscheinlich)|scheidet\b|"
    r"(?:kann|können)\s+(?:\w+\s+)?ausgeschlossen|n'est\s+pas|est\s+(?:\w+\s+)?(?:fau(?:x|sse)|incorrecte?|exclue?|éliminée?)|"
    r"peut\s+être\s+(?:exclu|éliminé)|no\s+es|es\s+(?:\w+\s+)?(?:incorrect|fals|erróne)|(?:se|queda|puede)\s+(?:\w+\s+)?descart|"
    r"non\s+è|(?:è|e')\s+(?:\w+\s+)?(?:sbagliat|errat|fals|scorrett|esclus)|si\s+può\s+escluder|não\s+é|"
    r"(?:é|está)\s+(?:\w+\s+)?(?:incorret|errad|fals|descart)|(?:-\s*)?(?:это\s+)?(?:неверн|неправильн|ложн|ошибочн|исключ)|"
    r"не\s+(?:подходит|является|верн)|отпадает|(?:项|項|选项|選項|是)?\s*(?:错|錯|不对|不對|不正确|不正確|不符|(?:可以?|被)?排除|有误)|"
    r"(?:は|が)?\s*(?:間違|誤り|不正解|正しくな|違[うい]|除外|では(?:な|あり)|じゃな)|(?:번)?\s*[은는이가]?\s*(?:틀|아니|오답|잘못|제외|옳지|맞지)|"
    r"(?:هي|هو)?\s*(?:خاطئ|خط[أا]|غير\s+صحيح|ليس)|(?:सही\s+)?नहीं|गलत)"
)
"""Rejects what stands before it."""

THEREFORE = (
    r"(?:\b(?:so|therefore|thus|hence|consequently|daher|somit|folglich|donc|alors|ainsi|entonces|(?:por\s+)?lo\s+tanto|"
    r"por\s+tanto|quindi|dunque|pertanto|portanto|então|logo|следовательно|значит|итак|поэтому|إذن|إذا|لذلك)\b|अतः|इसलिए"
    r"|因此|所以|故|よって|したがって|従って|따라서|그러므로)"
)

TRUE = (
    "true", "yes", "yep", "yeah", "absolutely", "of course", "correct", "right",
    "wahr", "ja", "richtig", "korrekt", "vrai", "oui", "correcte", "verdadero", "verdadera",
    "sí", "si", "correcto", "vero", "sì", "corretto", "verdadeiro", "verdadeira", "sim", "correto", "да", "верно", "правда",
    "правильно", "истина", "истинно", "是", "是的", "对", "對", "正确", "正確", "真", "はい", "正しい", "예", "네",
    "맞다", "맞습니다", "참", "그렇다", "نعم", "صحيح", "صح", "हाँ", "हां", "सही", "सत्य",
)  # fmt: skip

FALSE = (
    "false", "no", "nope", "not true", "not correct", "i think not", "incorrect", "wrong",
    "falsch", "nein", "faux", "non", "incorrecte", "falso", "falsa", "incorrecto",
    "errato", "sbagliato", "não", "incorreto", "errado", "нет", "неверно", "ложь", "неправильно", "ложно", "否",
    "不是", "不", "不对", "不對", "错", "錯", "错误", "錯誤", "不正确", "不正確", "假", "いいえ", "誤り", "間違い",
    "正しくない", "偽", "아니요", "아니오", "아니다", "아닙니다", "틀리다", "틀렸습니다", "거짓", "لا", "خطأ", "خاطئ", "नहीं",
    "गलत", "असत्य",
)  # fmt: skip

# ---------------------------------------------------------------- declarations

_LABEL = r"[\"'(\[*$]{0,4}(?:[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|-?\d[\d.,/ ]*%?)[)\"'\]*$.]{0,4}"
"""A letter or a number by itself, with what may stand around it; the signs of Chinese and its like are words."""

_IS = r"\s*(?::|=|->|=>|→|-(?=\s))\s*"
"""A sign that means "is" in any language."""

_ASIDE = r"[\"'\])*]{0,2}(?:\s*\([^()\n]{0,40}\))?"


@attrs.frozen(kw_only=True, eq=False)
class Language:
    """How one language says what the answer is; all parts are pattern sources over lower and upper case alike.

    ``stems`` are texts of which one occurs (in lower case) wherever an answer is declared. ``noun`` is "answer", "right
    option" and the like with their adjectives, ``verb`` is "is" behind it, ``denied`` stands where the verb is negated
    before it, ``filler`` is what may come between verb and answer. ``others`` are declarations of another shape.
    ``behind`` is how "is the right answer" follows an answer, ``right`` how "is right" follows a label. ``tail`` is
    what a sentence ends with behind the answer. ``comma``: numbers are written 1.234,5.
    """

    stems: tuple[str, ...]
    noun: str
    verb: str
    denied: str = ""
    filler: str = ""
    others: str = ""
    behind: str = ""
    right: str = ""
    tail: str = ""
    comma: bool = False

    def declarations(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where a declaration begins and where what it declares does."""
        return (m.span() for m in _compiled(self)[0].finditer(text))

    def reversed(self, text: str) -> str | None:
        """Return what the last "... is the answer" declares."""
        found = None
        for match in _compiled(self)[1].finditer(text):
            found = match["a"] or match["b"]
        return found

    def bare(self, capture: str) -> str:
        """Return a captured answer without what ends its sentence."""
        return _compiled(self)[2].sub("", capture) if self.tail else capture


@lru_cache(maxsize=32)
def _compiled(language: Language) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    end = rf"(?=\s*{_LABEL}\s*(?:[.,;!\n]|$|{language.right or '(?!)'}))"
    is_ = rf"(?:{_IS}|\s*(?:{language.verb})\s*[:=]?\s*|{language.denied or '(?!)'}|{end})"
    declared = rf"(?:{language.noun}){_ASIDE}{is_}(?:{language.filler})?"
    if language.others:
        declared += rf"|{language.others}"
    answer = rf"(?P<a>\$[^$\n]{{1,400}}\$|(?<![^\s,;:(\"]){_LABEL}(?!\w)|(?<![^\s,;:])[^\s,;:]{{1,64}})"
    letter = rf"(?<![^\s,;:])(?P<b>{_LABEL})"
    reverse = rf"{answer}\s*(?:{language.behind or '(?!)'})|{letter}\s*(?:{language.right or '(?!)'})"
    return re.compile(declared, re.I), re.compile(reverse, re.I), re.compile(rf"\s*(?:{language.tail})\s*$", re.I)


def _european(
    *, stems: str, article: str, adjective: str, noun: str, of: str, verb: str, option: str, adverb: str,
    others: str, denied: str = "", behind: str, right: str,
) -> Language:  # fmt: skip
    """Return a language that puts words in the order of English and spaces between them."""
    filler = (
        rf"(?:(?:{adverb})\b\s*,?\s*)*(?:(?:{article})\s*(?=[\"'(\[*$]{{0,4}}[A-Z](?![\w'])|(?:{option})\b))?"
        rf"(?:(?:{option})\b\s*:?\s*(?=\S))?"
    )
    return Language(
        stems=tuple(stems.split()),
        noun=rf"\b(?:(?:{adjective})\s+)*(?:{noun})\b(?:\s+(?:{adjective})\b)*"
        rf"(?:\s+(?:{of})\b[^.:=\n?!]{{0,80}}?)??|\b(?:{option})\s+(?:{adjective})\b|\b(?:{adjective})\s+(?:{option})\b",
        verb=rf"(?:{verb})(?![\w'])(?:\s+(?:{adverb})\b)*",
        denied=denied,
        filler=filler,
        others=others,
        behind=behind,
        right=right,
        comma=True,
    )


LANGUAGES: tuple[Language, ...] = (
    _european(
        stems="antwort lösung ergebnis richtig korrekt",
        article="die|der|das",
        adjective=r"richtige[nrs]?|korrekte[nrs]?|beste[nrs]?|finale[nrs]?|endgültige[nrs]?|zutreffende[nrs]?|gesuchte[nrs]?",
        noun=r"antwort(?:möglichkeit|option)?|lösung|(?:end)?ergebnis|resultat",
        of=r"auf|für|zu|von|der|des|dieser",
        verb=r"ist|sind|lautet|lauten|wäre|beträgt|ergibt|muss",
        option=r"option|antwort(?:möglichkeit|option)?|möglichkeit|buchstabe|variante|aussage|nummer",
        adverb=r"also|daher|somit|damit|folglich|demnach|deshalb|dann|nun|eindeutig|wahrscheinlich|vermutlich",
        others=r"\b(?:korrektur|berichtigung)\s*:\s*|\b(?:richtig|korrekt)\s+(?:ist|wäre)\s+(?:(?:die\s+)?(?:option|antwort)\s+)?",
        behind=r"(?:ist|sind|wäre|lautet)\s+(?:\w+\s+){0,2}?(?:(?:die|das|meine|unsere)\s+)?(?:\w+\s+)?(?:antwort|lösung|ergebnis)\b",
        right=r"(?:(?:ist|wäre)\s+(?:\w+\s+)?)?(?:richtig|korrekt|zutreffend)\b",
    ),
    _european(
        stems="réponse reponse résultat correcte",
        article=r"la|le|l'|les",
        adjective=r"bonne|correcte?|exacte?|finale?|juste|meilleure?",
        noun=r"r[ée]ponse|solution|r[ée]sultat",
        of=r"à|a|au|de|du|pour",
        verb=r"est|sont|serait|sera|vaut|doit\s+[êe]tre|n'est(?=\s+pas)",
        option=r"r[ée]ponse|option|lettre|proposition|choix|num[ée]ro",
        adverb=r"donc|alors|ainsi|par\s+cons[ée]quent|bien|s[ûu]rement|clairement|probablement|de",
        others=r"\b(?:correction|rectification)\s*:\s*",
        behind=r"(?:est|serait)\s+(?:\w+\s+)?(?:(?:la|le|ma|notre)\s+)?(?:bonne\s+|vraie\s+)?(?:r[ée]ponse|solution|r[ée]sultat)\b",
        right=r"(?:est|serait)\s+(?:\w+\s+)?(?:correcte?|exacte?|juste|vraie?)\b",
    ),
    _european(
        stems="respuesta solución resultado correcta corrección",
        article=r"la|el|los|las",
        adjective=r"correct[ao]|final|acertad[ao]|verdader[ao]|mejor|adecuad[ao]",
        noun=r"respuesta|soluci[óo]n|resultado",
        of=r"a|al|de|del|para|en",
        verb=r"es|son|ser[íi]a|ser[áa]|debe\s+ser|debería\s+ser",
        option=r"opci[óo]n|letra|alternativa|respuesta|n[úu]mero|inciso",
        adverb=r"entonces|por\s+(?:lo\s+)?tanto|pues|claramente|probablemente|de",
        others=r"\b(?:correcci[óo]n)\s*:\s*",
        denied=r"\s+(?=no\s+(?:es|son|ser[íi]a)\b)",
        behind=r"(?:es|ser[íi]a)\s+(?:\w+\s+)?(?:(?:la|el|mi|nuestra)\s+)?(?:respuesta|soluci[óo]n|resultado|(?:opci[óo]n\s+)?correct[ao])\b",
        right=r"(?:es|ser[íi]a)\s+(?:\w+\s+)?(?:la\s+)?(?:correct[ao]|verdader[ao])\b",
    ),
    _european(
        stems="risposta soluzione risultato corretta",
        article=r"la|il|l'|lo|le|i",
        adjective=r"corrett[ao]|giust[ao]|esatt[ao]|finale|miglior[ei]?",
        noun=r"risposta|soluzione|risultato",
        of=r"a|al|alla|di|del|della|per",
        verb=r"è|e'|sono|sarebbe|sarà|deve\s+essere",
        option=r"opzione|lettera|alternativa|risposta|scelta|numero",
        adverb=r"quindi|dunque|allora|pertanto|perciò|chiaramente|probabilmente",
        others=r"\b(?:correzione)\s*:\s*",
        denied=r"\s+(?=non\s+(?:è|e'|sono|sarebbe)(?!\w))",
        behind=r"(?:è|e'|sarebbe)\s+(?:\w+\s+)?(?:(?:la|il|mia)\s+){0,2}(?:risposta|soluzione|risultato)\b",
        right=r"(?:è|e'|sarebbe)\s+(?:\w+\s+)?(?:corrett[ao]|giust[ao]|esatt[ao]|vera)\b",
    ),
    _european(
        stems="resposta solução resultado correta gabarito correção",
        article=r"a|o|as|os",
        adjective=r"corret[ao]|cert[ao]|final|exat[ao]|verdadeir[ao]|melhor",
        noun=r"resposta|solução|resultado|gabarito",
        of=r"à|ao|a|da|do|de|para",
        verb=r"é|são|seria|será|deve\s+ser|está",
        option=r"opção|letra|alternativa|resposta|item|número",
        adverb=r"então|portanto|logo|assim|claramente|provavelmente|de",
        others=r"\b(?:correção|corrigindo)\s*:\s*",
        denied=r"\s+(?=não\s+(?:é|são|seria)(?!\w))",
        behind=r"(?:é|seria)\s+(?:\w+\s+)?(?:(?:a|o|minha)\s+){0,2}(?:resposta|solução|resultado|(?:opção\s+|alternativa\s+)corret[ao])\b",
        right=r"(?:é|está|seria)\s+(?:\w+\s+)?(?:a\s+)?(?:corret[ao]|cert[ao]|verdadeir[ao])\b",
    ),
    Language(
        stems=("ответ", "вариант", "результат", "верн", "исправлен", "поправк"),
        noun=r"\b(?:(?:правильн|верн|окончательн|итогов|корректн|точн)\w*\s+)*(?:ответ(?:ом|а)?|результат(?:ом)?|вариант(?:ом)?(?:\s+ответа)?)\b"
        r"(?:\s+(?:на|к|для)\b[^.:=\n?!]{0,80}?)??",
        verb=r"(?:это|будет|является|равен|равно|равна|составляет|есть)\b(?:\s+(?:вариант|буква)\b)?",
        denied=r"\s+(?=не\s)",
        filler=r"(?:(?:это|вариант(?:\s+ответа)?|буква|пункт|под\s+буквой|номер)\s+){0,2}",
        others=r"\b(?:исправлени[ея]|поправка)\s*:\s*|\b(?:верен|правилен|верно|правильно)\s*(?:-\s*|:\s*)?(?=(?:вариант|ответ|пункт)?\s*[\"'(]?[^\W\d_]\b)",
        behind=r"(?:-\s*)?(?:это\s+|является\s+)?(?:правильн|верн|корректн)\w+\s+(?:ответ|вариант)\w*",
        right=r"(?:-\s*)?(?:является\s+)?(?:правильн|верн)\w*\b(?!\s+\w)|(?:-\s*)?(?:верно|правильно)\b",
        comma=True,
    ),
    Language(
        stems=("答", "选", "選", "正确", "正確", "结果", "結果", "更正", "订正", "訂正", "结论", "結論"),
        noun=r"(?:(?:正确|正確|最终|最終|最后|最後|最佳|标准|標準|参考|參考)\s*的?\s*)?(?:答案|结果|結果|结论|結論)"
        r"|(?:正确|正確)\s*的?\s*(?:选项|選項|选择|選擇|说法|說法)",
        verb=r"[应應]?\s*[该該当當]?\s*(?:选择|選擇|选|選|就是|便是|即是|即为|即為|是|为|為)",
        denied=r"\s*(?=不是|并非|並非|不为|不為|不[应應])",
        filler=r"(?:选项|選項|选|選)?\s*",
        others=r"(?:故|因此|所以|因而|[应應][该該当當]?|本题|本題|我|则|則|可)?\s*,?\s*(?:选择|選擇|选|選)\s*(?:项|項|答案)?\s*:?\s*"
        r"(?=[\"'(\[*]{0,3}[A-Z](?![A-Za-z]))|(?:正确|正確)\s*的\s*(?:是|为|為)\s*:?\s*|(?:回答|(?<![^\W\d_])答|更正|订正|訂正|修正|纠正)\s*:\s*",
        behind=r"(?:就是|才是|是|为|為)\s*(?:正确|正確|最终|最終|最佳)?\s*的?\s*(?:答案|选项|選項)",
        right=r"(?:项|項|选项|選項)?\s*(?:是|才是|為|为)?\s*(?:正确|正確|对|對)\s*的?(?![^\W\d_])",
        tail=r"[.!]|(?<=\w)(?:吧|了|哦|的)",
    ),
    Language(
        stems=("答", "正解", "正答", "正しい", "結論", "選択", "訂正", "修正"),
        noun=r"(?:(?:正しい|最終的な|最終|正確な|適切な)\s*)?(?:答え|解答|回答|正解|正答|結論|答)|(?:正しい|適切な|最も適切な)\s*(?:選択肢|もの)",
        verb=r"(?:としては|は|が)\s*,?",
        filler=r"(?:選択肢|記号)?\s*の?\s*",
        others=r"正しいのは\s*,?\s*|(?:訂正|修正)\s*:\s*|(?:選択肢)\s*(?=[\"'(\[*]{0,3}[A-Z](?![A-Za-z]))",
        behind=r"(?:が|は)\s*(?:正解|正答|正しい答え|答え|正しい選択肢)",
        right=r"(?:が|は)\s*(?:正しい|正解|適切)",
        tail=r"(?:です|だ|である|でした|となります|になります|と考えられます|と思います|ということになります)?(?:よ|ね)?[.!]?",
    ),
    Language(
        stems=("답", "결과", "결론", "정정", "옳은"),
        noun=r"(?:(?:올바른|최종|정확한|맞는)\s*)?(?:정답|답안|답변|해답|결과|결론|답)",
        verb=r"(?:은|는|이|가)(?!\s*(?:아니|무엇)|[가-힣])",
        filler=r"(?:선택지|보기|옵션)?\s*",
        others=r"(?:정정|수정)\s*:\s*|(?:옳은|올바른|맞는)\s*(?:것|보기|선택지)(?:은|는)\s*",
        behind=r"(?:번)?\s*(?:이|가)\s*(?:정답|답|맞는\s*답|올바른\s*답)",
        right=r"(?:번)?\s*(?:이|가)\s*(?:맞|옳|정확|올바)\w*",
        tail=r"(?:번)?\s*(?:입니다|이다|이에요|예요|임)?[.!]?",
    ),
    Language(
        stems=("جابة", "جواب", "حل", "نتيجة", "خيار", "ختيار", "تصحيح"),
        noun=r"(?<!\w)(?:و?ال)?(?:[اإأ]جابة|جواب|حل|نتيجة|[اإأ]ختيار|خيار)(?!\w)(?:\s+(?:ال)?(?:صحيحة|صحيح|نهائية|نهائي|[اأ]فضل|مناسب|دقيقة)(?!\w))*"
        r"(?:\s+(?:على|عن|لهذا|للسؤال)\b[^.:=\n?!]{0,60}?)??",
        verb=r"(?:هي|هو|تكون|يكون|ستكون|سيكون)(?!\w)",
        denied=r"\s+(?=ليس|لا\s)",
        filler=r"(?:(?:ال)?(?:خيار|حرف|[اإأ]ختيار|رقم|[اإأ]جابة)(?!\w)\s*)?",
        others=r"(?:ال)?تصحيح\s*:\s*",
        behind=r"(?:هي|هو)\s+(?:ال)?(?:[اإأ]جابة|جواب|خيار|[اإأ]ختيار|حل)(?!\w)",
        right=r"(?:هي|هو)\s+(?:ال)?(?:صحيحة|صحيح)(?!\w)|(?<=\s)(?:صحيحة|صحيح)(?!\w)",
    ),
    Language(
        stems=("उत्तर", "जवाब", "परिणाम", "विकल्प", "हल", "सुधार"),
        noun=r"(?:(?:सही|अंतिम|सटीक|उचित|सर्वोत्तम)\s+)*(?:उत्तर|जवाब|परिणाम|हल)|(?:सही|उचित)\s+विकल्प",
        verb=r"(?:है|हैं|होगा|होगी)(?![\w\u0900-\u097f])",
        filler=r"(?:विकल्प|अक्षर|संख्या)?\s*",
        others=r"(?:उत्तर|जवाब|(?:सही|उचित)\s+विकल्प)\s+(?=[^\s.:,\n][^.:\n]{0,40}?\s+(?:है|हैं|होगा)\s*(?:[.!,\n]|$))|सुधार\s*:\s*",
        behind=r"(?:ही\s+)?(?:सही|अंतिम)\s+(?:उत्तर|जवाब|विकल्प)",
        right=r"(?:ही\s+)?सही(?![\w\u0900-\u097f])",
        tail=r"(?:है|हैं|होगा|होगी)[.!]?",
    ),
)


def _simple(*stems: str, noun: str, verb: str = "(?!)", behind: str = "") -> Language:
    """Return a language by its words for "answer" and "is"; ``behind`` is what follows the answer where "is" comes last."""
    last = rf"(?:{noun}){_ASIDE}\s+(?={_LABEL}\s*(?:{behind}))" if behind else ""
    tail = rf"(?:{behind})[.!]?" if behind else ""
    return Language(stems=stems, noun=noun, verb=rf"(?:{verb})(?!\w)", others=last, tail=tail)


LANGUAGES += (
    _simple("antwoord", noun=r"\b(?:(?:korrekte|regte|finale|juiste)\s+)?antwoord", verb="is"),
    _simple("jawaban", noun=r"\bjawaban(?:nya)?(?:\s+(?:yang\s+)?(?:benar|tepat|akhir))?", verb="adalah|ialah|yaitu"),
    _simple("trả lời", "đáp án", noun=r"\b(?:(?:câu\s+)?trả\s+lời|đáp\s+án)(?:\s+(?:đúng|chính\s+xác))?", verb="là"),
    _simple("odpověď", noun=r"\b(?:(?:správná|konečná)\s+)?odpověď|\bsprávná\s+možnost", verb="je|zní"),
    _simple("válasz", noun=r"\b(?:(?:helyes|végső)\s+)?válasz", verb="az|tehát"),
    _simple("odgovor", "одговор", noun=r"\b(?:(?:tačan|ispravan|тачан|исправан)\s+)?(?:odgovor|одговор)", verb="je|је"),
    _simple("відповідь", noun=r"\b(?:(?:правильна|остаточна)\s+)?відповідь", verb="це|є"),
    _simple("উত্তর", noun="(?:(?:সঠিক|চূড়ান্ত)\\s+)?উত্তর(?:টি)?", verb="হল|হলো|হচ্ছে|হবে"),
    _simple("उत्तर", noun=r"(?:(?:योग्य|बरोबर|अंतिम|सही)\s+)?उत्तर", verb="आहे", behind="आहे|हो|छ"),
    _simple("సమాధానం", noun=r"(?:సరైన\s+)?సమాధానం"),
    _simple("جواب", noun=r"(?<!\w)(?:(?:درست|صحیح)\s+)?جواب(?!\w)", verb="ہے", behind="ہے"),
    _simple("ตอบ", noun="ค(?:ำ|\u0e4d\u0e32)ตอบ(?:ที่ถูกต้อง|สุดท้าย)?", verb="คือ|เป็น"),  # in both spellings of Unicode
    _simple("jibu", noun=r"\bjibu(?:\s+(?:sahihi|la\s+mwisho))?", verb="ni"),
    _simple("impendulo", noun=r"\bimpendulo(?:\s+efanele)?", verb="ithi|ngu"),
    _simple("tontu", noun=r"\btontu(?:\s+bi)?", verb="mooy|laa"),
    _simple("ìdáhùn", "idahun", noun=r"\b(?:ìdáhùn|idahun)(?:\s+(?:náà|naa))?", verb="ni"),
)
"""The others in which multilingual benchmarks ask: Afrikaans and Dutch, Indonesian, Vietnamese, Czech, Hungarian, Serbian,
Ukrainian, Bengali, Marathi and Nepali, Telugu, Urdu, Thai, Swahili, Zulu, Wolof, Yoruba."""


_STEMS = tuple((language, stem) for language in LANGUAGES for stem in language.stems)
_ASCII_STEMS = tuple((language, stem) for language, stem in _STEMS if stem.isascii())
_PARTS = (
    "antwort",
    "gebnis",
    "ichtig",
    "korrekt",
    "eponse",
    "puesta",
    "posta",
    "sulta",
    "rret",
    "rrec",
    "luzion",
    "abarito",
    "antwoord",
    "jawaban",
    "odgovor",
    "jibu",
    "impendulo",
    "tontu",
    "idahun",
)
"""Every stem of plain letters holds one of these: one look at a long English reply is enough."""


def spoken(lowered: str) -> list[Language]:
    """Return the languages in which a text, given in lower case, may declare an answer."""
    found: list[Language] = []
    if not lowered.isascii():
        stems = _STEMS
    elif any([part in lowered for part in _PARTS]):  # noqa: C419  # faster than a generator
        stems = _ASCII_STEMS
    else:
        return found
    for language, stem in stems:
        if stem in lowered and language not in found:
            found.append(language)
    return found
