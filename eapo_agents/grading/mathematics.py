"""Mathematical equivalence: equal text, equal exact values, else math-verify.

An answer goes through the rules of `math_rules`, is split by its form, and its parts are compared
one by one. Where two readings are possible the answer is not right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from eapo_agents.errors import GradingError
from eapo_agents.grading.exact_values import exact_value
from eapo_agents.grading.extraction import (
    announced_answers,
    before_next_question,
    extract_answer,
    final_text,
    last_boxed,
    tagged_answer,
)
from eapo_agents.grading.grade import NOTHING, Grade
from eapo_agents.grading.math_forms import Form, as_list, as_union, form_of
from eapo_agents.grading.math_processes import the_processes
from eapo_agents.grading.math_rules import DEGREES, rewrite
from eapo_agents.grading.numbers import sentence_number
from eapo_agents.grading.words import same_words, tells
from eapo_agents.types import Problem

_MAX_CHARS = 400
_MAX_PARTS = 20
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mbox|hbox|mathrm)\s*\{([^{}]*)\}(?:\s*\^\s*\{?\d\}?)?"
)
_PLAIN_WORDS = re.compile(
    r"(?<=[\d})\]])\s+([a-zA-Z]{2}[a-zA-Z./^ ]*\d?)$"
    r"|(?<=\d)\s*((?:k|c|m)?m(?:\^\{?\d\}?)?|a\.?m\.?|p\.?m\.?)$",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"^\s*([a-zA-Z](?:_\{[\w,]+\}|_\w+)?)\s*(?:\(\s*[a-zA-Z]\s*\))?\s*=\s*(?=[^=]+$)"
)
_DATE = re.compile(r"\\text\s*\{(?=[^{}]*[a-zA-Z]{3})(?=[^{}]*\d)[^{}=<>+*/^]*\}")
"""Words with a number among them, such as June 20: nothing to calculate with."""
_POINT = re.compile(r"[A-Z]\s*=?\s*(?=\()")
_RELATION = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-zA-Z])")
_BASED = re.compile(r"[0-9A-F]+_\{\d+\}")
_OPTION = re.compile(r"\s*\(?([A-J])\)?+(?![a-z])(?!\s*[-+*^=/])")
_LETTER = re.compile(r"\(?([A-Za-z])\)?")
_MATHS = re.compile(r"(?<!\\)\$\$?((?:\\\$|[^$])+?)(?<!\\)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_LINKS = re.compile(r"[\s,.;]*(?:and|or|,)?[\s,]*")
_CLAUSE = re.compile(
    r",?\s+\(?(?:which|because|since|so|where|as|when|not|rather|obtained|i\.e\.)\s.*$|\.\s+[A-Z].*$"
    r"|\s+(?:#|//)\s.*$",
    re.DOTALL,
)
_PROSE = re.compile(r"(?:(?<![\\a-zA-Z])[a-zA-Z]{2,}\s+){2}")
_POINTS = re.compile(r"(?:\\(?:angle|triangle|overline|vec)\s*)?\{?[A-Z]{2,}\}?")
_TWO_READINGS = re.compile(r"\d\s*/\s*\d+\s*[a-zA-Z]")
_OR = re.compile(r"\bor\b|\\l?or(?![a-z])|\\vee|\u2228")
_PI = re.compile(r"\\pi(?![a-z])|\u03c0")
_OPAQUE = ("\\ldots", "\\dots", "\\cdots", "...", "pmod", ":")


def math(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Grade equivalence as mathematics: `\\frac{1}{2}`, `0.5` and `1/2` are equal.

    Lenient: the last box counts, as in benchmarks of mathematics, else any announced answer, else a
    text that is nothing but an answer. No other number of the text is an answer.
    """
    if not lenient:
        answer = extract_answer(text)
        return NOTHING if answer is None else math_answer(answer, problem)
    text = final_text(text)
    if (tagged := tagged_answer(text)) is not None:
        return math_answer(tagged, problem)
    first = before_next_question(text)
    text = first if last_boxed(first) or next(announced_answers(first), None) else text
    if boxed := last_boxed(text):
        return math_answer(boxed, problem)
    for answer in announced_answers(text):
        if (graded := math_answer(answer, problem)).formatted or graded.undecided:
            return graded
    bare = text.strip()
    if len(bare) <= 100 and not re.search(r"(?<![\\a-zA-Z])[a-zA-Z]{3}", bare):
        return math_answer(bare, problem)
    return NOTHING


def math_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer."""
    if not rewrite(problem.answer):
        raise GradingError(
            f"The gold answer '{problem.answer}' is not mathematics, and the grader is 'math'."
        )
    found = compare(answer, problem.answer)
    if found.undecided:
        return Grade(
            score=0.0, formatted=False, extracted=answer, undecided=True, note=found.undecided
        )
    return Grade(
        score=float(found.equal), formatted=found.readable, extracted=answer, note=found.note
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two answers are equal."""

    equal: bool
    readable: bool = True
    undecided: str = ""
    note: str = ""


