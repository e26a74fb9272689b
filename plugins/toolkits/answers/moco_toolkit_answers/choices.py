"""Which option of a multiple-choice question a reply names: letters first, option texts second."""

from __future__ import annotations

import re
from functools import lru_cache

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import normalise_unicode, plain_markdown, strip_outer, visible
from moco_toolkit_answers.evidence import evidence, last_line

__all__ = ["canonical_choice", "read_choice"]

_NEGATOR = re.compile(
    r"(?:\b(?:not|never|no|neither|nor|isn't|wasn't|aren't|doesn't|don't|cannot|can't|than|instead\s+of|except|unlike|"
    r"excludes?|excluding|eliminates?|reject(?:s|ed)?|rules?\s+out|ruled\s+out|ruling\s+out)|n't)\b"
    r"[\s(\[*\"']*(?:(?!but\b)\w+\s+){0,2}(?:[(\[*\"']*)$",
    re.I,
)
_REFUSED = re.compile(
    r"[)\]*\"'.]*\s*(?:is|are|was|would\s+be|looks|seems)\s+(?:also\s+)?(?:(?:in|not\s+)correct\b|wrong|incorrect|false|"
    r"tempting|unlikely|implausible|ruled\s+out|eliminated|a\s+distractor|not\b)|[)\]*\"'.]*\s+can(?:not|\s+be\s+(?:ruled|elim))",
    re.I,
)
_AFTER_ARTICLE = re.compile(
    r"\s+(?!(?:because|since|as|for|is|and|or|due|which|but|with|based|given|in|from|by|on|if|so|not|rather|instead|"
    r"\(|was|would|seems|looks|would)\b)[a-z]"
)


_LETTER_ROOM = 48
"""A lone letter with everything that may stand around it is no longer than this."""


@lru_cache(maxsize=512)
def _letter_patterns(labels: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], bool]:
    """Return patterns of one label: alone, as a token inside text, and at the start of a line."""
    alphabetic = all(len(label) == 1 and label.isalpha() for label in labels)
    if alphabetic:
        body, lower = "[A-Z]", "[A-Za-z]"
    else:
        body = lower = "(?:" + "|".join(re.escape(x) for x in sorted(labels, key=len, reverse=True)) + ")"
    alone = re.compile(
        rf"[\s$*_\"'`({{\[<#]*(?:(?:option|choice|answer)\s*:?\s*)?[({{\[<\"'*]*({lower})[\s$*_\"'`)}}\]>.,:;!]*", re.I
    )
    # a token of its own: no letter, digit, apostrophe or hyphen next to it, no "A." of an initial, no "A/B"
    token = re.compile(
        rf"(?:(?<![\w'\-.^+=])|(?<=\b[A-Z][/&]))({body})(?![\w'^+=]|-\w|\.\w|\*\w|\s*[=+^])|[(\[]({lower})[)\]]"
    )
    start = re.compile(rf"[\s*_(\[\"]*({body})[*_]*(?:[)\].:]|\s*$)")
    return alone, token, start, alphabetic


def _norm(text: str) -> str:
    """Normalise an option's text: case, white space, outer punctuation, LaTeX wrappers."""
    text = strip_outer(plain_markdown(text)).casefold()
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = text.replace("\\%", "%").replace("\\$", "$").replace("\\,", " ")
    return " ".join(text.split()).strip(" .,;:!?\"'")


