"""Numbers in replies, as exact rationals."""

from __future__ import annotations

import re
from decimal import InvalidOperation
from fractions import Fraction
from functools import lru_cache
from math import factorial

__all__ = ["decimals_of", "find_numbers", "localised", "number_key", "parse_number", "round_to", "signed", "unscaled"]

_MAX_DIGITS = 400  # longer "numbers" are noise, and exact arithmetic on them is slow
_MAX_EXPONENT = 400
_MAX_FACTORIAL = 170

_GROUP = r"(?:,|_|\{,\}|\\,|\\ |\\!|'| (?=\d{3}(?!\d)))"
_UNSIGNED = (
    rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)(?:\.\d+)?"  # 1,600 and 1 600 and 1{{,}}600
    r"|\d+(?:\.\d+)?\.?(?!\d)|\d+\.\d+|\.\d+)"
)
_TEN = r"\s*(?:\\times|\\cdot|\*|x|X|×|·)\s*10\s*(?:\^|\*\*)\s*(?:\{\s*[+-]?\d{1,4}\s*\}|[+-]?\d{1,4})"
_POWER = rf"(?:[eE][+-]?\d{{1,4}}\b|{_TEN})"
_EXPONENT = r"\s?(?:\^|\*\*)\s?(?:\{\s?(?P<e1>-?\d{1,3})\s?\}|(?P<e2>-?\d{1,3}(?![\d.])))"
_SIGN = "[\u20a0-\u20cf£¥¢]"
_CURRENCY = rf"(?:\\?\$|US\$|R\$|{_SIGN}|USD|EUR|GBP|CHF)"
NUMBER = re.compile(
    r"(?=[-+$\\\d.UREGC\u20a0-\u20cf£¥¢])"  # what a number begins with: to look for more takes longer
    rf"(?P<sign>(?<![\w)}}])[+-]\s?)?(?:{_CURRENCY}\s?(?P<sign2>[+-])?)?"
    rf"(?:\\d?t?frac\s*(?:\{{\s*(?P<fn>[+-]?{_UNSIGNED})\s*\}}|(?P<fn1>\d))\s*"
    rf"(?:\{{\s*(?P<fd>[+-]?{_UNSIGNED})\s*\}}|(?P<fd1>\d))"
    rf"|(?<![\d.])(?=[\d.])(?<!\^)(?<!\^-)(?<!\^\{{)(?<!\^\{{-)(?<!\*\*)(?<!sqrt\{{)(?<!√)(?P<int>{_UNSIGNED})(?P<power>{_POWER})?(?:{_EXPONENT})?"
    rf"(?:(?:\s*/\s*(?P<den>{_UNSIGNED}))|(?:\s(?P<mn>\d+)\s*/\s*(?P<md>\d+))"
    rf"|(?:\s?\\d?t?frac\s*(?:\{{(?P<mfn>\d+)\}}|(?P<mfn1>\d))\s*(?:\{{(?P<mfd>\d+)\}}|(?P<mfd1>\d))))?)"
)
_NOT_DIGIT = re.compile(r"[^\d.]")
_UNIT = re.compile(
    rf"\s*(?:\\?%|°|\\degree|\^\s*\{{?\s*\\circ\s*\}}?|\\?\$|{_SIGN}|\\(?:text|mathrm|mbox|textrm|textbf)\s*\{{[^{{}}]*\}}"
    r"|\\[,;! ]|~|p(?:er|our|or)\s*(?:cento?|ciento)"
    r"|(?![eE][+-]?\d|[和与與及或と와과]\s*-?\d)[^\W\d_][\w°µ/^*.\-²³\u0900-\u0963]*+"
    r"|/\s*[A-Za-z]\w*+)*+\s*\.?\s*"
)
_WORD = re.compile(r"[a-z]{3}|[^\x00-\x7f]", re.I)
_PLAIN_INT = re.compile(r"[+-]?\d{1,18}")
_FACTORIAL = re.compile(r"([+-]?)\(?(\d{1,3})\)?!")

