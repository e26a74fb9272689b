"""What happens to a reply before an answer is looked for: Unicode, reasoning blocks, channels, wrappers."""

from __future__ import annotations

import re
import unicodedata

from moco_toolkit_checkpoints.reasoning import separate

__all__ = [
    "brace_pairs",
    "closing_brace",
    "normalise_unicode",
    "plain_markdown",
    "spaced",
    "strip_emphasis",
    "strip_outer",
    "strip_reasoning",
    "visible",
]

_TRANSLATE: dict[int, str | None] = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'", "\u02bc": "'",
        "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2212": "-", "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\ufe63": "-",
        "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2007": " ", "\u200a": " ", "\u3000": " ",
        "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None, "\u00ad": None,
        # halves of characters, and what stands for one that was cut
        **dict.fromkeys([*range(0xD800, 0xE000), 0xFFFD]),
        # letters in black or white shapes, which NFKC leaves alone
        **{base + i: chr(65 + i) for base in (0x1F150, 0x1F170) for i in range(26)},
        "\u2028": "\n", "\u2029": "\n", "\u0085": "\n", "\x0b": "\n", "\x0c": "\n",
        # marks of direction, variants of signs, the frame of a key
        **dict.fromkeys("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u0640\ufe0e\ufe0f\u20e3"),
        # stops, commas, brackets and quotes of other scripts; a stop ends a sentence only with a space behind it
        "\u3002": ". ", "\uff61": ". ", "\u06d4": ". ", "\u0964": ". ", "\u0965": ". ", "\u061f": "?", "\u037e": "?",
        "\u3001": ", ", "\uff64": ", ", "\u060c": ", ", "\u061b": "; ", "\uff0c": ", ", "\u066a": "%",
        "\u3010": "[", "\u3011": "]", "\u3014": "[", "\u3015": "]", "\u3016": "[", "\u3017": "]",
        **dict.fromkeys("\u300c\u300d\u300e\u300f\u300a\u300b\u3008\u3009\ufe41\ufe42\u2039\u203a", '"'),
        # digits that NFKC leaves alone, and how Arabic separates them
        **{chr(zero + i): str(i) for zero in (
            0x660, 0x6F0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xE50, 0xED0, 0x1040, 0x17E0
        ) for i in range(10)},
        "\u066b": ".", "\u066c": ",",
    }
)  # fmt: skip

_NO_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
"""Scripts that write words, or their endings, without spaces."""

_BETWEEN_SCRIPTS = re.compile(rf"(?<=[{_NO_SPACES}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[{_NO_SPACES}])")


def spaced(text: str) -> str:
    """Return ``text`` with spaces where Latin letters or digits meet Chinese, Japanese or Korean ones."""
    return text if text.isascii() else _BETWEEN_SCRIPTS.sub(" ", text)


