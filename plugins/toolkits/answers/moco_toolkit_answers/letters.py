"""The letters in front of choices: which one a piece of text names, in any alphabet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import attrs

from moco_toolkit_answers.phrases import BUT, CROSSES, FALSE, JOIN, NOT, OPTION, TICKS, WRONG

__all__ = ["LETTER_ROOM", "Labels", "Named", "affirmed", "labels_of"]

LETTER_ROOM = 48
"""A lone letter with everything that may stand around it is no longer than this."""

_ROOM_OF_MARK = 60
"""A tick or a cross stands no farther behind a label, with the option's text between."""

_BEFORE = re.compile(rf"{NOT}[ \t(\[*\"']*(?:(?!{BUT}\b)\w+[ \t]+){{0,2}}[(\[*\"']*\Z", re.I)
_BEHIND = re.compile(rf"[)\]*\"'.]*\s*(?:{WRONG}|(?::|-(?=\s))\s*(?:{'|'.join(FALSE)})\b|(?:nicht|pas)\b)", re.I)
_CROSSED = re.compile(rf"[^\n{TICKS}{CROSSES}]{{0,{_ROOM_OF_MARK}}}[{CROSSES}]")
_TICKED = re.compile(rf"[^\n{TICKS}{CROSSES}]{{0,{_ROOM_OF_MARK}}}[{TICKS}]")
_AFTER_ARTICLE = re.compile(
    r"\s+(?!(?:because|since|as|for|is|and|or|due|which|but|with|based|given|in|from|by|on|if|so|not|rather|instead|was|would|"
    r"seems|looks|und|oder|et|ou|o|u|y|e|ni|ist|est|es|weil|denn|da|car|parce|porque|ya|pues|pois|perché|poiché|nicht|sondern|sino|"
    r"mais|ma|mas|pas|no|non|и|или|потому|так|поскольку|это|верн\w*|правильн\w*|является)\b)[a-zа-яё]"
)
_ARTICLES = frozenset("AIАВСКОУИЯ")
"""Capital letters that are words as well: the English article and pronoun, and Russian conjunctions and prepositions."""

_WORD = r"\w\u0300-\u036f\u0900-\u0963"
_CASED = {"[A-Z]": "[A-Za-z]", "[А-ЯЁ]": "[А-ЯЁа-яё]", "[Α-Ω]": "[Α-Ωα-ω]"}
_LOOK_ALIKE = {
    "[A-Z]": str.maketrans("АВСЕНКМОРТХΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABCEHKMOPTXABEZHIKMNOPTYX"),
    "[А-ЯЁ]": str.maketrans("ABCEHKMOPTX", "АВСЕНКМОРТХ"),
    "[Α-Ω]": str.maketrans("ABEZHIKMNOPTYX", "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ"),
}
_CAPITAL = re.compile(rf"(?<![{_WORD}])[A-ZА-ЯΑ-Ω](?![{_WORD}])")
_PLACES = {
    letter: place
    for alphabet in (
        ["Б", "", "Г"], ["α", "β", "γ", "δ", "ε"], ["", "", "Γ", "Δ"], ["أ", "ب", "ج", "د", "ه", "و"], ["ا"], ["إ"],
        [*"가나다라마바"], [*"\u1100\u1102\u1103\u1105\u1106\u1107"], [*"アイウエオカ"], [*"甲乙丙丁戊己"], [*"कखगघङच"],
        ["अ", "ब", "स", "द"], ["ए", "बी", "सी", "डी", "ई", "एफ"],
    )
    for place, letter in enumerate(alphabet, start=1 if alphabet[0] == "Б" else 0)
    if letter
}  # fmt: skip
"""Letters by which other alphabets count, where A, B, C were shown."""


