"""Numbers in answers, compared exactly."""

from __future__ import annotations

import re
from fractions import Fraction

from eapo_agents.errors import GradingError
from eapo_agents.grading.exact_values import exact_value
from eapo_agents.grading.extraction import (
    announced_answers,
    ascii_digits,
    before_next_question,
    extract_answer,
    final_text,
)
from eapo_agents.grading.grade import MAX_ANSWER_CHARS, NOTHING, Grade
from eapo_agents.grading.numerals import chinese_number
from eapo_agents.types import Problem

_SPACES = re.compile(r"(?<=\d)(?:\{,\}|,?\\[,!;: ]|[\u00a0\u2009\u202f'\u2019])(?=\d{3}(?!\d))")
# only from a number's first digit: from each digit, a long number would take quadratic time
_LATEX_FRACTION = re.compile(
    r"(?:(?<!\d)(\d+))?\s*\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}"
)
_NUMBER = re.compile(
    r"""(?P<sign>[-+])?\s*[$\u20ac\u00a3\u00a5\u20b9]?\s*
    (?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d{1,2}(?:,\d\d)+,\d{3}(?!\d)|\d+)?(?P<decimals>\.\d+)?
    (?:[eE](?P<exponent>[-+]?\d+))?
    (?:\s*(?:\\times|\\cdot|x|\*|\u00d7)\s*10\s*\^\s*\{?(?P<power>[-+]?\d+)\}?)?
    (?:\s+(?:and\s+)?(?P<numerator>\d+)\s*/\s*(?P<denominator>\d+) | \s*/\s*(?P<divisor>\d+))?
    (?:\^\{?(?P<raised>[-+]?\d{1,4})\}?)?
    (?:\s*(?P<scale>thousand|million|billion)\b|(?P<kilo>k)\b(?!\s*m))?""",
    re.VERBOSE | re.IGNORECASE,
)
_UNIT_POWER = re.compile(r"(?<=[a-zA-Z}])\s*(?:\\[,; ])?\^\s*\{?[-+]?\d+\}?")
_HEDGE = re.compile(
    r"\d[^\d\n]{0,20}?\b(?:or|to|and)\b\D{0,12}\d|\d\s*,\s*\$?-?\d|\d\s*[-\u2013]\s*\d|\bbetween\b"
)
_CONDITION = re.compile(
    r"(?:\b(?:in|after|of|for|from|within|over|every|all|per|with|among|on|by|the)\s+(?:the\s+)?"
    r"(?:\w+ing\s+(?:away\s+|up\s+|off\s+|out\s+)?|(?:age|day|year|week)\s+)?"
    r"|#\s*)$",
    re.IGNORECASE,
)
_SIZED = re.compile(r"\\left\s*\(([^()]*)\\right\s*\)")
_ANNOTATION = re.compile(r"<<[^<>]*>>")
"""GSM8K's calculator."""
_MINUS = re.compile(r"(?<!\d )(?<!\w)(?:minus|negative)\s+(?=\$?\d)", re.IGNORECASE)
_NOT_IT = re.compile(
    r"(?:[<\u2264\u2265]|\b(?:not|(?:more|less|fewer)\s+than))\s*\$?$", re.IGNORECASE
)
_OR_MORE = re.compile(r"\+(?!\s*\d)|\s*\bor\s+(?:more|less|fewer)\b", re.IGNORECASE)
_SPACED = re.compile(r"\W*(?:[a-zA-Z]\s*=\s*)?-?\$?\d{1,3}(?: \d{3})+(?:\.\d+)?[^\d\n]*")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_MAX_CHARS = 400
_MAX_EXPONENT = 100


