"""The letter of a multiple choice."""

from __future__ import annotations

import re
import string

from eapo_agents.errors import GradingError
from eapo_agents.grading.extraction import (
    announced_answers,
    ascii_digits,
    extract_answer,
    final_text,
)
from eapo_agents.grading.grade import Grade
from eapo_agents.grading.texts import normalise
from eapo_agents.types import Problem

_BARE = re.compile(r"[\s(\[{*_`$\"'.]*([A-Ja-j])[\s)\]}*_`$\"'.,:;!?]*")
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|bf)\b\s*|\\[()\[\]]|[{}$]")
_LED = re.compile(
    r"""[\s(\[*_`"'.]*(?i:option|choice|answer|letter)?[\s(\[*_`"']*([A-J])
    (?:\s*[)\].:,*_`"'\u2013-] | [ \t]*(?:\n|$) | (?=[\u3040-\u30ff\u4e00-\u9fff])
      | \s+(?:because|since|as|for|is\s+(?:correct|right|the))\b)""",
    re.VERBOSE,
)
_NAMED = re.compile(
    r"""\b(?i:option|choice|answer|letter)\s*(?:is\s*)?[(\[*_`"']*([A-J])\b(?!')""", re.VERBOSE
)
_ALONE = re.compile(r"(?<![\w'])[(\[]?([A-J])[)\]]?(?![\w'])")
_BRACKETED = re.compile(r"\(([A-J])\)")
_BOTH = re.compile(
    r"\b([A-J])\b\W{0,3}(?:and|or|&|/|,|\u548c|\u6216)\W{0,3}(?:option\s*)?\b([A-J])\b"
)
_LISTED = re.compile(r"^[\s*(]*([A-J])[).:]", re.MULTILINE)
_HEAD_CHARS = 2_000


def choice(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Grade the chosen letter. If `metadata["choices"]` holds the options' texts in order, naming
    one of them whole chooses it.

    Lenient: any announced answer counts, else a text that is, or begins with, a letter, else a text
    that names a single option. Two different letters are not a choice.
    """
    answers = [extract_answer(text)] if not lenient else [*announced_answers(text)]
    for answer in answers:
        if answer is not None and (letter := read_letter(answer, problem)) is not None:
            return _grade(letter, problem, formatted=True)
    if lenient and (letter := _anywhere(final_text(text), problem)) is not None:
        return _grade(letter, problem, formatted=False)
    return Grade(score=0.0, formatted=False, extracted=answers[0] if answers else None)


def choice_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer: a letter, or an option's text."""
    letter = read_letter(answer, problem)
    if letter is None:
        return Grade(score=0.0, formatted=False, extracted=answer)
    return _grade(letter, problem, formatted=True)


def read_letter(answer: str, problem: Problem) -> str | None:
    """Return the one letter that a short text names."""
    text = _LATEX.sub(" ", ascii_digits(answer))
    if match := _BARE.fullmatch(text):
        return _known(match[1].upper(), problem)
    by_text = _by_text(text, problem)
    if by_text is not None:
        return by_text
    if _BOTH.search(text):
        return None
    if match := _LED.match(text + " "):
        return _known(match[1], problem)
    found = {m[1] for m in _BRACKETED.finditer(text)} or {m[1] for m in _NAMED.finditer(text)}
    if not found:  # not "A lesion ...": an A that begins a sentence is an article
        found = {
            m[1] for m in _ALONE.finditer(text) if not (m[1] in "AI" and text[m.end() :][:1] == " ")
        }
    return _known(found.pop(), problem) if len(found) == 1 else None


def _anywhere(text: str, problem: Problem) -> str | None:
    """Return the letter of a text without an announced answer: its head first, then its tail."""
    head = _LATEX.sub(" ", ascii_digits(text[:_HEAD_CHARS]))
    if match := _BARE.fullmatch(head):
        return _known(match[1].upper(), problem)
    if _BOTH.search(head) or len({m[1] for m in _LISTED.finditer(head)}) > 2:
        return None  # it repeats the options
    if match := _LED.match(head):
        return _known(match[1], problem)
    tail = _LATEX.sub(" ", ascii_digits(text[-_HEAD_CHARS:]))
    named = [m[1] for m in _NAMED.finditer(tail)]
    if named:
        return _known(named[-1], problem) if len(set(named)) == 1 else None
    bracketed = {m[1] for m in _BRACKETED.finditer(tail)}
    if len(bracketed) == 1:
        return _known(bracketed.pop(), problem)
    lines = [line for line in (head, tail.rstrip().rpartition("\n")[2]) if line.strip()]
    for line in lines:
        if (letter := _by_text(line, problem)) is not None:
            return letter
    return None


def _by_text(text: str, problem: Problem) -> str | None:
    wanted = normalise(text)
    choices = [normalise(str(option)) for option in problem.metadata.get("choices", ())]
    if not wanted or choices.count(wanted) != 1:
        return None
    return string.ascii_uppercase[choices.index(wanted)]


def _known(letter: str, problem: Problem) -> str | None:
    """Return the letter, or None if no option has it."""
    num_choices = len(problem.metadata.get("choices", ())) or 10
    return letter if string.ascii_uppercase.index(letter) < num_choices else None


def _grade(letter: str, problem: Problem, *, formatted: bool) -> Grade:
    gold = problem.answer.strip().upper()
    if len(gold) != 1 or not gold.isalpha():
        raise GradingError(
            f"The gold answer '{problem.answer}' is not a letter, and the grader is 'choice'."
        )
    return Grade(score=float(letter == gold), formatted=formatted, extracted=letter)
