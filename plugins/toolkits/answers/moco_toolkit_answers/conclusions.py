"""What the first or last line of a reply comes to where nothing stronger declares an answer, in any of the languages.

"I choose B", "Es ist B", "Fazit: B", "Bです", "the statement is false": a label or a truth value, where a sentence says what
is so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from moco_toolkit_answers.letters import Labels, affirmed
from moco_toolkit_answers.phrases import BUT, FALSE, LANGUAGES, NOT, OPTION, OR, THEREFORE, TRUE

__all__ = ["concluded", "ends_of", "predicate", "said_of", "tail_of"]

_CHOOSE = (
    r"choose|chose|pick|picked|select|selected|say|guess|go\s+with|going\s+with|opt\s+for|leaves|leaving|left\s+with|only|"
    r"definitely|probably|certainly|surely|clearly|maybe|perhaps|likely|finally|makes|favou?rs?|"
    r"wähle|nehme|würde|entscheide\s+mich\s+für|tippe\s+auf|stimmt|bestimmt|vermutlich|wahrscheinlich|bleibt|nur|"
    r"choisis|choisirais|prends|opte\s+pour|reste|sûrement|probablement|seule?(?:ment)?|"
    r"elijo|escojo|selecciono|opto\s+por|me\s+quedo\s+con|queda|probablemente|s[óo]lo|"
    r"scelgo|seleziono|opto\s+per|resta|rimane|probabilmente|soltanto|"
    r"escolho|seleciono|marco|fico\s+com|provavelmente|somente|apenas|"
    r"выбираю|выберу|выбрал|остаётся|остается|наверное|вероятно|только|под\s+буквой|"
    r"س?[أا]ختار|اخترت|मैं|केवल"
)
_IS = r"is|be|ist|wäre|lautet|est|serait|es|ser[íi]a|è|e'|sarebbe|é|seria|это|является|будет|هي|هو|है"
_SUBJECT = (
    rf"\b(?:{OPTION}|solution|selection|pick|guess|conclusion|verdict|decision|response|result|one|correct|right|best|auswahl|wahl|"
    r"lösung|ergebnis|entscheidung|richtige?|korrekte?|zutreffende?|choix|corret[ao]|correcte?|elecci[óo]n|selecci[óo]n|soluci[óo]n|correct[ao]|"
    r"scelta|soluzione|corrett[ao]|giust[ao]|escolha|solução|cert[ao]|выбор|решение|(?:правильн|верн)\w*|[اأإ]?ختيار\w*|[إا]جابت\w*|चयन|सही)\b"
    r"|选择|選擇|正确|正確|選択|正しい|適切|선택|옳은|맞는"
)
_PRONOUN = r"es\s+ist|das\s+ist|dies\s+ist|c'est|il\s+s'agit\s+de|es|ser[íi]a|è|e'|sarebbe|é|seria|это"
_ARTICLE = (
    r"the|clearly|probably|definitely|surely|likely|indeed|l[ae']|el|il|lo|[ao]|d(?:ie|er|as)|donc|quindi|então|entonces|также|"
    r"also"
)
_TO = rf"\s*,?\s*(?:(?:{_ARTICLE}|{OPTION})(?!\w)\s*:?\s*)*[\"'(\[*$]{{0,4}}\Z"
_LEAD = re.compile(
    rf"(?:(?<![\w'])(?:{_CHOOSE}|{BUT})(?!\w)|[=>\u2192\u21d2\u2234]|{THEREFORE}|(?:\A|[.;,:!]\s*)(?:{_PRONOUN})(?!\w)|\b(?:por\s+consiguiente|"
    rf"in\s+(?:conclusion|short|summary)|ergo|par\s+cons[ée]quent|en\s+conclusion|in\s+conclusione|em\s+conclusão|в\s+итоге)){_TO}"
    rf"|(?:{_SUBJECT})[^.;:!?\n]*(?:(?<![\w'])(?:{_IS})(?!\w)|[是为為](?:选|選)?|[はがもの은는]){_TO}",
    re.I,
)
_BREAK = re.compile(r"[.;,:]\s*[\"'(\[*$]{0,4}\Z")
_REJECTED = re.compile(
    r"\b(?:in|un)(?:correct|likely)|\b(?:wrong|false|worst|least|less|distractor|doubt|error|anything|everything|all|none|eliminate\w*|exclude\w*|"
    r"rule\w*\s+out|reject\w*|falsche?\w*|mauvaise?|fausse|faux|sbagliat\w|errat\w|errad\w|fals[ao]|err[óo]ne\w*|неверн\w*|неправильн\w*|ошибочн\w*)\b|"
    r"\binco?rrett|\binkorrekt|错误|錯誤|不正确|不正確|誤|間違|正しくない|틀린|틀렸|잘못|خاطئ|خط[أا]|غير|गलत",
    re.I,
)
_COPULA = r"(?:입니다|이다|예요|이에요|임|です|だ|である|となり?ます|になります|でしょう|है|हैं|होगा)(?!\w)"
_END = re.compile(
    rf"[\"')\]*$]{{0,4}}\s*(?:{_COPULA}\s*)?(?:[.,;!]|\Z|\b(?:because|since|as|weil|denn|da|car|parce|porque|ya\s+que|pues|"
    r"perché|poiché|pois|потому|так\s+как)\b|(?:因为|因為|कारण))",
    re.I,
)
_COPULA_BEHIND = re.compile(rf"[\"')\]*]{{0,4}}\s*{_COPULA}")
_CHOSEN = re.compile(
    r"[\"')\]*]{0,4}\s*(?:を\s*(?:選|せんたく)|[을를로]\s*(?:선택|고르|고릅|골라)|(?:को\s+)?(?:चुन|चुना)|(?:wählen|nehmen)\b|makes?\s+sense|"
    r"(?:fits?|match(?:es)?|works?|applies|holds|remains|is\s+(?:better|more\s+likely)|correct(?=\s*[.!]?\s*\Z))\b|"
    r"(?:trifft\s+zu|stimmt|passt|bleibt)\b(?!\s+nicht)|(?:convient|reste)\b|(?:подходит|остаётся|остается)\b|맞|옳)",
    re.I,
)
_DOUBT = re.compile(
    r"\b(?:whether|if|unsure|unclear|unknown|between|not\s+(?:sure|certain|clear)|n[o']t\s+(?:know|say|tell|decide|determine|choose|answer)|"
    r"weiß\s+nicht|ob|sais\s+pas|no\s+sé|non\s+so|não\s+sei|не\s+(?:знаю|уверен\w*))\b|不知道|不确定|不確定|无法|無法|わかりません|分かりません|"
    r"모르|모릅|لا\s+أعرف|नहीं\s+पता|\?\s*\Z",
    re.I,
)
_TAIL = re.compile(r".*(?::|=|[=-]>|\u2192|\u21d2|\u2234|\s-(?=\s))\s*(?P<tail>[^\n]*)")


_NO_ANSWER = re.compile(rf"\b(?:not|nicht|keine?|options?|choices?|candidates?|(?:{'|'.join(FALSE)}))\W{{0,4}}\Z", re.I)


@cache
def _right() -> re.Pattern[str]:
    """Return how "is right" or "is the answer" follows a label, in all languages."""
    behind = "|".join(part for language in LANGUAGES for part in (language.right, language.behind) if part)
    return re.compile(rf"[\"')\]*]{{0,4}}\s*(?:{behind})", re.I)


def ends_of(text: str) -> list[str]:
    """Return the last and the first line of a text, shortened where they are long."""
    text = text.strip()
    if not text:
        return []
    last, first = text[text.rfind("\n") + 1 :], text.partition("\n")[0]
    return list(dict.fromkeys((last[-_LINE:].strip(), first[:_LINE].strip())))


_LINE = 300
"""No conclusion needs a longer line."""


def tail_of(line: str) -> str:
    """Return what stands behind the last sign for "is" of a line ("Fazit: B"); empty if there is none, or it is denied."""
    if not any(sign in line for sign in _SIGNS) or (match := _TAIL.match(line)) is None:
        return ""
    head = line[: match.start("tail")]
    return "" if _REJECTED.search(head) or _NO_ANSWER.search(head) else match["tail"].strip()


_SIGNS = ":=>-\u2192\u21d2\u2234"


def _conclusions(line: str, mentions: Sequence[tuple[int, int, str]]) -> list[str]:
    """Return those of a line's mentions (start, end, name) that a sentence concludes with, in order."""
    found: list[str] = []
    denied = False
    for start, end, name in mentions:
        before = line[:start]
        if not affirmed(line, start, end):
            denied = True
            continue
        if _REJECTED.search(re.split("[.,;]", before)[-1]):
            continue
        if not before.strip(" \"'([*$-"):
            said = _COPULA_BEHIND.match(line, end) is not None
        else:
            lead = _LEAD.search(before) or (_BREAK.search(before) if denied else None)
            said = lead is not None and _END.match(line, end) is not None
        if said or _CHOSEN.match(line, end) or _right().match(line, end) or (denied and _IS_BEHIND.match(line, end)):
            found.append(name)
    return found