def compare(answer: str, gold: str) -> Verdict:
    """Compare a given answer with the gold one.

    Raises:
        GradingError: the gold answer cannot be read, and is not the same text.
    """
    answer, gold = _in_radians(_announced(answer), gold), _in_radians(gold, answer)
    given, wanted = rewrite(answer), rewrite(gold)
    if not given:
        return Verdict(False, readable=False)
    if _plain(given) == _plain(wanted):
        return Verdict(True)
    if len(given) > _MAX_CHARS:
        return Verdict(False, note="too long to be an answer")
    if (letter := _LETTER.fullmatch(_words_only(wanted) or wanted.strip())) and "(" in wanted:
        label = _OPTION.match(_TEXT.sub(r"\1", answer.strip("$ ")))
        return Verdict(label[1] == letter[1]) if label else _text_verdict(given, wanted)
    if _words_only(wanted) or _words_only(given) or _DATE.fullmatch(wanted):
        return _text_verdict(given, wanted)
    if _POINT.match(given) and wanted.startswith("("):
        given = _POINT.sub("", given, count=1)  # P(1, 2)
    one, other = form_of(given), form_of(wanted)
    one = as_union(one) if other.kind == "union" and _OR.search(answer) else one
    other = as_union(other) if one.kind == "union" and _OR.search(gold) else other
    if len(one.parts) == 1 < len(other.parts):
        one = as_list(answer, len(other.parts)) or one
    if len(one.parts) == len(other.parts) == 1 and one.kind == other.kind == "list":
        return _compare_value(one.parts[0], other.parts[0])
    if one.kind == "list" and other.kind == "()" and len(one.parts) == len(other.parts) > 1:
        named = {m[1]: part for part in one.parts if (m := _NAMED.match(part))}
        if len(named) == len(one.parts):
            parts = tuple(named[name] for name in sorted(named))
            return _compare_forms(Form("()", parts), other)  # x = 1, y = 2
    if one.kind == "list" and len(other.parts) == 1 < len(one.parts) <= _MAX_PARTS:
        # one value, written in several ways: a mixed number in a box, the fraction in the next
        verdicts = [_compare_value(part, other.parts[0]) for part in one.parts]
        if all(verdict.equal for verdict in verdicts):
            return Verdict(True)
    if one.kind == other.kind or {one.kind, other.kind} == {"list", "set"}:
        return _compare_forms(one, other)
    if len(one.kind) == len(other.kind) == 2:
        return Verdict(False)  # other brackets
    if {one.kind, other.kind} & {"list", "set"} and min(len(one.parts), len(other.parts)) > 1:
        return Verdict(False)  # a tuple and a list
    return _ask(given, wanted)


def _in_radians(text: str, other: str) -> str:
    """Return an angle in degrees as one in radians, where the other one is."""
    if not _PI.search(other) or _PI.search(text):
        return text
    return DEGREES.sub(r"\\cdot\\frac{\\pi}{180}", text)


def _compare_forms(one: Form, other: Form) -> Verdict:
    if len(one.parts) != len(other.parts) or len(one.parts) > _MAX_PARTS:
        return Verdict(False)
    unordered = one.kind in ("list", "set", "union")
    left = list(other.parts)
    undecided = ""
    for part in one.parts:
        for candidate in list(left) if unordered else left[:1]:
            found = (
                compare(part, candidate) if one.kind == "union" else _compare_value(part, candidate)
            )
            undecided = undecided or found.undecided
            if found.equal:
                left.remove(candidate)
                break
        else:
            return Verdict(False, undecided=undecided)
    return Verdict(True)


def _compare_value(given: str, wanted: str) -> Verdict:
    """Compare single values: names in front, words behind, then what is between."""
    given, wanted, same_name = _unnamed(given, wanted)
    if not same_name:
        return Verdict(False)
    given, given_words = _without_words(given)
    wanted, wanted_words = _without_words(wanted)
    if not same_words(given_words, wanted_words):
        return Verdict(False)
    given, given_percent = _without_percent(given)
    wanted, wanted_percent = _without_percent(wanted)
    if _plain(given) == _plain(wanted):
        return Verdict(True)
    value, gold = exact_value(given), exact_value(wanted)
    if value is not None and gold is not None:
        # a percent sign is a unit, or a hundredth
        hundredths = value * Fraction(100) ** (wanted_percent - given_percent)
        return Verdict(gold in (value, hundredths))
    if gold is not None and "=" in given and "=" not in wanted:
        first, *others = given.split("=")
        asked = len(others) > 1 and exact_value(first.strip()) is None  # m + n = 10 + 7 = 17
        named = _is_name(first) or asked
        sides = [exact_value(side.strip()) for side in (others if named else [first, *others])]
        return Verdict(set(sides) == {gold})
    if _BASED.fullmatch(given) or _BASED.fullmatch(wanted):
        return Verdict(False)  # numbers with a base are equal only as text
    return _ask(given, wanted)


def _is_name(text: str) -> bool:
    """Whether the left side of an equation says what the answer is, and is nothing to solve."""
    return bool(re.search(r"\\text|\||\\angle|^\s*(?:[a-zA-Z]\s*\(|[A-Z]{2}\s*$)", text))


