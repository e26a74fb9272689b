"""LaTeX as models write it, brought to one form; comparison of the cheap kind."""

from __future__ import annotations

import re

from moco_toolkit_answers.clean import closing_brace, normalise_unicode, strip_outer
from moco_toolkit_answers.numbers import number_key, parse_number
from moco_toolkit_answers.phrases import AND, OR

__all__ = ["clean_latex", "has_unit", "math_key", "split_items", "strip_units", "text_only"]

_DROP = (
    "\\left", "\\right", "\\bigl", "\\bigr", "\\Bigl", "\\Bigr", "\\big", "\\Big", "\\displaystyle", "\\textstyle",
    "\\limits", "\\nolimits", "\\!", "\\,", "\\;", "\\:", "\\>", "\\ ", "\\quad", "\\qquad", "~", "{,}", "\\hfill",
)  # fmt: skip
_DROP_WORDS = tuple(d for d in _DROP if d[-1].isalpha())
_DROP_SIGNS = tuple(d for d in _DROP if not d[-1].isalpha())
_DROPPED = re.compile(
    r"(?P<row>\\\\)|"  # the end of a matrix row stays
    + "|".join(re.escape(d) for d in _DROP_SIGNS)
    + "|(?:"
    + "|".join(re.escape(d) for d in _DROP_WORDS)
    + ")(?![A-Za-z])"
)
_DECIMAL_BRACES = re.compile(r"(?<=\d)\{,\}(?=\d)(?!\d{3}(?!\d))")  # 3{,}5 is three and a half, 1{,}600 is grouped
_FRAC = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_BARE_FRAC = re.compile(r"\\frac\s*(?:(?P<a>[0-9a-zA-Z])|(?=\{))")
_DEGREE = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degrees?\b|\u00b0)")
_TEXT = re.compile(r"\\(?:text|textrm|textbf|textit|mathrm|mbox|hbox|textnormal|operatorname)\s*\{([^{}]*)\}")
_ASSIGN = re.compile(
    r"^\s*(?:\([A-Za-z](?:\s*,\s*[A-Za-z])+\)|[A-Za-z](?:_\{?\w+\}?)?(?:\([a-z]\))?|\\[a-z]+)\s*(?:=|\\in\b)\s*(?![=<>])"
)
_SYNONYMS = (
    ("\\leq", "\\le"), ("\\geq", "\\ge"), ("\\neq", "\\ne"), ("\\lt", "<"), ("\\gt", ">"), ("\\cdots", "\\dots"),
    ("\\ldots", "\\dots"), ("\\varnothing", "\\emptyset"), ("\\dbinom", "\\binom"), ("\\tbinom", "\\binom"),
)  # fmt: skip
_SYNONYM = {k: re.compile(re.escape(k) + r"(?![A-Za-z])") for k, _ in _SYNONYMS}


def _braced_fractions(text: str) -> str:
    """Turn ``\\frac12`` and ``\\frac1{2}`` into braces."""
    position = 0
    while (start := text.find("\\frac", position)) >= 0:
        cursor, parts = start + 5, []
        for _ in range(2):
            while cursor < len(text) and text[cursor] == " ":
                cursor += 1
            if cursor >= len(text):
                break
            if text[cursor] == "{":
                end = closing_brace(text, cursor)
                if end < 0:
                    break
                parts.append(text[cursor + 1 : end])
                cursor = end + 1
            elif text[cursor] == "\\":
                match = re.match(r"\\[A-Za-z]+(?:\{[^{}]*\})?", text[cursor:])
                if not match:
                    break
                parts.append(match[0])
                cursor += match.end()
            else:
                parts.append(text[cursor])
                cursor += 1
        if len(parts) == 2:
            text = f"{text[:start]}\\frac{{{parts[0]}}}{{{parts[1]}}}{text[cursor:]}"
        position = start + 5
    return text


_SIGNS_OF_UNICODE = {
    "\u221e": "\\infty ", "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u00d7": "\\times ",
    "\u00b7": "\\cdot ", "\u22c5": "\\cdot ",
    "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2208": "\\in ", "\u2205": "\\emptyset ", "\u03c0": "\\pi ", "\u03b8": "\\theta ",
    "\u00b1": "\\pm ", "\u2213": "\\mp ",
}  # fmt: skip
_ROOT = re.compile(r"\u221a\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+|[A-Za-z]))")
_CHOOSE = re.compile(r"\{\s*([^{}]+?)\s*\\choose\s*([^{}]+?)\s*\}|\A\s*(\w+)\s*\\choose\s*(\w+)\s*\Z")
_BARE_BINOM = re.compile(r"\\binom\s*(\d)\s*(\d)(?!\d)")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")