_IS_BEHIND = re.compile(r"[\"')\]*]{0,4}\s+is\s*[.!]?\s*\Z")


def concluded(labels: Labels, line: str) -> tuple[str, bool]:
    """Return the label that a line concludes with (empty if there is none), and whether it leaves two open."""
    tail = tail_of(line)
    whole = labels.whole(tail) if tail else None
    mentions = [] if whole else list(labels.mentions(line))
    if not (whole or mentions) or (_DOUBT.search(line) and not _DECIDED.search(line)):
        return "", False
    if whole:
        return whole, False
    found = _conclusions(line, mentions)
    if len(found) > 1 and re.search(rf"{OR}\W*{re.escape(found[-1])}\b", line):
        return "", True
    return (found[-1] if found else ""), False


_DECIDED = re.compile(r"\bbetween\b[^.?]*,", re.I)


# ---------------------------------------------------------------- labels and truth values

_ADVERB = r"[a-z]+ly|also|rather|eindeutig|eher|offensichtlich|clairement|plutôt|claramente|chiaramente|явно"
_SAID_LEAD = re.compile(
    rf"(?:(?<![\w'])(?:{_IS}|was|as|{_CHOOSE}|{BUT})(?!\w)|[=>\u2192\u21d2:]|[是为為はがもの]|(?<=[가-힣])[은는이가])\s*(?:(?:the|an?|{_ADVERB})\s+)*"
    r"[\"'(\[*<]{0,3}\Z",
    re.I,
)
_SAID_END = re.compile(
    rf"[\"')\]*>]{{0,3}}\s*(?:的|{_COPULA})?\s*(?:[.,;!(]|\Z|\b(?:because|since|as|for|though|although|weil|car|porque|perché|потому)\b)",
    re.I,
)