def normalise_unicode(text: str) -> str:
    """Return ``text`` in NFKC with straight quotes, ASCII minus signs, plain spaces and LF line ends."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        return text.translate(_TRANSLATE) if ("\x0b" in text or "\x0c" in text) else text
    text = _WIDE_COMMA.sub(",", text)
    text = text.translate(_TRANSLATE)  # before NFKC, which turns thin spaces and primes into other things
    # vulgar fractions become digit + U+2044 + digit; keep "1 1/2" apart from "11/2"
    text = re.sub(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215e])", " ", text)
    # a raised digit would become part of the number before it: keep it a power
    text = _SUPERSCRIPT.sub(lambda m: "^{" + unicodedata.normalize("NFKC", m[0]) + "}", text)
    return unicodedata.normalize("NFKC", text).replace("\u2044", "/").translate(_TRANSLATE)


_WIDE_COMMA = re.compile("(?<=\\d)[\uff0c\u060c](?=\\d)")  # between digits it groups them, or ends a number of a list
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")


def strip_reasoning(text: str) -> str | None:
    """Return what the reply says beside its reasoning, or None if the reply was cut while reasoning.

    Blocks of every kind that engines know (``<think>``, ``[THINK]``, channels of gpt-oss, ...) are removed; see
    :func:`moco_toolkit_checkpoints.reasoning.separate`. What a server left of the mark that ends a turn goes, and what
    the model wrote behind it: that is another's turn.
    """
    found = separate(text)
    return None if found.cut else _turn(found.answer)


_TURN_ENDS = (
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end_of_text|end_of_turn|end|eot|eos|return)\|>|<end_of_turn>|<turn\|>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>|\[/?INST\]"
)
_TURN_END = re.compile(rf"(?<![\"'`])(?:(?:{_TURN_ENDS})(?=\s*(?:\Z|\n|<))|</s>\s*\Z)")  # in code it may be a string
_TURN_START = re.compile(
    r"\s*(?:<\|assistant\|>|<\|im_start\|>assistant\b|<start_of_turn>model\b|<s>(?!.*</s>.*\S))\s*", re.S
)


def _turn(text: str) -> str:
    if "<" not in text and ("]" not in text or "INST]" not in text):
        return text
    if start := _TURN_START.match(text):
        text = text[start.end() :]
    for end in _TURN_END.finditer(text):
        struck = end[0].startswith("</s>") and "<s>" in text
        if text[: end.start()].strip() and not struck:
            return text[: end.start()]
    return text


def visible(text: str) -> str | None:
    """Return the normalised text of a reply without reasoning, or None if it was cut while reasoning."""
    rest = strip_reasoning(normalise_unicode(text))
    if rest is not None and "<" in rest and "<|begin_of_box|>" in rest:  # how GLM marks an answer
        rest = _GLM_BOX.sub(lambda m: f"\\boxed{{{m[1].strip()}}}", rest)
    return None if rest is None else rest.strip()


_GLM_BOX = re.compile(r"<\|begin_of_box\|>(.*?)<\|end_of_box\|>", re.S)


_UNDERSCORED = re.compile(r"(?<![\w\\$])(_{1,3})(?=[^\s_])([^\n$\\]*?[^\s_])\1(?!\w)")
_STARRED = re.compile(r"(\*{2,3})(?=[^\s*])([^\n]*?[^\s*])\1(?!\*)")
_STARRED_ONCE = re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^\n*]*[^\s*])\*(?![\w*])")
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+", re.M)
_QUOTE = re.compile(r"^[ \t]{0,3}>[ \t]+", re.M)
_FENCE_LINE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*$", re.M)
_STRUCK = re.compile(r"~~(?=[^\s~])[^\n~]*[^\s~]~~|<(s|del|strike)>[^<\n]*</\1>", re.I)
_HTML = re.compile(r"</?(?:b|strong|i|em|u|mark|p|span|sup|sub|code|h[1-6]|li|ul|ol|div)>|<br\s{0,2}/?>", re.I)


def strip_emphasis(text: str) -> str:
    """Return ``text`` without emphasis marks; lone stars and underscores (2*3, x_1) stay."""
    if "*" in text:
        text = _STARRED_ONCE.sub(r"\1", _STARRED.sub(r"\2", text))
        if "**" in text:  # nested or left over by a line break
            text = text.replace("**", "")
    if "_" in text:
        text = _UNDERSCORED.sub(r"\2", text)
    return text


def plain_markdown(text: str) -> str:
    """Return ``text`` without emphasis marks, heading marks, code ticks and fence lines; the words stay.

    What is struck out goes: it was taken back.
    """
    # one character is found much faster than two
    if ("~" in text and "~~" in text) or ("<" in text and "</" in text):
        text = _STRUCK.sub("", text)
    if "<" in text and ">" in text:
        text = _HTML.sub("", text)
    text = strip_emphasis(text)
    if "`" in text or ("~" in text and "~~~" in text):
        text = _FENCE_LINE.sub("", text).replace("`", "")
    if "#" in text:
        text = _HEADING.sub("", text)
    if ">" in text and "> " in text:
        text = _QUOTE.sub("", text)
    return text


_PAIRS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("`", "`"), ('"', '"'), ("'", "'"))
_MARKS = ("***", "**", "*", "___", "__", "_", "~~")
_WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|mathtt|mbox|hbox|emph|boldsymbol|bm)\s*\{"
)


def closing_brace(text: str, opening: int) -> int:
    """Return the position of the brace that closes the one at ``opening``, or -1; escaped braces do not count."""
    depth, position, size = 0, opening, len(text)
    while position < size:
        char = text[position]
        if char == "\\":
            position += 2
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return -1


def brace_pairs(text: str, start: int = 0) -> dict[int, int]:
    """Return {opening: closing} positions of all balanced braces from ``start`` on; escaped ones do not count."""
    pairs: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text, start):
        char = match[0]
        if char == "{":
            stack.append(match.start())
        elif char == "}" and stack:
            pairs[stack.pop()] = match.start()
    return pairs


_BRACE = re.compile(r"\\.|[{}]", re.S)


def strip_outer(text: str, *, quotes: bool = True) -> str:
    """Remove what stands around an answer: math delimiters, text wrappers, quotes, emphasis, a trailing full stop."""
    for _ in range(24):  # each pass removes one layer
        before = text
        text = text.strip()
        if not text:
            break
        first, last = text[0], text[-1]
        if last in ".;," and not text.endswith("..."):
            text = text[:-1].rstrip()
        elif first.isalnum():
            break
        if first in "*_~":
            for mark in _MARKS:
                if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                    inner = text[len(mark) : -len(mark)]
                    if mark not in inner:
                        text = inner
                        break
        elif first in "$\\`\"'":
            text = _unpaired(text, quotes)
        elif first == "{" and closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1]
        if text == before:
            break
    return text


def _unpaired(text: str, quotes: bool) -> str:
    """Remove one pair of delimiters or one text command around the whole text."""
    for left, right in _PAIRS:
        if not quotes and left in "\"'":
            continue
        if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
            inner = text[len(left) : -len(right)]
            if left not in inner and right not in inner:
                return inner
    match = _WRAPPER.match(text)
    if match:
        end = closing_brace(text, match.end() - 1)
        if end == len(text) - 1:
            return text[match.end() : end]
    return text
