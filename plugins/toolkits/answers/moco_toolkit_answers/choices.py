"""Which option of a multiple-choice question a reply names: letters first, option texts second."""

from __future__ import annotations

import re
from functools import lru_cache

from moco_core.types import Answer, Question
from moco_toolkit_answers.clean import normalise_unicode, plain_markdown, spaced, strip_outer, visible
from moco_toolkit_answers.conclusions import concluded, ends_of
from moco_toolkit_answers.evidence import evidence, last_line
from moco_toolkit_answers.letters import LETTER_ROOM, Labels, affirmed, labels_of
from moco_toolkit_answers.phrases import JOIN

__all__ = ["Options", "canonical_choice", "choose", "read_choice"]


def _norm(text: str) -> str:
    """Normalise an option's text: case, white space, outer punctuation, LaTeX wrappers."""
    text = strip_outer(plain_markdown(text)).casefold()
    if "\\" in text:
        text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
        text = text.replace("\\%", "%").replace("\\$", "$").replace("\\,", " ")
    return " ".join(text.split()).strip(" .,;:!?\"'")


class Options:
    """The options of one question, prepared for matching; texts may be empty, where only letters are known."""

    __slots__ = ("canonical", "choices", "labels", "norms", "patterns", "shown")

    def __init__(self, choices: tuple[str, ...], shown: tuple[str, ...]) -> None:
        self.choices, self.shown, self.labels = choices, shown, labels_of(shown)
        self.norms = tuple(_norm(spaced(normalise_unicode(c))) for c in choices)
        exact: dict[str, int] = {}
        for index, text in enumerate(choices):
            exact.setdefault(" ".join(text.split()), index)
        # options with identical text are one answer
        self.canonical = tuple(exact[" ".join(c.split())] if c.strip() else i for i, c in enumerate(choices))
        self.patterns: tuple[tuple[int, re.Pattern[str]], ...] | None = None

    def texts(self) -> tuple[tuple[int, re.Pattern[str]], ...]:
        """Patterns of the option texts as whole words, the longest first; compiled when first needed."""
        if self.patterns is None:
            order = sorted({self.norms.index(n): n for n in self.norms if n}.items(), key=lambda p: (-len(p[1]), p[0]))
            self.patterns = tuple((i, _text_pattern(n)) for i, n in order)
        return self.patterns