def _binomial(match: re.Match[str]) -> str:
    return f"\\binom{{{match[1] or match[3]}}}{{{match[2] or match[4]}}}"


def _repeated(match: re.Match[str]) -> str:
    """Return 0.1\\overline{6} as a fraction."""
    whole, fixed, period = match.groups()
    bottom = 10 ** len(fixed) * (10 ** len(period) - 1)
    top = int(whole + fixed + period or "0") - int(whole + fixed or "0")
    return f"\\frac{{{top}}}{{{bottom}}}"


def clean_latex(text: str) -> str:
    """Return a LaTeX answer in one form: fraction spellings, sizes, spaces, thousands separators, degree signs."""
    text = _DECIMAL_BRACES.sub(".", strip_outer(normalise_unicode(text)))
    if not text.isascii():
        text = _ROOT.sub(lambda m: f"\\sqrt{{{m[1] or m[2] or m[3]}}}", text)
        for sign, command in _SIGNS_OF_UNICODE.items():
            text = text.replace(sign, command)
    text = _FRAC.sub(r"\\frac", text)
    if "\\" in text or "~" in text or "{" in text:
        # "1\,000" is one number; elsewhere thin spaces mean nothing
        text = _DROPPED.sub(
            lambda m: m[0] if m["row"] else " " if m[0] in ("\\ ", "\\quad", "\\qquad", "~") else "", text
        )
    for old, new in _SYNONYMS:
        if old in text:
            text = _SYNONYM[old].sub(lambda _, n=new: n, text)  # type: ignore[misc]
    if "\\frac" in text:
        text = _braced_fractions(text)
    if "\\choose" in text or "\\binom" in text:
        text = _BARE_BINOM.sub(r"\\binom{\1}{\2}", _CHOOSE.sub(_binomial, text))
    if "\\overline" in text or "\\bar" in text or "\\dot" in text:
        text = _REPEATING.sub(_repeated, text)
    if ")_" in text:
        text = re.sub(r"\((\w+)\)_", r"\1_", text)
    text = re.sub(r"\\sqrt\s+", r"\\sqrt", text)
    text = re.sub(r"\\sqrt([0-9a-zA-Z])", r"\\sqrt{\1}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?:,\d{3})*(?!\d))(?<![(\[{,]\d,)", _group, text)
    return " ".join(text.split())


def _group(match: re.Match[str]) -> str:
    """Drop a comma between digits if the whole is one grouped number, not a list such as 1,234,5 or (1,234)."""
    text, at = match.string, match.start()
    start = at
    while start > 0 and (text[start - 1].isdigit() or text[start - 1] == ","):
        start -= 1
    end = at
    while end < len(text) and (text[end].isdigit() or text[end] == ","):
        end += 1
    inside = (start > 0 and text[start - 1] in "([{") or (end < len(text) and text[end] in ")]}")
    whole = text[start:end]
    return "" if not inside and re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+", whole) else ","


_UNIT_TEXT = re.compile(
    r"(?<=[\d})])\s*(?:\\(?:text|textrm|mathrm|mbox|textbf|hbox|textnormal)\s*\{\s*[^{}\d]*\}(?:\s*\^\s*\{?\d\}?)?"
    r"|(?<=\d)\s+[a-zA-Z]{2,}(?:[ ./][a-zA-Z]+){0,3}(?:\s*\^\s*\{?\d\}?)?)\s*$"
)
_UNIT_SIGN = re.compile(r"\\?[%$]|\\pounds|\u20ac|\u00a3")


def has_unit(text: str) -> bool:
    """Whether a cleaned answer carries a unit, a per-cent sign, a currency sign or degrees."""
    return bool(_UNIT_TEXT.search(text) or _DEGREE.search(text) or _UNIT_SIGN.search(text))


def strip_units(text: str) -> str:
    """Drop units, per-cent, currency and degree signs from a cleaned answer."""
    text = _DEGREE.sub("", text)
    text = _UNIT_TEXT.sub("", text)
    return _UNIT_SIGN.sub("", text).strip()