# ---------------------------------------------------------------- other ways to write them

_LEFT, _RIGHT = r"(?<![\w.,])", r"(?!\d|[.,]\d)"
_ONE_MEANING = re.compile(  # 1.234.567 and 1.234,5 and 1 234,5: no other reading makes a number
    rf"{_LEFT}(?<![(\[{{])\d{{1,3}}"
    rf"(?:(?:\.\d{{3}}){{2,}}(?:,\d+)?|(?:\.\d{{3}})+,\d+|(?:[ ']\d{{3}})+,(?:\d{{1,2}}|\d{{4,}})){_RIGHT}"
)
_ODD = re.compile(r"\d[.' ]\d{3}[.,]\d|\d,\d\d,\d")
_INDIAN = re.compile(rf"{_LEFT}\d{{1,2}}(?:,\d{{2}})+,\d{{3}}{_RIGHT}")
_COMMA = re.compile(rf"{_LEFT}\d+,(?:\d{{1,2}}|\d{{4,}}){_RIGHT}")
_CONTINENTAL = re.compile(rf"{_LEFT}(?:\d{{1,3}}(?:\.\d{{3}})+(?:,\d+)?|\d+,\d+){_RIGHT}")
_PART = r"(?:(\d[\d,.]*)\s?"
_MYRIADS = re.compile(
    rf"{_LEFT}{_PART}[兆조]\s?)?{_PART}[億亿억]\s?)?{_PART}[万萬만]\s?)?{_PART}(?:千(?![克米瓦卡伏帕升])|천)\s?)?{_PART}[百백]\s?)?(\d[\d,.]*)?"
)
_MYRIAD = re.compile("[兆조億亿억万萬만千천百백]")
_HUNDREDS = re.compile(rf"{_LEFT}(\d[\d,.]*)\s?([百千백천])\s?(?=[兆조億亿억万萬만])")
_SCALES = {
    3: r"thousand|tausend|mila|mille|mil|тыс(?:яч[аи]?|\.)?|ألف|آلاف|हज़ार|हजार",
    5: r"lakhs?|लाख",
    6: r"milli?on(?:s|en|i)?|milione|mill[óo]n(?:es)?|milh(?:ão|ões)|mio\.?|миллион(?:а|ов)?|млн\.?|مليون|ملايين|मिलियन",
    7: r"crores?|करोड़",
    9: r"billions?|milliarden?|mrd\.?|milliards?|miliard[oi]|mil\s+millones|bilh(?:ão|ões)|"
    r"миллиард(?:а|ов)?|млрд\.?|مليار|बिलियन|अरब",
    12: r"trillions?|billionen|billones|триллион(?:а|ов)?",
}
"""Words of magnitude behind digits, by their power of ten."""

_SCALE_WORD = re.compile(
    "|".join(rf"(?P<p{n}>(?<![^\W\d])(?:{words})(?!\w))" for n, words in sorted(_SCALES.items(), reverse=True)), re.I
)
_SCALED = re.compile(
    rf"{_LEFT}(?P<value>\d{{1,3}}(?:[,.' ]\d{{3}})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?)\s?"
    rf"{_SCALE_WORD.pattern.join(('(?:', ')'))}(?!\w)",
    re.I,
)


def _has_magnitude(text: str) -> bool:
    """Whether a word of magnitude may be in a text: finding parts of words is much faster than the pattern."""
    low = text.lower()
    return (
        "mil" in low or "illi" in low or "ousand" in low or "ausend" in low or "lakh" in low or "crore" in low or "mrd" in low
        or "mio" in low or not text.isascii()
    )  # fmt: skip


def _scaled(match: re.Match[str]) -> str:
    power = next(int(name[1:]) for name, word in match.groupdict().items() if word and name[0] == "p")
    value = localised(match["value"], comma=True).replace(",", "").replace(" ", "").replace("'", "").rstrip(".")
    try:
        number = Fraction(value) * 10**power
    except ValueError:
        return match[0]
    return f"{number.numerator} " if number.denominator == 1 else match[0]