_CONTINUOUS = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts in which a word may stand right beside another one, or beside its ending."""


def _text_pattern(norm: str) -> re.Pattern[str]:
    body = r"\s+".join(re.escape(w) for w in norm.split(" "))
    if norm.isascii() and norm.isalpha() and len(norm) > 3:  # "refute" is also meant by "refuted"
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
    left = "" if _CONTINUOUS.match(norm[0]) else left
    right = "" if _CONTINUOUS.match(norm[-1]) else right
    return re.compile(left + body + right)


@lru_cache(maxsize=4096)
def _options(choices: tuple[str, ...], labels: tuple[str, ...]) -> Options:
    return Options(choices, labels)


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
    return choose(_options(question.choices, question.letters), body)


def choose(options: Options, body: str) -> Answer:
    """Read which of the options the visible text of a reply names."""
    labels = options.labels
    body = labels.folded(spaced(body))
    whole = labels.whole(body)
    if whole:
        return _letter(options, whole, "")
    plain = plain_markdown(body)
    tail = ""
    for piece in evidence(body, plain, initials=False):
        if piece.kind == "line":
            tail = piece.text
            break
        answer = _from_capture(options, piece.text)
        if answer is not None:
            return answer
    tail = tail or strip_outer(last_line(plain))
    said = _weak(options, plain)
    if said is not None:
        return said
    line = last_line(plain)
    if labels.cased and len(line) <= LETTER_ROOM and labels.several.fullmatch(line):
        return Answer(status="ambiguous", text=line)
    whole = labels.whole(line) or labels.whole(tail)
    if whole and (not labels.cased or whole in line or len(line) <= 3 or not line.isascii()):
        return _letter(options, whole, "")
    match = labels.start.match(line)
    if match and match[1] == "A" and (whole := labels.whole(_QA.sub("", line))):  # "A:" is short for "Answer:"
        return _letter(options, whole, "")
    if match and affirmed(line, match.start(1), match.end(1)) and not _goes_on(labels, plain, match[1]):
        return _letter(options, match[1], line[match.end() :])
    bracketed = [n.letter for n in labels.named(line) if n.bracketed and n.letter in labels.index]
    if len({options.canonical[labels.index[x]] for x in bracketed}) == 1:
        return _letter(options, bracketed[0], "")
    for candidate in (body, tail):
        answer = _by_text(options, candidate)
        if answer is not None:
            return answer
    return _concluded(options, plain) if labels.cased else Answer()


def _goes_on(labels: Labels, plain: str, letter: str) -> bool:
    """Whether the last line goes on with a list of the options: the one before it has the label before ``letter``."""
    lines = [line for line in plain[-_TAIL:].split("\n") if line.strip()]
    match = labels.start.match(lines[-2]) if len(lines) > 1 else None
    place = labels.index.get(letter)
    return match is not None and place is not None and labels.index.get(match[1]) == place - 1


_TAIL = 2000
_QA = re.compile(r"^\W{0,3}A\s*:\s*(?=\S)")


def _concluded(options: Options, plain: str) -> Answer:
    """Read the label that the last line, else the first one, concludes with."""
    for line in ends_of(plain):
        letter, both = concluded(options.labels, line)
        if both:
            return Answer(status="ambiguous", text=line[-80:])
        if letter:
            return _letter(options, letter, "")
    return Answer()


def _weak(options: Options, plain: str) -> Answer | None:
    """Read phrases weaker than a declared answer: "option C.", "(B) is correct", "it's D", "I believe it is B"."""
    labels = options.labels
    if not labels.cased:
        return None
    found = labels.said(plain)
    if found is None:
        return None
    letter, end = found
    joined = _NEXT.match(plain, end)
    if joined and joined[1] != letter and joined[1] in labels.index:
        return Answer(status="ambiguous", text=plain[max(0, end - 40) : end + 40].strip())
    return _letter(options, letter, "")


_NEXT = re.compile(rf"[^\S\n]*(?:,[^\S\n]*)?{JOIN}[^\S\n]+[\"'(\[]*([^\W\d_])\b(?!')(?!\s+[a-z])")


def _letter(options: Options, letter: str, rest: str) -> Answer:
    index = options.labels.index.get(letter.upper())
    if index is None:
        return Answer(status="invalid", text=letter)
    meta: dict[str, object] = {}
    named = _norm(rest)
    if named and len(named) > 1 and index < len(options.norms):
        said = [i for i, n in enumerate(options.norms) if n and n == named]
        if said and index not in said and options.canonical[index] not in [options.canonical[i] for i in said]:
            meta["conflict"] = options.shown[said[0]]
    return _chosen(options, index, meta)


def _chosen(options: Options, index: int, meta: dict[str, object] | None = None) -> Answer:
    return Answer(
        key=str(options.canonical[index]),
        text=f"{options.shown[index]}) {options.choices[index]}",
        status="parsed",
        meta=meta or {},
    )


def _from_capture(options: Options, capture: str) -> Answer | None:
    """Read an option out of text that stands where the answer stands; None if it names none."""
    labels = options.labels
    whole = labels.whole(capture)
    if whole:
        return _letter(options, whole, "")
    norm = _norm(capture)
    exact = [i for i, n in enumerate(options.norms) if n and n == norm]
    if exact:
        return _chosen(options, exact[0])
    if labels.cased and (headed := _HEADED.match(capture)) and headed[1].upper() in labels.index:
        if _listing(options, capture):
            return Answer(status="ambiguous", text=capture[:80])
        if affirmed(capture, headed.start(1), headed.end(1)):
            return _letter(options, headed[1], capture[headed.end() :])
    letters: dict[str, int] = {}
    for name in labels.named(capture):
        if name.article:
            index = labels.index.get(name.letter)
            follows = _norm(name.article)
            if index is None or not options.norms[index] or not follows.startswith(options.norms[index]):
                continue  # the article, or the pronoun
        if name.letter == "I" and not name.bracketed and name.letter not in labels.index:
            continue
        if not (letters and _separated(capture, max(letters.values()), name.start)):
            letters[name.letter] = name.end
    # an unknown capital beside a known letter is a name ("A, as in vitamin C"), alone it is out of range
    known = [x for x in letters if x in labels.index]
    if len(known) > 1:
        if len({options.canonical[labels.index[x]] for x in known}) == 1:
            return _chosen(options, labels.index[known[0]])
        return Answer(status="ambiguous", text=capture[:80])
    if known:
        return _letter(options, known[0], capture[letters[known[0]] :].lstrip(" ).:]*-"))
    by_text = _by_text(options, capture)
    if by_text is not None:
        return by_text
    if letters and _BEGINS.match(capture) and next(iter(letters)) != "I":
        return Answer(status="invalid", text=next(iter(letters)))
    return None


_HEADED = re.compile(r"[\"'(\[*$]{0,3}([^\W\d_])\)[\"'\]*$]{0,3}(?=\s)")
_ITEM = re.compile(r"(?<!\w)([^\W\d_])[).:](?=\s)")


def _listing(options: Options, capture: str) -> bool:
    """Whether a capture goes through the options one by one ("A) red B) green C) blue")."""
    found = [options.labels.index.get(m[1].upper()) for m in _ITEM.finditer(capture)]
    return len(found) > 2 and found == list(range(len(found)))


_BEGINS = re.compile(r"[\s(\[\"'*]*[^\W\d_][)\]\"'*.:]*(?:\s|$)")
_BETWEEN = re.compile(
    rf"[\s)\]\"'*,/&($\[]*(?:(?:{JOIN}|\b(?:option|choice|either|both|possibly|maybe|also)\b)[\s)\]\"'*,/&($\[]*)*"
)


def _separated(capture: str, end: int, start: int) -> bool:
    """Whether two letters of one capture are not alternatives: something other than a joining word stands between."""
    between = capture[end:start]
    aside = "(" in between and capture[start + 1 : start + 2] != ")"  # "B (A would be red)"
    return aside or not _BETWEEN.fullmatch(between)


def _by_text(options: Options, capture: str) -> Answer | None:
    """Return the one option that a captured answer equals, or that occurs in it as whole words without a negation."""
    folded = _norm(capture)
    if not folded:
        return None
    equal = [i for i, n in enumerate(options.norms) if n and n == folded]
    if equal:
        return _chosen(options, equal[0])
    if len(folded) > 400:
        return None
    found: list[int] = []
    masked = folded
    for index, pattern in options.texts():
        norm = options.norms[index]
        if len(norm) == 1 and norm.isalpha():
            continue  # a one-letter option text cannot be told from a word
        matches = list(pattern.finditer(masked))
        if not matches:
            continue
        said = False
        for match in matches:
            clause = _clause(masked[max(0, match.start() - 60) : match.start()])
            said = said or affirmed(clause + masked[match.start() :], len(clause), len(clause) + len(match[0]))
        masked = pattern.sub(lambda m: "\x00" * len(m[0]), masked)
        if said:
            found.append(index)
    if len({options.canonical[i] for i in found}) == 1:
        return _chosen(options, found[0])
    if len(found) > 1:
        return Answer(status="ambiguous", text=capture[:80])
    return None


def _clause(text: str) -> str:
    return re.split(r"[,;:.!?]", text)[-1] if text else text