class _Options:
    """The options of one question, prepared for matching."""

    __slots__ = ("canonical", "labels", "letters", "norms", "patterns")

    def __init__(self, choices: tuple[str, ...], labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.norms = tuple(_norm(normalise_unicode(c)) for c in choices)
        first: dict[str, int] = {}
        exact: dict[str, int] = {}
        for index, (text, norm) in enumerate(zip(choices, self.norms, strict=True)):
            exact.setdefault(" ".join(text.split()), index)
            if norm:
                first.setdefault(norm, index)
        # options with identical text are one answer
        self.canonical = tuple(exact[" ".join(c.split())] for c in choices)
        # a dataset's own labels may be digits; letters are understood as well then
        self.letters: dict[str, int] = {}
        for index, label in enumerate(labels):
            self.letters.setdefault(label.upper(), index)
        if labels and all(label.isdigit() for label in labels):
            for index in range(len(labels)):
                self.letters.setdefault(chr(65 + index), index)
        self.patterns: tuple[tuple[int, re.Pattern[str]], ...] | None = None

    def texts(self) -> tuple[tuple[int, re.Pattern[str]], ...]:
        """Patterns of the option texts as whole words, the longest first; compiled when first needed."""
        if self.patterns is None:
            order = sorted({self.norms.index(n): n for n in self.norms if n}.items(), key=lambda p: (-len(p[1]), p[0]))
            self.patterns = tuple((i, _text_pattern(n)) for i, n in order)
        return self.patterns


def _text_pattern(norm: str) -> re.Pattern[str]:
    body = r"\s+".join(re.escape(w) for w in norm.split(" "))
    if norm.isalpha() and len(norm) > 3:  # "refute" is also meant by "refuted"
        stem = re.escape(norm[:-1]) + (
            r"(?:e[ds]?|ing)" if norm.endswith("e") else re.escape(norm[-1]) + r"(?:s|es|ed|ing)?"
        )
        body = stem
    left = r"(?<![\w.])" if norm[0].isalnum() else r"(?<!\w)" if norm[0] == "." else ""
    if norm[0].isdigit():
        left = r"(?<![\w.,\-/])"
    right = r"(?!\w)" if norm[-1].isalnum() else ""
    if norm[-1].isdigit():
        right = r"(?![\w%/]|[.,]\d)"
    return re.compile(left + body + right)


@lru_cache(maxsize=4096)
def _options(choices: tuple[str, ...], labels: tuple[str, ...]) -> _Options:
    return _Options(choices, labels)


def canonical_choice(question: Question, index: int) -> int:
    """Return the first option whose text is identical to the option at ``index``."""
    return _options(question.choices, question.letters).canonical[index]


def read_choice(question: Question, text: str) -> Answer:
    """Read which option a reply names; ``key`` is the option's index (the first of options with identical text).

    Status ``invalid`` is a letter outside the options, ``ambiguous`` two options at once. A letter wins over an option
    text that contradicts it; ``meta["conflict"]`` tells.
    """
    body = visible(text)
    if body is None:
        return Answer(status="cut")
    if not body or not question.choices:
        return Answer()
    options = _options(question.choices, question.letters)
    alone, token, start, alphabetic = _letter_patterns(tuple(options.letters))
    if len(body) <= _LETTER_ROOM:
        whole = alone.fullmatch(body)
        if whole:
            return _letter(options, question, whole[1], "")
    plain = plain_markdown(body)
    tail = ""
    for piece in evidence(body, plain, initials=False):
        if piece.kind == "line":
            tail = piece.text
            break
        answer = _from_capture(options, question, piece.text, alone, token)
        if answer is not None:
            return answer
    tail = tail or strip_outer(last_line(plain))
    said = _weak(options, question, plain, alphabetic)
    if said is not None:
        return said
    line = last_line(plain)
    if alphabetic and len(line) <= _LETTER_ROOM and _SEVERAL.fullmatch(line):
        return Answer(status="ambiguous", text=line)
    match = (alone.fullmatch(line) if len(line) <= _LETTER_ROOM else None) or start.match(line)
    if match and (not alphabetic or match[1].isupper() or len(line) <= 3):
        return _letter(options, question, match[1], line[match.end() :])
    for candidate in (body, tail):
        answer = _by_text(options, question, candidate)
        if answer is not None:
            return answer
    return Answer()


# "A, B" and "(A) or (C)"
_SEVERAL = re.compile(r"[\s(\[]*[A-Z][)\].]*(?:(?:\s*[,/&]\s*|\s+(?:or|and|and/or)\s+)+[(\[]*[A-Z][)\].]*)+\s*")


# "option C.", "(B) is correct", "it's D", "I believe it is B": weaker than a declared answer
_SAYS = re.compile(
    r"\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+[\"'(\[]*(?P<a>[A-Z])[\"')\]]*(?=\s*(?:[.,;!\n]|$|because|since|as\s|is\s+(?:the\s+)?"
    r"(?:correct|right|best|answer)))"
    r"|(?<![\w'])[(\[\"']{0,3}(?P<b>[A-Z])[)\]\"']*\s+(?:is|must\s+be|seems|looks)\s+(?:the\s+)?(?:most\s+)?"
    r"(?:correct|right|best|true|likely|accurate|appropriate|answer)\b"
    r"|\b(?:[Ii]t|[Tt]hat|[Tt]his)(?:'s|\s+is|\s+must\s+be|\s+has\s+to\s+be|\s+should\s+be|\s+would\s+be)\s+"
    r"(?:(?:option|choice|probably|likely|clearly|definitely|surely)\s+)*[\"'(\[]*(?P<c>[A-Z])[\"')\]]*(?=\s*(?:[.,;!\n]|$|because\b|since\b))"
    r"|\b(?:choose|pick|select|go\s+with|going\s+with|say|believe|think|guess|chose)\s+(?:it\s+is\s+|it's\s+)?"
    r"(?:(?:option|choice|answer)\s+)?[\"'(\[]*(?P<d>[A-Z])[\"')\]]*(?=\s*(?:[.,;!\n]|$|because\b|since\b))"
)


def _weak(options: _Options, question: Question, plain: str, alphabetic: bool) -> Answer | None:
    if not alphabetic:
        return None
    found: tuple[int, str, int] | None = None
    for match in _SAYS.finditer(plain):
        where = match.lastgroup or "a"
        if _NEGATOR.search(plain, max(0, match.start(where) - 40), match.start(where)):
            continue
        if match[where].upper() in options.letters or where != "b":
            found = (match.end(), match[where], match.start())
    if found is None:
        return None
    line = plain[found[2] : plain.find("\n", found[0]) if plain.find("\n", found[0]) >= 0 else len(plain)]
    joined = re.match(r"\s*(?:,\s*)?(?:or|and)\s+[\"'(\[]*([A-Z])\b(?!')(?!\s+[a-z])", line[found[0] - found[2] :])
    if joined and joined[1] != found[1] and joined[1] in options.letters:
        return Answer(status="ambiguous", text=line.strip()[:80])
    return _letter(options, question, found[1], "")


def _letter(options: _Options, question: Question, letter: str, rest: str) -> Answer:
    index = options.letters.get(letter.upper())
    if index is None:
        return Answer(status="invalid", text=letter)
    meta: dict[str, object] = {}
    named = _norm(rest)
    if named and len(named) > 1 and index < len(options.norms):
        said = [i for i, n in enumerate(options.norms) if n and n == named]
        if said and index not in said and options.canonical[index] not in [options.canonical[i] for i in said]:
            meta["conflict"] = options.labels[said[0]]
    return _chosen(options, question, index, meta)


def _chosen(options: _Options, question: Question, index: int, meta: dict[str, object] | None = None) -> Answer:
    return Answer(
        key=str(options.canonical[index]),
        text=f"{options.labels[index]}) {question.choices[index]}",
        status="parsed",
        meta=meta or {},
    )


def _from_capture(
    options: _Options, question: Question, capture: str, alone: re.Pattern[str], token: re.Pattern[str]
) -> Answer | None:
    """Read an option out of text that stands where the answer stands; None if it names none."""
    whole = alone.fullmatch(capture) if len(capture) <= _LETTER_ROOM else None
    if whole:
        return _letter(options, question, whole[1], "")
    exact = [i for i, n in enumerate(options.norms) if n and n == _norm(capture)]
    if exact:
        return _chosen(options, question, exact[0])
    letters: dict[str, int] = {}
    for match in token.finditer(capture):
        letter = (match[1] or match[2]).upper()
        if match[1] is not None and match[1] in ("A", "I") and _AFTER_ARTICLE.match(capture, match.end()):
            follows = _norm(capture[match.end() :])
            index = options.letters.get(letter)
            if index is None or not options.norms[index] or not follows.startswith(options.norms[index]):
                continue  # the article, or the pronoun
        if match[1] == "I" and letter not in options.letters:
            continue
        if _NEGATOR.search(capture[max(0, match.start() - 60) : match.start()]) or _REFUSED.match(capture, match.end()):
            continue
        if letter not in letters and not (letters and _separated(capture, max(letters.values()), match.start())):
            letters[letter] = match.end()
    # an unknown capital beside a known letter is a name ("A, as in vitamin C"), alone it is out of range
    known = [x for x in letters if x in options.letters]
    if len(known) > 1:
        if len({options.canonical[options.letters[x]] for x in known}) == 1:
            return _chosen(options, question, options.letters[known[0]])
        return Answer(status="ambiguous", text=capture[:80])
    if known:
        return _letter(options, question, known[0], capture[letters[known[0]] :].lstrip(" ).:]*-"))
    by_text = _by_text(options, question, capture)
    if by_text is not None:
        return by_text
    if letters and re.match(r"[\s(\[\"'*]*[A-Z][)\]\"'*.:]*(?:\s|$)", capture) and next(iter(letters)) not in ("I",):
        return Answer(status="invalid", text=next(iter(letters)))
    return None


def _separated(capture: str, end: int, start: int) -> bool:
    """Whether two letters of one capture are not alternatives: something other than a joining word stands between."""
    between = capture[end:start]
    return not re.fullmatch(
        r"[\s)\]\"'*,/&($\[]*(?:\b(?:and|or|and/or|option|choice|either|both|possibly|maybe|also)\b[\s)\]\"'*,/&($\[]*)*",
        between,
    )


def _by_text(options: _Options, question: Question, capture: str) -> Answer | None:
    """Return the one option that a captured answer equals, or that occurs in it as whole words without a negation."""
    folded = _norm(capture)
    if not folded:
        return None
    equal = [i for i, n in enumerate(options.norms) if n and n == folded]
    if equal:
        return _chosen(options, question, equal[0])
    if len(folded) > 400:
        return None
    found: list[int] = []
    masked = folded
    for index, pattern in options.texts():
        norm = options.norms[index]
        if len(norm) == 1 and norm.isalpha():
            continue  # a one-letter option text cannot be told from a word
        affirmed = False
        for match in pattern.finditer(masked):
            if not _NEGATOR.search(_clause(masked[max(0, match.start() - 60) : match.start()])):
                affirmed = True
        masked = pattern.sub(lambda m: "\x00" * len(m[0]), masked)
        if affirmed:
            found.append(index)
    if len({options.canonical[i] for i in found}) == 1:
        return _chosen(options, question, found[0])
    if len(found) > 1:
        return Answer(status="ambiguous", text=capture[:80])
    return None


def _clause(text: str) -> str:
    return re.split(r"[,;:.!?]", text)[-1] if text else text
