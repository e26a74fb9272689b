"""Numbers in replies, as exact rationals."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

__all__ = ["decimals_of", "find_numbers", "number_key", "parse_number", "round_to"]

_MAX_DIGITS = 400  # longer "numbers" are noise, and exact arithmetic on them is slow
_MAX_EXPONENT = 400

_GROUP = r"(?:,|\{,\}|\\,|\\ |\\!|'| (?=\d{3}(?!\d)))"
_UNSIGNED = (
    rf"(?:\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)(?:\.\d+)?"  # 1,600 and 1 600 and 1{{,}}600
    r"|\d+(?:\.\d+)?\.?(?!\d)|\d+\.\d+|\.\d+)"
)
_TEN = r"\s*(?:\\times|\\cdot|\*|x|X|×|·)\s*10\s*(?:\^|\*\*)\s*(?:\{\s*[+-]?\d{1,4}\s*\}|[+-]?\d{1,4})"
_POWER = rf"(?:[eE][+-]?\d{{1,4}}\b|{_TEN})"
_CURRENCY = r"(?:\\?\$|US\$|€|£|¥|₹|USD|EUR|GBP)"
NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)}}])[+-]\s?)?(?:{_CURRENCY}\s?(?P<sign2>[+-])?)?"
    rf"(?:\\d?t?frac\s*(?:\{{\s*(?P<fn>[+-]?{_UNSIGNED})\s*\}}|(?P<fn1>\d))\s*"
    rf"(?:\{{\s*(?P<fd>[+-]?{_UNSIGNED})\s*\}}|(?P<fd1>\d))"
    rf"|(?<![\d.])(?P<int>{_UNSIGNED})(?P<power>{_POWER})?"
    rf"(?:(?:\s*/\s*(?P<den>{_UNSIGNED}))|(?:\s(?P<mn>\d+)\s*/\s*(?P<md>\d+))"
    rf"|(?:\s?\\d?t?frac\s*(?:\{{(?P<mfn>\d+)\}}|(?P<mfn1>\d))\s*(?:\{{(?P<mfd>\d+)\}}|(?P<mfd1>\d))))?)"
)
_NOT_DIGIT = re.compile(r"[^\d.]")
_DECIMAL_COMMA = re.compile(r"([+-]?)\s*(\d+),(\d{1,2})")
_UNIT = re.compile(
    r"\s*(?:\\?%|°|\\degree|\^\s*\{?\s*\\circ\s*\}?|\\?\$|€|£|\\(?:text|mathrm|mbox|textrm|textbf)\s*\{[^{}]*\}"
    r"|(?:\\[,;! ]|~)|(?:per\s*cent|percent)|(?![eE][+-]?\d)[A-Za-zµ°²³][\w°µ/^*.\-²³]*|/\s*[A-Za-z]\w*)*\s*[.!]?\s*"
)
_PLAIN_INT = re.compile(r"[+-]?\d{1,18}")


def parse_number(text: str, *, units: bool = True, comma: bool = False) -> Fraction | None:
    """Return the number that ``text`` is, or None.

    Understands signs, currency signs, thousands separators, decimals, fractions, LaTeX fractions, mixed numbers and
    scientific notation. ``units`` allows words or a per-cent sign behind it; ``comma`` reads "4,90" as a decimal.
    """
    text = text.strip()
    if _PLAIN_INT.fullmatch(text):
        return Fraction(int(text))
    if not text or len(text) > _MAX_DIGITS:
        return None
    if comma:
        decimal = _DECIMAL_COMMA.fullmatch(text)
        if decimal:
            return Fraction(f"{decimal[1]}{decimal[2]}.{decimal[3]}")
    match = NUMBER.match(text)
    if match is None:
        return None
    rest = text[match.end() :]
    if rest.strip() and not (units and _UNIT.fullmatch(rest)):
        return None
    return _value(match)


def find_numbers(text: str) -> list[Fraction]:
    """Return all numbers of a text, in order."""
    return [value for match in NUMBER.finditer(text) if (value := _value(match)) is not None]


def _value(match: re.Match[str]) -> Fraction | None:
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
    match = re.fullmatch(r"\s*[+-]?\s*\\?\$?\s*[+-]?(?:[\d,]*)(?:\.(\d*))?\s*(?:\\?%)?\s*", text)
    return None if match is None else len(match[1] or "")


def round_to(value: Fraction, decimals: int) -> Fraction:
    """Round half away from zero to a number of decimals, exactly."""
    scale = 10**decimals
    scaled = abs(value) * scale
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    rounded = Fraction(whole, scale)
    return -rounded if value < 0 else rounded


def as_decimal(value: Fraction) -> Decimal:
    """Return a number as a Decimal of at most 28 digits, for display."""
    return (Decimal(value.numerator) / Decimal(value.denominator)).normalize()
