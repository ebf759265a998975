"""Graders: one function from an answer's text and the gold answer to a grade, shared by rewards and
benchmarks.

A grader never raises on what a policy wrote; it raises `GradingError` where the gold answer itself
cannot be read. The answer is what follows the last `Answer:`, else what the last `\\boxed{...}`
holds; text with neither has no answer.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from eapo_agents.errors import GradingError, UsageError

_MARKER = re.compile(r"answer\s*:", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_NUMBER = re.compile(r"[-+\u2212]?\s*\$?\s*(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(?:\s*/\s*(\d+))?")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
MAX_ANSWER_CHARS = 2_000
"""Longer answers are cut: no right answer is that long, and a hostile one must not cost time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """How good an answer is."""

    score: float
    """From 0 to 1."""
    formatted: bool
    """Whether an answer of the right form could be extracted."""
    extracted: str | None = None

    @property
    def correct(self) -> bool:
        """Whether it counts as right in an accuracy."""
        return self.score >= 1.0


Grader = Callable[[str, str], Grade]


def extract_answer(text: str) -> str | None:
    """The text after the last `Answer:` on its line, else inside the last `\\boxed{}`; None without
    either."""
    markers = list(_MARKER.finditer(text))
    if markers:
        rest = text[markers[-1].end() :].strip()
        line = rest.splitlines()[0].strip() if rest else ""
        inside = _last_boxed(line)
        return (inside if inside is not None else line)[:MAX_ANSWER_CHARS] or None
    boxed = _last_boxed(text)
    return boxed[:MAX_ANSWER_CHARS].strip() or None if boxed is not None else None


def grade(grader: str, text: str, gold: str) -> Grade:
    """Grades what a policy wrote.

    Raises:
        UsageError: no grader of that name.
        GradingError: the gold answer cannot be read.
    """
    return find_grader(grader)(text, gold)


def find_grader(name: str) -> Grader:
    """The grader of that name; an unknown one lists the known ones."""
    if name not in GRADERS:
        raise UsageError(f"Unknown grader '{name}': use one of {', '.join(sorted(GRADERS))}.")
    return GRADERS[name]


def exact(text: str, gold: str) -> Grade:
    """Equal after case, punctuation, articles and spaces are normalised."""
    answer = extract_answer(text)
    if answer is None:
        return _NOTHING
    return Grade(
        score=float(normalise(answer) == normalise(gold)), formatted=True, extracted=answer
    )


def number(text: str, gold: str) -> Grade:
    """Equal as exact numbers: `1,200`, `$1200.00` and `2400/2` are one. The answer's first number
    counts."""
    wanted = _as_number(gold)
    if wanted is None:
        raise GradingError(f"The gold answer '{gold}' is no number, and the grader is 'number'.")
    answer = extract_answer(text)
    given = None if answer is None else _as_number(answer)
    if given is None:
        return Grade(score=0.0, formatted=False, extracted=answer)
    return Grade(score=float(given == wanted), formatted=True, extracted=answer)


def f1(text: str, gold: str) -> Grade:
    """Token F1 as HotpotQA scores answers: yes, no and noanswer must match whole."""
    answer = extract_answer(text)
    if answer is None:
        return _NOTHING
    given, wanted = normalise(answer), normalise(gold)
    score = 0.0
    closed = {"yes", "no", "noanswer"}
    if given == wanted:
        score = 1.0
    elif given not in closed and wanted not in closed:
        given_tokens, wanted_tokens = given.split(), wanted.split()
        num_same = sum((Counter(given_tokens) & Counter(wanted_tokens)).values())
        if num_same:
            precision, recall = num_same / len(given_tokens), num_same / len(wanted_tokens)
            score = 2 * precision * recall / (precision + recall)
    return Grade(score=score, formatted=True, extracted=answer)


def math(text: str, gold: str) -> Grade:
    """Equivalent as mathematics, by math-verify: `\\frac{1}{2}`, `0.5` and `1/2` are one."""
    from math_verify import parse, verify

    # no timeouts: math-verify's are signals, which only the main thread may set
    wanted = parse(f"${gold.strip().strip('$')}$", parsing_timeout=None)
    if not wanted:
        raise GradingError(f"The gold answer '{gold}' is no mathematics, and the grader is 'math'.")
    answer = extract_answer(text)
    if answer is None:
        return _NOTHING
    if len(answer) > _MAX_MATH_CHARS or _POWER_TOWER.search(answer):
        return Grade(score=0.0, formatted=True, extracted=answer)
    try:
        given = parse(f"${answer.strip().strip('$')}$", parsing_timeout=None)
        right = bool(given) and verify(wanted, given, timeout_seconds=None)
    except Exception:  # sympy raises what it likes on what a policy likes to write
        return Grade(score=0.0, formatted=False, extracted=answer)
    return Grade(score=float(right), formatted=bool(given), extracted=answer)


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces (as the SQuAD and HotpotQA evaluations
    do)."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


GRADERS: dict[str, Grader] = {"exact": exact, "number": number, "f1": f1, "math": math}
_NOTHING = Grade(score=0.0, formatted=False)
_MAX_MATH_CHARS = 200
_POWER_TOWER = re.compile(r"\^.*\^|\*\*.*\*\*|\d{5,}!|!!|\^\s*\{?\s*\d{5,}")
"""Sympy would work these out digit by digit; no gold answer of a benchmark looks like that."""


def _last_boxed(text: str) -> str | None:
    starts = list(_BOXED.finditer(text))
    if not starts:
        return None
    depth, begin = 1, starts[-1].end()
    for index in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return text[begin:]


def _as_number(text: str) -> Fraction | None:
    for match in _NUMBER.finditer(text[:MAX_ANSWER_CHARS]):
        whole, decimals, divisor = match.groups()
        if whole is None and decimals is None:
            continue
        if len(match.group()) > 400 or (divisor is not None and int(divisor) == 0):
            return None
        value = Fraction((whole or "0").replace(",", "") + (decimals or ""))
        if divisor is not None:
            value /= int(divisor)
        return -value if match.group()[0] in "-\u2212" else value
    return None