def text_only(text: str) -> str | None:
    """Return the words of an answer that is text and no mathematics (``\\text{Tuesday}``, ``orange``), else None."""
    cleaned = clean_latex(text)
    if any(c.isdigit() for c in cleaned):
        return None
    wrapped = _TEXT.search(text) or re.match(r"\s*\\(?:text|textbf|mathrm|textrm|mbox)\b", text.strip(" $"))
    words = _TEXT.sub(r"\1", cleaned).strip()
    if "\\" in words or re.search(r"[=+*/^_<>{}|]", words):
        return None
    if wrapped or re.fullmatch(r"\(?[A-Z]\)?", words):
        pass
    elif not re.fullmatch(r"[A-Za-z][A-Za-z'\-]+(?:[ ,]+[A-Za-z'\-]+)*", words):
        return None
    return " ".join(words.casefold().strip(" .()").split())


def drop_assignment(text: str) -> str:
    """Return the right-hand side of "x = 5" (and of "x \\in [1, 2]"), or the text itself."""
    match = _ASSIGN.match(text)
    rest = text[match.end() :] if match else text
    return rest if match and rest.strip() and "=" not in rest else text


_WORD = rf"(?:{AND}|{OR})"
_JOINED = re.compile(
    rf",?\s*(?:\\(?:text|textrm|mathrm|mbox|textnormal)\s*\{{\s*,?\s*{_WORD}\s*\}}|(?<![\w\\]){_WORD}(?![\w}}])"
    # what joins without spaces, and what is a variable elsewhere
    r"|\\lor(?![A-Za-z])|(?<=\d)\s*(?:[和与與及或と]|와|과)(?=\s*[-\d\\])|(?<=\d)\s+(?:[yeou]|ou)\s+(?=-?\d))\s*",
    re.I,
)


_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")


def split_items(text: str) -> tuple[str, list[str], str]:
    """Split a cleaned answer into its items: (opening delimiter, items, closing delimiter).

    Items are what top-level commas, "and" and "or" stand between; outside of a tuple, one with a plus-minus sign is two.
    ``(1,2)`` gives ``("(", ["1", "2"], ")")``; without delimiters both are empty.
    """
    text = text.strip()
    left = right = ""
    for opener in ("\\{", "(", "["):
        if text.startswith(opener):
            for closer in ("\\}", ")", "]"):
                if text.endswith(closer) and _outer(text, opener, closer):
                    left, right = opener, closer
                    text = text[len(opener) : -len(closer)]
                    break
            break
    if left in ("", "\\{"):
        text = _JOINED.sub(",", text)
    if ";" in text and "," not in text and not _PROSE.search(text):
        text = text.replace(";", ",")
    items, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            items.append(text[start:index].strip())
            start = index + 1
    items.append(text[start:].strip())
    if left in ("", "\\{") and "\\pm" in text:
        items = [one for item in items for one in _both_signs(item)]
    return left, items, right


def _both_signs(item: str) -> list[str]:
    """Return what an item with plus-minus signs means: all upper signs, and all lower ones."""
    if "\\pm" not in item:
        return [item]
    both = (
        _SIGNS.sub(lambda m: "+" if m[1] == "pm" else "-", item),
        _SIGNS.sub(lambda m: "-" if m[1] == "pm" else "+", item),
    )
    return [one.strip().removeprefix("+").strip() for one in both]


_SIGNS = re.compile(r"\\(pm|mp)(?![A-Za-z])\s*")


def _outer(text: str, opener: str, closer: str) -> bool:
    """Whether the first and the last delimiter belong together: the depth stays positive in between."""
    inner = text[len(opener) : len(text) - len(closer)]
    depth = 0
    for char in inner:
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


def math_key(text: str) -> str:
    """Return the canonical key of a mathematical answer: a rational if it is a number, else its cleaned form."""
    cleaned = clean_latex(text)
    value = drop_assignment(cleaned)
    number = parse_number(value)
    if number is not None:
        return number_key(number)
    number = parse_number(strip_units(value))
    if number is not None:
        return number_key(number)
    words = text_only(text)
    if words in ("infinity", "unendlich", "infini", "infinito"):
        return "\\infty"
    if words is not None:
        return f"text:{words}"
    value = _TEXT.sub(r"\1", value)
    left, items, right = split_items(value)
    items = ["".join(i.split()) for i in items]
    if len(items) > 1:
        parts = [number_key(n) if (n := parse_number(i)) is not None else i for i in items]
        return f"{left}{','.join(parts)}{right}"
    return "".join(value.split())