_NO_LETTER = r"(?![^\W\u3040-\u9fff\uac00-\ud7af])"


def said_of(line: str, labels: Sequence[str]) -> str | None:
    """Return the label (of folded ones, the longest first) that a line says of something: "the sentiment is negative"."""
    folded = " ".join(line.casefold().split())
    if _DOUBT.search(folded):
        return None
    found: set[str] = set()
    for label in labels:
        word = re.compile((r"(?<!\w)" if label[0] < "\u0e00" else "") + re.escape(label) + _NO_LETTER)
        for match in word.finditer(folded):
            before = folded[: match.start()]
            if (
                _SAID_LEAD.search(before)
                and _SAID_END.match(folded, match.end())
                and affirmed(folded, *match.span())
                and not _REJECTED.search(re.split("[.,;]", before)[-1])
            ):
                if any(folded[match.end() :].lstrip(" ,").startswith(other) for other in labels if other != label):
                    return None  # the first of a list
                found.add(label)
        folded = word.sub(lambda m: "\0" * len(m[0]), folded)
    return found.pop() if len(found) == 1 else None


_TRUE = (
    "stimmt", "zutreffend", "vraie", "exacte?", "juste", "verdadera", "ciert[ao]", "correcta", "vera", "corretta", "giust[ao]",
    "verdadeira", "cert[ao]", "correta", "верн[аы]", "верен", "истинн[оаы]", "правд[аы]", "صحيحة", "plausible",
)  # fmt: skip
_FALSE = (
    "untrue", "inaccurate", "fausse", "inexacte?", "falsa", "incorrecta", "errónea", "errata", "sbagliata", "scorrett[ao]",
    "incorreta", "errada", "неверн[аы]", "ложн[аы]", "неправда", "خاطئة", "غير\\s+صحيحة?", "間違って", "誤って", "implausible",
)  # fmt: skip
"""Forms of "true" and "false" that agree with their subject."""

_COPULA_BEFORE = re.compile(
    r"(?<![\w'])(?:is|are|was|it's|that's|ist|sind|das|est|sont|c'est|es|son|è|sono|é|são|sounds|seems)(?:n't)?\s+(?:\w+\s+){0,2}\Z"
)
_PREDICATE_END = re.compile(
    r"[\"')\]*]{0,3}\s*(?P<denied>nicht\b|नहीं|[이가]?\s*아니|[이가]?\s*아닙)?\s*(?:的|います|いる|ない|니다|다|(?:입니다|이다|예요|です|だ|である|है|हैं)(?!\w))*"
    r"\s*(?:[.,;!(]|\Z|\b(?:because|since|as|for|weil|car|porque|perché|потому)\b)"
)
_DENIED = re.compile(rf"(?:{NOT}|n't)\s*(?:\w+\s+)?\Z")
_CONDITION = re.compile(r"\b(?:if|whether|what|which|ob|wenn|si|se|если|ли)\b|如果|是否|もし")


@cache
def _values() -> re.Pattern[str]:
    both = {"t": (*map(re.escape, TRUE), *_TRUE), "f": (*map(re.escape, FALSE), *_FALSE)}
    words = sorted(((w, n) for n, group in both.items() for w in group), key=lambda pair: -len(pair[0]))
    return re.compile(
        "|".join(
            rf"(?P<{n}{i}>(?<!\w){w}(?!\w))" if w[0] < "\u0e00" else rf"(?P<{n}{i}>{w})"
            for i, (w, n) in enumerate(words)
        )
    )


def predicate(line: str) -> bool | None:
    """Return whether a line says of something that it is true; None if it says nothing of the kind, or both."""
    line = line.casefold()
    if _DOUBT.search(line):
        return None
    found: set[bool] = set()
    for match in _values().finditer(line):
        ends = _PREDICATE_END.match(line, match.end())
        clause = re.split("[.,;:!?]", line[: match.start()])[-1]
        if ends is None or not clause.strip() or _CONDITION.search(clause):
            continue
        if match[0][0] < "\u0250" and not _COPULA_BEFORE.search(clause):
            continue
        denied = (_DENIED.search(clause) is not None) != (ends["denied"] is not None)
        found.add(((match.lastgroup or "")[0] == "t") != denied)
    return found.pop() if len(found) == 1 else None
