"""Short answers in words: the text itself, and token F1 as HotpotQA scores it.

`exact` compares what is there; case, white space and a sentence's end do not matter, unless its
name says so: `exact:case+space+end`. `f1` drops punctuation and articles, as HotpotQA's script
does. Source of its formulae: hotpotqa/hotpot, hotpot_evaluate_v1.py (Apache-2.0).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from eapo_agents.grading.extraction import announced_answers, extract_answer, last_line
from eapo_agents.grading.grade import MAX_ANSWER_CHARS, NOTHING, Grade
from eapo_agents.types import Problem

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_CLOSED = ("yes", "no", "noanswer")
_LATEX_TEXT = re.compile(r"\$?\\(?:text|textbf|textit|mathrm|mathbf|emph)\s*\{([^{}]*)\}\$?")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far two short texts agree; each measure is from 0 to 1."""

    em: float
    f1: float
    precision: float
    recall: float


COUNTS = ("case", "space", "end")
"""What `exact` puts aside unless its name says that it counts: case, white space within, and a
final full stop or exclamation mark."""


def exact(
    text: str, problem: Problem, *, lenient: bool = False, counts: Collection[str] = ()
) -> Grade:
    """Grade equality of text, all of `COUNTS` aside that is not in `counts`."""
    answer = _answer(text, lenient)
    return NOTHING if answer is None else exact_answer(answer, problem, counts=counts)


def exact_answer(answer: str, problem: Problem, *, counts: Collection[str] = ()) -> Grade:
    """Grade an extracted answer."""
    same = plain_text(answer, counts) == plain_text(problem.answer, counts)
    return Grade(score=float(same), formatted=True, extracted=answer)


def verbatim(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Grade equality of text, case, inner white space and full stop included."""
    answer = _answer(text, lenient)
    return NOTHING if answer is None else verbatim_answer(answer, problem)


def verbatim_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer."""
    same = answer.strip() == problem.answer.strip()
    return Grade(score=float(same), formatted=True, extracted=answer)


def plain_text(text: str, counts: Collection[str] = ()) -> str:
    """Return the text in lower case, with single spaces and without a sentence's end, but for what
    counts."""
    plain = unicodedata.normalize("NFC", _unwrapped(text)).strip()
    if "case" not in counts:
        plain = plain.casefold()
    if "space" not in counts:
        plain = " ".join(plain.split())
    return plain if "end" in counts else plain.rstrip(".!").rstrip() or plain


def f1(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Grade token F1; yes, no and noanswer must match whole."""
    answer = _answer(text, lenient)
    if answer is None:
        return Grade(score=0.0, formatted=False, details=_ZERO)
    return f1_answer(answer, problem)


def f1_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer."""
    found = overlap(_unwrapped(answer), problem.answer)
    details = {"em": found.em, "f1": found.f1, "prec": found.precision, "recall": found.recall}
    return Grade(score=found.f1, formatted=True, extracted=answer, details=details)


def overlap(answer: str, gold: str) -> Overlap:
    """Return exact match, F1, precision and recall over the tokens of the normalised texts."""
    given, wanted = normalise(answer), normalise(gold)
    em = float(given == wanted)
    if given != wanted and (given in _CLOSED or wanted in _CLOSED):
        return Overlap(em, 0.0, 0.0, 0.0)
    given_tokens, wanted_tokens = given.split(), wanted.split()
    num_same = sum((Counter(given_tokens) & Counter(wanted_tokens)).values())
    if num_same == 0:
        return Overlap(em, 0.0, 0.0, 0.0)
    precision, recall = num_same / len(given_tokens), num_same / len(wanted_tokens)
    return Overlap(em, 2 * precision * recall / (precision + recall), precision, recall)


def normalise(text: str) -> str:
    """Return the text in lower case, without punctuation and articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _answer(text: str, lenient: bool) -> str | None:
    if not lenient:
        return extract_answer(text)
    return next(announced_answers(text), None) or last_line(text[-4 * MAX_ANSWER_CHARS :])


def _unwrapped(text: str) -> str:
    """Return the words of `\\text{...}`, which models write inside a box."""
    found = _LATEX_TEXT.fullmatch(text.strip())
    return found[1] if found else text


_ZERO = {"em": 0.0, "f1": 0.0, "prec": 0.0, "recall": 0.0}