@lru_cache(maxsize=4096)
def _asked(prompt: str) -> frozenset[str]:
    """Return the words of magnitude that a prompt uses without a number before them."""
    found = [m for m in _SCALE_WORD.finditer(prompt) if not _AMOUNT.search(prompt, 0, m.start())]
    return frozenset(m[0].casefold().rstrip("s") for m in found)


def unscaled(text: str, prompt: str) -> str:
    """Return ``text`` without the words of magnitude that ``prompt`` uses as a unit ("How many million ...?")."""
    units = _asked(prompt)
    return _SCALE_WORD.sub(lambda m: "" if m[0].casefold().rstrip("s") in units else m[0], text) if units else text


_AMOUNT = re.compile(r"\d[\d.,]*\s?\Z")


_MINUS = re.compile(
    r"\s*(?:minus|negative|moins|menos|meno|минус|负|負|マイナス|마이너스|ऋणात्मक|माइनस|سالب|ناقص)\s*(?=[\d$])", re.I
)


def signed(text: str) -> str:
    """Return ``text`` with a word for minus at its beginning as a sign."""
    if text[:1] in _SIGNS or (match := _MINUS.match(text)) is None:
        return text
    return f"-{text[match.end() :]}"


_SIGNS = frozenset("0123456789-+$.\\")


def _swapped(match: re.Match[str]) -> str:
    return re.sub(r"[. ']", "", match[0]).replace(",", ".")


def _hundreds(match: re.Match[str]) -> str:
    digits = match[1].replace(",", "").rstrip(".")
    value = (
        Fraction(digits) * (100 if match[2] in "百백" else 1000)
        if digits.replace(".", "", 1).isdigit()
        else Fraction(1, 3)
    )
    return str(value.numerator) if value.denominator == 1 else match[0]


def _multiplied(match: re.Match[str]) -> str:
    if not any(match.groups()[:5]):
        return match[0]
    try:
        parts = [Fraction((g or "0").replace(",", "").rstrip(".")) for g in match.groups()]
    except ValueError:
        return match[0]
    value = sum(part * 10**power for part, power in zip(parts, (12, 8, 4, 3, 2, 0), strict=True))
    return f"{value.numerator} " if value.denominator == 1 else match[0]


def localised(text: str, *, comma: bool = False, continental: bool = False) -> str:
    """Return ``text`` with the numbers of other locales written as 1234.5.

    1.234.567 and 1.234,5 have one meaning; 12,34,567 is grouped as in India; 3万 is 30000. With ``comma`` 4,90 is
    four point nine; ``continental`` says that the text is of a language that writes 1.234 for a thousand and 4,900 for
    less than five.
    """
    if text.isdecimal():
        return text
    if not text.isascii() and _MYRIAD.search(text):
        text = _HUNDREDS.sub(_hundreds, text)
        text = _MYRIADS.sub(_multiplied, text)
    if _has_magnitude(text):
        text = _SCALED.sub(_scaled, text)
    if "," not in text and "." not in text:
        return text
    if _ODD.search(text):
        text = _INDIAN.sub(lambda m: m[0].replace(",", ""), _ONE_MEANING.sub(_swapped, text))
    if continental:
        return _CONTINENTAL.sub(_swapped, text)
    return _COMMA.sub(lambda m: m[0].replace(",", "."), text) if comma else text


# ---------------------------------------------------------------- reading