def _ask(given: str, wanted: str) -> Verdict:
    if any(mark in given + wanted for mark in _OPAQUE):
        return Verdict(_plain(given) == _plain(wanted))
    if not given or re.search(r"[\x00-\x08]", given):
        return Verdict(False, readable=False)
    if _POINTS.fullmatch(given.strip()) and _POINTS.fullmatch(wanted.strip()):
        return Verdict(False)  # points are no factors
    if _TWO_READINGS.search(given) and not _TWO_READINGS.search(wanted):
        return Verdict(False, note="1/2x has two readings")
    one, other = _letters(given), _letters(wanted)
    if one != other and {c.lower() for c in one} == {c.lower() for c in other}:
        return Verdict(False)  # latex2sympy takes K for k
    found = the_processes().compare(_for_sympy(wanted), _for_sympy(given))
    if found.undecided:
        return Verdict(False, undecided=found.undecided)
    if not found.gold_readable:
        raise GradingError(
            f"The gold answer '{wanted}' is not mathematics, and the grader is 'math'."
        )
    return Verdict(found.equal, readable=found.readable)


def _letters(text: str) -> set[str]:
    return set(re.findall(r"[a-zA-Z]", re.sub(r"\\[a-zA-Z]+", " ", text)))


def _for_sympy(text: str) -> str:
    def fraction(m: re.Match[str]) -> str:
        return f"\\frac{{{int(m[1] + m[2])}}}{{{10 ** len(m[2])}}}"

    text = re.sub(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])", fraction, text)
    return _TEXT.sub(r"\1", text)


def _announced(answer: str) -> str:
    """Return the answer of an announcing line: its mathematics, or the number that it states."""
    if "\\boxed" in answer and (boxed := last_boxed(answer)):
        answer = boxed
    found = list(_MATHS.finditer(answer))
    if found:
        first = found[0]
        run = [first]
        for match in found[1:]:
            if not _LINKS.fullmatch(answer[run[-1].end() : match.start()]):
                if answer[: first.start()].strip(" *:"):
                    run = [match]
                    continue
                break
            run.append(match)
        inside = ", ".join(
            next(g for g in m.groups() if g is not None).strip().rstrip(" .") for m in run
        )
        behind = answer[run[-1].end() :]
        before = answer[: run[0].start()]
        if (
            re.fullmatch(r"[\s*_.,;:!`]*", behind)
            or re.search(r"[a-zA-Z]", before)
            or not tells(behind)
        ):
            return inside
        return inside + "\\text{" + re.sub(r"[{}$\\]", "", _CLAUSE.sub("", behind)) + "}"
    if "\\" not in answer:
        answer = _CLAUSE.sub("", answer)
        if _PROSE.search(answer) and not re.search(r"\d\s*[-+*/^=]\s*\w", answer):
            number = sentence_number(answer)
            return answer if number is None else str(number)
    return answer


def _unnamed(given: str, wanted: str) -> tuple[str, str, bool]:
    """Return both without `x =` in front, and whether the names, if both have one, are equal."""
    one, other = _NAMED.match(given), _NAMED.match(wanted)
    if one and other:
        if one[1] == other[1]:
            return given[one.end() :], wanted[other.end() :], True
        values = exact_value(given[one.end() :]), exact_value(wanted[other.end() :])
        return given, wanted, None in values
    if (one and _RELATION.search(wanted)) or (other and _RELATION.search(given)):
        return given, wanted, True  # equations, which math-verify solves
    return given[one.end() :] if one else given, wanted[other.end() :] if other else wanted, True


def _without_percent(text: str) -> tuple[str, bool]:
    text = text.rstrip(" .,")
    plain = text.removesuffix("%").removesuffix("\\").rstrip() if text.endswith("%") else text
    return plain, plain != text


def _without_words(text: str) -> tuple[str, str]:
    words = " ".join(m[1] for m in _TEXT.finditer(text) if re.search(r"[a-zA-Z]", m[1]))
    if words and re.search(r"\d", text):
        return _TEXT.sub(lambda m: "" if re.search(r"[a-zA-Z]", m[1]) else m[1], text).strip(
            " ="
        ), words
    text = _TEXT.sub(r"\1", text)
    if "pmod" not in text and (found := _PLAIN_WORDS.search(text)):
        return text[: found.start()], found[1] or found[2]
    return text, ""


def _words_only(text: str) -> str | None:
    """Return the words of an answer that is nothing else."""
    if re.sub(r"[\s.,]", "", _TEXT.sub("", text)) or not _TEXT.search(text):
        return None
    words = _TEXT.sub(r"\1", text)
    return words if re.search(r"[a-zA-Z]", words) and not re.search(r"\d", words) else None


def _text_verdict(given: str, wanted: str) -> Verdict:
    one, other = (
        re.sub(r"^(?:an?|the) |[\s{}().\\]", "", _TEXT.sub(r"\1", t).strip().lower())
        for t in (given, wanted)
    )
    return Verdict(one == other)


def _plain(text: str) -> str:
    """Return the text without spaces, but for those between two digits."""
    text = _TEXT.sub(r" \1 ", text).strip()
    return re.sub(r"\s+(?!\d)|(?<!\d)\s+", "", text)
