"""Random numbers, close ones that are not equal, and the ways to write them."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

Way = Callable[[Any, random.Random], str | None]
"""(value, random numbers) -> one way to write it; None where it cannot be written so."""


_DIGITS = {"arabic": "\u0660", "persian": "\u06f0", "hindi": "\u0966", "thai": "\u0e50"}
_DIGITS |= {"bengali": "\u09e6", "full width": "\uff10", "bold": "\U0001d7ce"}


def _in_digits(zero: str) -> Way:
    def way(value: Fraction, rng: random.Random) -> str | None:
        plain = _decimal(value)
        return plain and "".join(chr(ord(zero) + int(c)) if c.isdigit() else c for c in plain)

    return way


def a_number(rng: random.Random) -> Fraction:
    kind = rng.randrange(4)
    if kind == 0:
        return Fraction(rng.randint(-(10**6), 10**6))
    if kind == 1:
        return Fraction(rng.randint(-999, 999), rng.randint(1, 99))
    if kind == 2:
        return Fraction(rng.randint(0, 999))
    return Fraction(rng.randint(-99999, 99999), 10 ** rng.randint(1, 4))


def other_number(value: Fraction, rng: random.Random) -> Fraction:
    top, bottom = value.numerator, value.denominator
    close = [-value, value + 1, value - 1, value * 10, value / 10, value * 100 + 1]
    close += [value + Fraction(1, 10**7), value * (1 + Fraction(1, 10**9)), a_number(rng)]
    close += [Fraction(bottom, top) if top else value + 1, value**2 + 1, value * 1000]
    close += [Fraction(int(str(abs(top))[::-1]), bottom), Fraction(top, bottom + 1)]
    return rng.choice([c for c in close if c != value])


def _decimal(value: Fraction) -> str | None:
    if 10**6 % value.denominator:
        return None
    if value.denominator == 1:
        return str(value.numerator)
    places = next(n for n in range(7) if 10**n % value.denominator == 0)
    scaled = abs(value.numerator) * 10**places // value.denominator
    text = str(scaled).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{text[:-places]}.{text[-places:]}"


def _whole(form: str) -> Way:
    return lambda v, rng: form.format(v.numerator) if v.denominator == 1 else None


def _grouped(comma: str) -> Way:
    return lambda v, rng: f"{v.numerator:,}".replace(",", comma) if v.denominator == 1 else None


def _fraction(form: str, scale: int = 1) -> Way:
    return lambda v, rng: form % (
        "-" if v < 0 else "", abs(v.numerator) * scale, v.denominator * scale
    )  # fmt: skip


def _by_decimal(form: str) -> Way:
    return lambda v, rng: d and form % d if (d := _decimal(v)) else None


def _mixed(form: str) -> Way:
    def way(v: Fraction, rng: random.Random) -> str | None:
        whole, rest = divmod(abs(v.numerator), v.denominator)
        if not whole or not rest:
            return None
        return form % ("-" if v < 0 else "", whole, rest, v.denominator)

    return way


def _scientific(form: str) -> Way:
    def way(v: Fraction, rng: random.Random) -> str | None:
        text = _decimal(v)
        if not text or not v:
            return None
        digits = text.lstrip("-").replace(".", "").lstrip("0")
        point = len(text.lstrip("-").partition(".")[0].lstrip("0"))
        after = text.lstrip("-").partition(".")[2]
        power = point - 1 if point else -(len(after) - len(after.lstrip("0")) + 1)
        digits = digits.rstrip("0")
        mantissa = digits[0] + "." + (digits[1:] or "0")
        return form % ("-" if v < 0 else "", mantissa, power)

    return way


NUMBERS: dict[str, Way] = {
    "fraction": _fraction(r"%s\frac{%d}{%d}"),
    "large fraction": _fraction(r"%s\dfrac{%d}{%d}"),
    "small fraction": _fraction(r"%s\tfrac{%d}{%d}"),
    "not reduced": _fraction(r"%s\frac{%d}{%d}", 2),
    "slash": _fraction("%s%d/%d"),
    "slash with spaces": _fraction("%s%d / %d"),
    "sign above": _fraction(r"\frac{%s%d}{%d}"),
    "fraction slash": _fraction("%s%d\u2044%d"),
    "brackets": _fraction(r"%s\left(\frac{%d}{%d}\right)"),
    "spaced fraction": _fraction(r"%s \frac {%d} {%d}"),
    "integer": _whole("{}"),
    "plus": lambda v, rng: f"+{v.numerator}" if v.denominator == 1 and v > 0 else None,
    "point zero": _whole("{}.0"),
    "two zeros": _whole("{}.00"),
    "commas": _grouped(","),
    "braced commas": _grouped("{,}"),
    "thin spaces": _grouped(r"\,"),
    "negative spaces": _grouped(r",\!"),
    "spaces": _grouped("\u202f"),
    "leading zero": lambda v, rng: f"{v.numerator:03d}" if v.denominator == 1 <= 1 + v else None,
    "minus sign": lambda v, rng: d.replace("-", "\u2212") if (d := _decimal(v)) else None,
    "en dash": lambda v, rng: d.replace("-", "\u2013") if (d := _decimal(v)) else None,
    "decimal": _by_decimal("%s"),
    "decimal with zeros": lambda v, rng: d + "00" if (d := _decimal(v)) and "." in d else None,
    "no zero": lambda v, rng: (
        d.replace("0.", ".", 1) if (d := _decimal(v)) and d.lstrip("-").startswith("0.") else None
    ),
    "mixed": _mixed(r"%s%d\frac{%d}{%d}"),
    "mixed with slash": _mixed("%s%d %d/%d"),
    "mixed with and": _mixed(r"%s%d\ \frac{%d}{%d}"),
    "scientific": _scientific(r"%s%s \times 10^{%d}"),
    "scientific dot": _scientific(r"%s%s\cdot10^{%d}"),
    "scientific cross": _scientific("%s%s\u00d710^%d"),
    "programmer": _scientific("%s%se%+03d"),
    "bold": _by_decimal(r"\mathbf{%s}"),
    "text": _by_decimal(r"\text{%s}"),
    "colour": _by_decimal(r"\color{red}{%s}"),
    "display": _by_decimal(r"\displaystyle %s"),
    "braces": _by_decimal("{%s}"),
    "unit": _by_decimal(r"%s\text{ cm}"),
    "square unit": _by_decimal(r"%s\text{ cm}^2"),
    "plain unit": _by_decimal("%s meters"),
    "degrees": _by_decimal(r"%s^\circ"),
    "named": _by_decimal("x = %s"),
    "named value": _by_decimal("f(x) = %s"),
    "spaced": _by_decimal(r"\;%s\,"),
    "dollars": lambda v, rng: rf"\${d}" if (d := _decimal(v)) and v >= 0 else None,
    "percent less": lambda v, rng: (
        rf"{d}\%" if (d := _decimal(v * 100)) and abs(v) < 1 and v else None
    ),
}
NUMBERS |= {name: _in_digits(zero) for name, zero in _DIGITS.items()}


def number_gold(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