def number(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Grade equality as exact numbers: `1,200`, `$1200.00` and `2400/2` are equal.

    In an announced sentence with several numbers the last one that is no condition counts, and one
    behind its last equals sign. Several values are no answer. Lenient: any announced answer counts,
    else the last number of the text.
    """
    answers = [extract_answer(text)] if not lenient else [*announced_answers(text)]
    for answer in answers:
        if answer is not None and (value := sentence_number(answer)) is not None:
            return _grade(value, problem, answer, formatted=True)
        if answer is not None and re.search(r"\d", ascii_digits(answer)):
            return Grade(score=0.0, formatted=False, extracted=answer)  # several readings
    if lenient and (last := last_number(before_next_question(final_text(text)))) is not None:
        return _grade(last, problem, str(last), formatted=False)
    return Grade(score=0.0, formatted=False, extracted=answers[0] if answers else None)


def number_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer."""
    value = sentence_number(answer)
    return NOTHING if value is None else _grade(value, problem, answer, formatted=True)


def read_number(text: str) -> Fraction | None:
    """Return the first number of a short text, or the first behind its last equals sign."""
    text = ascii_digits(_SPACES.sub("", text[:MAX_ANSWER_CHARS]))
    behind = text.rpartition("=")[2]
    first = _first(behind)
    return _first(text) if first is None else first


def sentence_number(text: str) -> Fraction | None:
    """Return the number that an announced sentence states; None where it states several."""
    plain = _plain(ascii_digits(_SPACES.sub("", text[:MAX_ANSWER_CHARS])))
    if _SPACED.fullmatch(plain):
        plain = re.sub(r"(?<=\d) (?=\d{3})", "", plain)
    front, _, behind = plain.rpartition("=")
    worked_out = exact_value(behind.strip(" .").replace("*", "\\times ")) if front else None
    if worked_out is not None:
        return worked_out
    plain = behind if re.search(r"\d", behind) else plain
    plain = re.split(
        r"\.\s+[A-Z]|\bsince\b|\bbecause\b|\bwhich\b|\bout of\b|\(", plain.strip(" ("), maxsplit=1
    )[0]
    found = [m for m in _NUMBER.finditer(plain) if m["whole"] or m["decimals"]]
    if not found:
        numerals = chinese_number(plain.strip(" .\u3002*"))
        return Fraction(numerals) if numerals.lstrip("-").isdecimal() else None
    if len(found) == 1:
        bound = _NOT_IT.search(plain[: _begin(found[0])]) or _OR_MORE.match(plain, found[0].end())
        return None if bound else _value(found[0])
    first, last = plain[: found[0].start()], found[-1]
    if not re.search(r"[a-zA-Z]", first):
        between = plain[found[0].end() : found[1].start()]
        if not re.search(r"[a-zA-Z]{2}", between) or _HEDGE.search(
            plain[found[0].start() : found[1].end()]
        ):
            return None
        return _value(found[0])  # "12 apples, 3 of them red"
    if re.search(r"\b(?:between|either)\b", plain):
        return None
    main = [m for m in found if not _CONDITION.search(plain[: _begin(m)])]
    if len(main) > 1 and _HEDGE.search(plain[main[0].start() : last.end()]):
        return None
    return _value(main[-1] if main else last)


def _begin(match: re.Match[str]) -> int:
    return match.start("whole") if match["whole"] else match.start("decimals")


def last_number(text: str) -> Fraction | None:
    """Return the last number of a text."""
    text = _plain(ascii_digits(text[-5 * MAX_ANSWER_CHARS :]))
    values = [value for m in _NUMBER.finditer(text) if (value := _value(m)) is not None]
    return values[-1] if values else None


def _grade(value: Fraction, problem: Problem, answer: str, *, formatted: bool) -> Grade:
    wanted = read_number(problem.answer)
    if wanted is None:
        raise GradingError(
            f"The gold answer '{problem.answer}' is not a number, and the grader is 'number'."
        )
    return Grade(score=float(value == wanted), formatted=formatted, extracted=answer)


def _plain(text: str) -> str:
    """Return the text with LaTeX's fractions and separators as plain ones."""
    text = _SPACES.sub("", re.sub(r"\\([$%()\[\]])", r"\1", _SIZED.sub(r"\1", text)))
    text = re.sub(r"\\[,;:! ](?=\s*\\[dt]?frac)", " ", text)
    text = _UNIT_POWER.sub("", _MINUS.sub("-", _ANNOTATION.sub("", text)))
    text = re.sub(r"(?<=\d)\*\*(?=\d)", "^", text)

    def fraction(match: re.Match[str]) -> str:
        whole, numerator, denominator = match.groups()
        return f"{whole} {numerator}/{denominator}" if whole else f"{numerator}/{denominator}"

    return _LATEX_FRACTION.sub(fraction, text)


def _first(text: str) -> Fraction | None:
    for match in _NUMBER.finditer(_plain(text)):
        if (value := _value(match)) is not None:
            return value
        if match["whole"] or match["decimals"]:
            return None  # it looks like a number and has no value, such as 1/0
    return None


def _value(match: re.Match[str]) -> Fraction | None:
    whole, decimals = match["whole"], match["decimals"]
    if (whole is None and decimals is None) or len(match.group()) > _MAX_CHARS:
        return None
    value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
    if match["denominator"] is not None:
        if int(match["denominator"]) == 0:
            return None
        value += Fraction(int(match["numerator"]), int(match["denominator"]))
    elif match["divisor"] is not None:
        if int(match["divisor"]) == 0:
            return None
        value /= int(match["divisor"])
    for power in (match["exponent"], match["power"]):
        if power is not None:
            if len(power) > 4 or abs(int(power)) > _MAX_EXPONENT:
                return None
            value *= Fraction(10) ** int(power)
    if match["raised"] is not None:
        if abs(int(match["raised"])) > _MAX_EXPONENT or (not value and int(match["raised"]) < 0):
            return None
        value **= int(match["raised"])
    if match["kilo"] is not None:
        value *= 1000
    if match["scale"] is not None:
        value *= _SCALES[match["scale"].lower()]
    return -value if match["sign"] == "-" else value