@attrs.frozen(eq=False)
class Labels:
    """The labels of one question: their patterns, and the index that each names (upper case)."""

    index: dict[str, int]
    latin: bool
    """The labels are A, B, C, ..."""
    cased: str
    """The class of capital letters that the labels are of; empty if they are other things."""
    alone: re.Pattern[str]
    token: re.Pattern[str]
    one: re.Pattern[str]
    start: re.Pattern[str]
    several: re.Pattern[str]

    def folded(self, text: str) -> str:
        """Return ``text`` with lone capitals that only look like those of the labels turned into them."""
        if not self.cased or (self.latin and text.isascii()):
            return text
        table = _LOOK_ALIKE[self.cased]

        def twin(match: re.Match[str]) -> str:
            is_word = match[0] in _ARTICLES and _AFTER_ARTICLE.match(text, match.end())
            return match[0] if is_word else match[0].translate(table)

        return _CAPITAL.sub(twin, text)

    def whole(self, text: str) -> str | None:
        """Return the label that a short text is, with nothing but signs and the word "option" around it."""
        if len(text) > LETTER_ROOM:
            return None
        found = self.alone.fullmatch(text)
        if found:
            return found[1].upper()
        if self.latin and not text.isascii():
            other = _OTHER.fullmatch(text)
            place = _PLACES.get(other[1]) if other else None
            if place is not None:
                return chr(65 + place)
        return None

    def named(self, text: str) -> list[Named]:
        """Return the labels that stand in a text as tokens of their own and are not denied, in order, each once."""
        out: dict[str, Named] = {}
        for match in self.token.finditer(text):
            bare = match[1] is not None
            if bare and _joined_left(text, match.start(), "'-.^+="):
                continue
            letter = (match[1] or match[2]).upper()
            article = bare and letter in _ARTICLES and _AFTER_ARTICLE.match(text, match.end())
            if letter not in out and affirmed(text, match.start(), match.end()):
                rest = text[match.end() :] if article else ""
                out[letter] = Named(letter, match.start(), match.end(), article=rest, bracketed=not bare)
        return list(out.values())

    def mentions(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield (start, end, label) of every known label that stands in a text as a token of its own and is no word."""
        for match in self.token.finditer(text):
            bare = match[1] is not None
            letter = (match[1] or match[2]).upper()
            if letter not in self.index or (bare and _joined_left(text, match.start(), "'-.^+=")):
                continue
            if not (bare and letter in _ARTICLES and _AFTER_ARTICLE.match(text, match.end())):
                yield match.start(), match.end(), letter

    def said(self, text: str) -> tuple[str, int] | None:
        """Return the last label of a phrase such as "option C.", "(B) is correct", "it's D", and where it ends."""
        found = None
        for match in self.one.finditer(text):
            if _joined_left(text, match.start(), "'"):
                continue
            right = _IS_RIGHT.match(text, match.end()) or (None if text.isascii() else _TICKED.match(text, match.end()))
            if right is None:
                lead = _LEADS.search(text, max(0, match.start() - _LEAD_ROOM), match.start())
                if (
                    lead is None
                    or _WEIGHED.search(text, max(0, lead.start() - 30), lead.start())
                    or not (_ENDS if lead.lastgroup is None else _ENDS_OPTION).match(text, match.end())
                ):
                    continue
            if affirmed(text, match.start(), match.end()) and (right is None or match[0].upper() in self.index):
                found = match[0], (right.end() if right else match.end())
        return found


def _joined_left(text: str, start: int, signs: str) -> bool:
    """Whether what begins at ``start`` goes on from the character before it."""
    if not start:
        return False
    before = text[start - 1]
    return before in signs or before == "_" or before.isalnum() or bool(_COMBINING.match(before))


_COMBINING = re.compile("[\u0300-\u036f\u0900-\u0963]")
_LEAD_ROOM = 70
_LEADS = re.compile(
    r"(?:\b(?P<option>[Oo]ption|[Cc]hoice|[Aa]nswer)\s+"
    r"|\b(?:[Ii]t|[Tt]hat|[Tt]his)(?:'s|\s+is|\s+must\s+be|\s+has\s+to\s+be|\s+should\s+be|\s+would\s+be)\s+"
    r"(?:(?:option|choice|probably|likely|clearly|definitely|surely)\s+)*"
    r"|\b(?:choose|pick|select|go\s+with|going\s+with|say|believe|think|guess|chose)\s+(?:it\s+is\s+|it's\s+)?"
    r"(?:(?:option|choice|answer)\s+)?)[\"'(\[]*\Z"
)
_WEIGHED = re.compile(
    r"\b(?:whether|if|(?:not\s+(?:sure|certain)|doubt)(?:\s+that)?|consider|evaluate|examine|check|look\s+at|analy[sz]e)\s+\Z",
    re.I,
)
"""What stands before it is thought about, not chosen."""

_ENDS = re.compile(r"[\"')\]]*\s*(?:[.,;!\n]|\Z|because\b|since\b)")
_ENDS_OPTION = re.compile(
    r"[\"')\]]*\s*(?:[.,;!\n]|\Z|because|since|as\s|is\s+(?:the\s+)?(?:correct|right|best|answer))"
)
_IS_RIGHT = re.compile(
    r"[)\]\"']*(?:(?:\s+(?:is|must\s+be|would\s+be|seems|looks)\s+(?:the\s+)?(?:most\s+)?|\s*:\s*)"
    r"(?:correct|right|best|true|likely|accurate|appropriate|answer)\b"
    r"|\s*(?::|-(?=\s))\s*(?i:correct|right|true|yes)[^\S\n]*(?:[.,;!\n]|\Z)"
    r")"
)


@attrs.frozen
class Named:
    """A label in a text. ``article`` is what follows it where it may be a word instead ("a gamma ray")."""

    letter: str
    start: int
    end: int
    article: str
    bracketed: bool


def affirmed(text: str, start: int, end: int) -> bool:
    """Whether what stands at ``start:end`` is denied neither by the words before it nor by those behind."""
    if _BEFORE.search(text[max(0, start - 60) : start]) or _BEHIND.match(text, end):
        return False
    return text.isascii() or not _CROSSED.match(text, end)


_OTHER = re.compile(
    rf"[\s*_\"'(\[]*(?:(?:{OPTION})\s*:?\s*)?[\s*\"'(\[]*("
    + "|".join(sorted(_PLACES, key=len, reverse=True))
    + r")[\s*_\"')\].:,!]*"
)


@lru_cache(maxsize=512)
def labels_of(labels: tuple[str, ...]) -> Labels:
    """Return the patterns of a question's labels."""
    index: dict[str, int] = {}
    for place, label in enumerate(labels):
        index.setdefault(label.upper(), place)
    latin = all(re.fullmatch("[A-Z]{1,2}", label) for label in index)
    cased = "[A-Z]" if latin else next((c for c in _CASED if all(re.fullmatch(c, label) for label in index)), "")
    if labels and all(label.isdigit() for label in labels):  # letters are understood beside numbers
        for place in range(min(26, len(labels))):
            index.setdefault(chr(65 + place), place)
    if cased and all(len(label) == 1 for label in index):
        body, either = cased, _CASED[cased]
    else:
        body = "(?:" + "|".join(re.escape(x) for x in sorted(index, key=len, reverse=True)) + ")"
        either = body.replace("(?:", "(?i:", 1)
    return Labels(index=index, latin=latin, cased=cased, **_patterns(body, either))


def _patterns(body: str, either: str) -> dict[str, re.Pattern[str]]:
    """Return the patterns of one label: alone, as a token, by itself, at the start of a line, with others."""
    around = rf"{TICKS}\u25cf\u2022\u00b7\u2192\u21d2\u2234\U0001f449|"
    item = r"(?:(?:-|\d{1,2}[.)])\s+|[=-]>\s*|\[[xX]\]\s*)?"
    alone = (
        rf"[\s$*_\"'`({{\[<#{around}]*{item}(?:(?:{OPTION})[\s:;|,.{around}=>-]*)?[({{\[<\"'*]*({either})"
        rf"[\s$*_\"'`)}}\]>.,:;!{around}]*(?:[번番项項][\s.]*)?"
    )
    # a token of its own: no letter, digit, apostrophe or hyphen behind it, no "A." of an initial; before it, see _joined_left
    token = rf"({body})(?![{_WORD}'^+=]|-\w|\.\w|\*\w|\s*[=+^])|[(\[]({either})[)\]]"
    start = rf"[\s*_(\[\"]*({body})[*_]*(?:[)\].:]|\s+-\s|\s*$)"
    one = rf"[(\[]*{body}[)\].]*"
    several = rf"[\s(\[]*{one}(?:(?:\s*[,/&]\s*|\s+{JOIN}\s+|(?<=\))\s+(?=\())+{one})+\s*"
    return {
        "alone": re.compile(alone, re.I),
        "token": re.compile(token),
        "one": re.compile(rf"{body}(?!\w)"),
        "start": re.compile(start),
        "several": re.compile(several),
    }