def parse_number(text: str, *, units: bool = True, comma: bool = False) -> Fraction | None:
    """Return the number that ``text`` is, or None.

    Understands signs, currency signs, thousands separators, decimals, fractions, LaTeX fractions, mixed numbers,
    scientific notation and factorials. ``units`` allows words or a per-cent sign behind it; ``comma`` reads "4,90" as a
    decimal.
    """
    text = text.strip()
    if _PLAIN_INT.fullmatch(text):
        return Fraction(int(text))
    if not text or len(text) > _MAX_DIGITS:
        return None
    if comma:
        text = localised(text, comma=True)
    elif _ODD.search(text):
        text = _ONE_MEANING.sub(_swapped, text)
    match = NUMBER.match(text)
    if match is None or text.endswith("!"):
        product = _FACTORIAL.fullmatch(text)
        if product is None or int(product[2]) > _MAX_FACTORIAL:
            return None
        return Fraction(factorial(int(product[2])) * (-1 if product[1] == "-" else 1))
    rest = text[match.end() :]
    if rest and units and _WORD.search(rest) and (other := localised(text)) != text:
        return parse_number(other)
    if rest.strip() and not (units and _UNIT.fullmatch(rest)):
        return None
    return _value(match)


def find_numbers(text: str, *, comma: bool = False) -> list[Fraction]:
    """Return all numbers of a text, in order; ``comma`` as in :func:`parse_number`."""
    text = localised(text, comma=comma)
    return [value for match in NUMBER.finditer(text) if (value := _value(match)) is not None]


def _value(match: re.Match[str]) -> Fraction | None:
    if _PLAIN_INT.fullmatch(match[0]):
        return Fraction(int(match[0]))
    part = match.groupdict()
    try:
        if part["int"] is None:
            value = _plain(part["fn"] or part["fn1"]) / _plain(part["fd"] or part["fd1"])
        else:
            value = _plain(part["int"])
            power = part["power"]
            if power:
                exponent = int(re.search(r"([+-]?\d+)\}?\s*$", power.strip())[1])  # type: ignore[index]
                if abs(exponent) > _MAX_EXPONENT:
                    return None
                value *= Fraction(10) ** exponent
            if exponent_text := part["e1"] or part["e2"]:
                value = _raised(value, int(exponent_text))
            if part["den"] is not None:
                value /= _plain(part["den"])
            elif part["mn"] is not None:
                value += Fraction(int(part["mn"]), int(part["md"]))
            elif part["mfn"] is not None or part["mfn1"] is not None:
                value += Fraction(int(part["mfn"] or part["mfn1"]), int(part["mfd"] or part["mfd1"]))
    except (ZeroDivisionError, ValueError, InvalidOperation):
        return None
    negative = ((part["sign"] or "").strip() == "-") != ((part["sign2"] or "") == "-")
    return -value if negative else value


def _raised(value: Fraction, exponent: int) -> Fraction:
    if abs(exponent) * len(f"{value}") > _MAX_EXPONENT:
        raise ValueError("too large")
    return value**exponent


def _plain(text: str) -> Fraction:
    text = text.strip()
    negative = text.startswith("-")
    digits = _NOT_DIGIT.sub("", text).rstrip(".")
    if len(digits) > _MAX_DIGITS:
        raise ValueError("too long")
    value = Fraction(int(digits)) if digits.isdigit() and digits.isascii() else Fraction(digits)
    return -value if negative else value


def number_key(value: Fraction) -> str:
    """Return the canonical text of a number: "18", "-1/2"."""
    return str(value)


def decimals_of(text: str) -> int | None:
    """Return the number of decimals a written number shows ("4.90" has 2), or None for fractions and powers."""
    match = _DECIMALS.fullmatch(localised(text, comma=True))
    return None if match is None else len(match[1] or "")


_DECIMALS = re.compile(rf"\s*[+-]?\s*(?:{_CURRENCY})?\s*[+-]?(?:[\d,]*)(?:\.(\d*))?\s*(?:\\?%|{_SIGN})?\s*")


def round_to(value: Fraction, decimals: int) -> Fraction:
    """Round half away from zero to a number of decimals, exactly."""
    scale = 10**decimals
    scaled = abs(value) * scale
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    rounded = Fraction(whole, scale)
    return -rounded if value < 0 else rounded
