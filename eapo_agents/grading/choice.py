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
from eapo_agents.types import Problem

_BARE = re.compile(
    r"(?:\s*(?:[-*+\u2022]|\d{1,2}[.)]|[-=]>|[\u2192\u21d2\u2234\u2705\u2713\u2714]\ufe0f?)\s)?[\s(\[{<*_`$\"'.]*([A-Ja-j])[\s)\]}>*_`$\"'.,:;!?\u2705\u2713\u2714\ufe0f]*"
)
_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf|rm|bf)\b\s*|\\[()\[\]]|[{}$]")
_CONNECTED = (
    r"(?:\s*\([A-J]\)|\W{0,4}(?:and|or|&|/|,|\u548c|\u6216)\W{0,4}"
    r"(?:option\s*|choice\s*)?\b[A-J]\b)"
)
_LED = re.compile(
    rf"""[\s(\[*_`"'.]*(?i:option|choice|answer|letter)?[\s(\[*_`"']*
    (?: (?P<upper>[A-J])(?!['\u2019]\w) (?: \s*[)\].:*_`"'\u2013-]+ | [ \t]*(?:\n|$)
          | (?=[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]) | \s*\([^()]*\) | \s*,?\s*(?=\(?not\b)
          | \s*,?\s*\b(?:because|since|as|for|which|while
            |is\s+(?:correct|right|the)(?![^.!\n]{{0,20}}\?))\b )
      | (?P<lower>(?<=\()[a-j]\)|[a-j]\)) )
    (?!{_CONNECTED})""",
    re.VERBOSE,
)
"""A letter in front; not one that is joined to a second one."""
_NAMED = re.compile(
    r"""\b(?i:option|choice|answer|ans\.?|letter|solution|correct|final|antwort
    |r\u00e9ponse|lettre|respuesta|opci\u00f3n|letra|risposta|lettera|opzione|resposta|op\u00e7\u00e3o|cevap|odpowied\u017a|antwoord|svar)\s*
    (?:\d\s*)?(?:is\s*|[-:\u2013\u2014\u2192=]\s*)?[(\[*_`"']*([A-J])\b(?!')
    (?![)\]*\s]*(?:[+;|,&]|(?:then|plus|und|et|y|e)\b)?\s*[(\[]?[A-J]\b(?!')|[)\]*\s]*(?:or|and)\b)""",
    re.VERBOSE,
)
_CHOSEN = re.compile(
    r"""\b(?: (?i:choose|chose|choosing|select|pick|go(?:ing)?\s+(?:with|for)|opt\s+for)\s+
        (?i:(?:option|choice|answer|letter)\s+)?[(\[*_`"']*([A-J])\b
      | (?i:it's|it\s+is|it\s+(?:must|has\s+to)\s+be|c'est|es\s+ist|so|thus|hence|therefore
          |leav(?:es|ing)(?:\s+(?:us|me))?(?:\s+with)?(?:\s+only)?)\s*,?\s*
        (?i:(?:option|choice|answer|letter)\s+)?[(\[*_`"']*([A-J])(?=[)\]*_`"'\s]*(?:[.,;:!]|$))
        (?!,?\s*(?:or|and)\s+(?:maybe|perhaps|possibly)\b)
      )""",
    re.VERBOSE | re.MULTILINE,
)
_IT_IS = re.compile(r"(?<![\w'])[(\[*]*([A-J])[)\]*]*\s+(?:it\s+is\b|is\s*[.!]?\s*$)")
_LOWER = re.compile(r"\s*[(*]*([a-j])[.:)\]*]+\s+(.+)", re.DOTALL)
_ALONE = re.compile(r"(?<![\w'/])[(\[]?([A-J])[)\]]?(?![\w'\u2019\u266d-\u266f])")
_BRACKETED = re.compile(r"\(([A-J])\)")
_BOTH = re.compile(rf"\b[A-J]\b(?:\s*\([^()]*\))?{_CONNECTED}")
_LISTED = re.compile(r"^[\s*(]*([A-J])[).:]", re.MULTILINE)
_ASSERTED = re.compile(
    r"""(?<![\w'])[(\[*]*([A-J])\b[)\]*.:]*\s+(?:is|must\s+be|would\s+be|should\s+be|seems)\s+
    (?:(?:clearly|indeed|therefore|thus|also)\s+)?(?:the\s+)?(?:only\s+|most\s+|best\s+)?
    (?:correct|right|best|true|answer|likely|accurate|appropriate)\b(?!\s*\?)""",
    re.VERBOSE,
)
_NO_LETTER = re.compile(
    r"(?<=[\d\u00b0])\s*[A-J]\b|\b[A-Za-z]\(\s*[A-J]\s*\)|\b[A-J](?=\s*(?:[+#']|\*(?!\*))\S|\s*=)(?!'est)"
    r"|\b(?i:vitamins?|hepatitis|influenza|blood\s+(?:type|group)|type|group|class|grade|schedule"
    r"|point|angle|vertex|set|event|matrix|team|person|player|company|firm|country|city|plan|phase"
    r"|part|section|appendix|figure|row|column|drug|gene|protein|factor|compound|substance|region)\s+[A-J]\b"
    r"|\b[A-J]\s+(?i:minor|major|sharp|flat|cells?|lymphocytes?|string|battery)\b"
)
"""Units (25 \u00b0C, 3 A), probabilities and functions (P(A)), formulae, names (C++, vitamin B)."""
_RULED_OUT_BEFORE = re.compile(
    r"""(?:\bnot|\bcannot|n't|\brul(?:e|es|ed|ing)\s+out|\beliminat\w+|\bexclud\w+|\bdiscard\w*|\breject\w*
    |\bcross\w*\s+out|\bneither|\bnor|\bexcept|\b(?:all|anything|everything)\s+but
    |\bnicht|\bkeine?|\bpas|\bno\s+es|\bnon\s+\u00e8|\bn\u00e3o|\b\u043d\u0435|\bniet|\binte|\bnie\s+jest|\brather\s+than|\binstead\s+of)\b
    (?:(?!\b(?:but|so|answer\s+is|leaves)\b)[^.;:\n])*$""",
    re.IGNORECASE | re.VERBOSE,
)
_RULED_OUT_BEHIND = re.compile(
    r"""[)\]*]*\s+(?:is|are|was|seems?|can\s+be|can|must\s+be|would\s+be)\s*
    (?:(?:clearly|also|both|all|be|therefore)\s+)*
    (?:wrong|incorrect|false|not\b|n't|ruled\s+out|eliminated|excluded|impossible|out\b)
    |[)\]*]*\s+(?:isn't|aren't|can't|cannot|doesn't|does\s+not)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_EDGES = " \t\n\r*_`\"'\\,;:!?"
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
    text = _plain(answer)
    if match := _BARE.fullmatch(text):
        return _known(match[1], problem)
    if (by_text := _by_text(text, problem)) is not None:
        return by_text
    if letter := _led(text + " ") or _lower(text, problem):
        return _known(letter, problem)
    text = _NO_LETTER.sub(" ", text)
    if found := _standing(_CHOSEN, text):
        return _single(found, problem)
    if _BOTH.search(text):
        return None
    for pattern in (_ASSERTED, _BRACKETED, _NAMED, _IT_IS):
        if found := _standing(pattern, text):
            return _single(found, problem)
    # not "A lesion ...": an A that begins a sentence is an article
    return _single(
        [
            letter
            for letter, end in _mentions(_ALONE, text)
            if not (letter in "AI" and text[end:][:1] == " ")
        ],
        problem,
    )


def _anywhere(text: str, problem: Problem) -> str | None:
    """Return the letter of a text without an announced answer: its head first, then its tail."""
    head = _plain(text[:_HEAD_CHARS])
    if match := _BARE.fullmatch(head):
        return _known(match[1], problem)
    if (by_text := _by_text(head, problem)) is not None:
        return by_text
    if len({m[1] for m in _LISTED.finditer(head)}) > 2:
        return None  # it repeats the options
    if letter := _led(head) or _lower(head, problem):
        return _known(letter, problem)
    tail = _NO_LETTER.sub(" ", _plain(text[-_HEAD_CHARS:]))
    for pattern in (_ASSERTED, _CHOSEN, _IT_IS):
        if found := _standing(pattern, tail):
            return _single(found, problem)
    if _BOTH.search(_NO_LETTER.sub(" ", head)):
        return None
    for pattern in (_NAMED, _BRACKETED):
        if found := _standing(pattern, tail):
            return _single(found, problem)
    last_line = _plain(text[-_HEAD_CHARS:]).rstrip().rpartition("\n")[2]
    if match := _BARE.fullmatch(last_line):
        return _known(match[1], problem)
    return _by_text(last_line, problem)


def _plain(text: str) -> str:
    return _LATEX.sub(" ", ascii_digits(text))


def _led(text: str) -> str | None:
    """Return the letter in front of a text, unless the text rules it out."""
    match = _LED.match(text)
    if match is None:
        return None
    group = "upper" if match["upper"] else "lower"
    ruled_out = _RULED_OUT_BEHIND.match(text[match.start(group) + 1 :][:60])
    return None if ruled_out else match[group][0]


def _lower(text: str, problem: Problem) -> str | None:
    """Return a small letter in front of its own option's text."""
    match = _LOWER.match(text)
    letter = match[1].upper() if match else None
    return letter if match and _by_text(match[2], problem) == letter else None


def _mentions(pattern: re.Pattern[str], text: str) -> list[tuple[str, int]]:
    """Return the letters that a text names and does not rule out, each with where it ends."""
    return [
        (m[m.lastindex or 1], m.end())
        for m in pattern.finditer(text)
        for begin, end in [m.span(m.lastindex or 1)]
        if not _RULED_OUT_BEFORE.search(text[max(0, begin - 60) : begin])
        and not _RULED_OUT_BEHIND.match(text[end : end + 60])
    ]


def _standing(pattern: re.Pattern[str], text: str) -> list[str]:
    return [letter for letter, _ in _mentions(pattern, text)]


def _single(letters: list[str], problem: Problem) -> str | None:
    return _known(letters[0], problem) if len(set(letters)) == 1 else None


def _by_text(text: str, problem: Problem) -> str | None:
    wanted = _option(text)
    choices = [_option(_plain(str(option))) for option in problem.metadata.get("choices", ())]
    if not wanted or choices.count(wanted) != 1:
        return None
    return string.ascii_uppercase[choices.index(wanted)]


def _option(text: str) -> str:
    """Return an option's text as it is compared: signs, points and primes tell options apart."""
    text = " ".join(text.casefold().split())
    text = text.lstrip(_EDGES).rstrip(_EDGES if not re.search(r"\d\s*!$", text) else " ")
    return re.sub(
        r"^(?:both\s+)?(?:(?:a|an|the)\s+(?!and\b|or\b))?",
        "",
        re.sub(r"\.$", "", text).strip(_EDGES[:-3]),
    )


def _known(letter: str, problem: Problem) -> str | None:
    """Return the letter as a capital, or None if no option has it."""
    letter = letter.upper()
    num_choices = len(problem.metadata.get("choices", ())) or 10
    return letter if string.ascii_uppercase.index(letter) < num_choices else None


def _grade(letter: str, problem: Problem, *, formatted: bool) -> Grade:
    gold = problem.answer.strip().upper()
    if len(gold) != 1 or not gold.isalpha():
        raise GradingError(
            f"The gold answer '{problem.answer}' is not a letter, and the grader is 'choice'."
        )
    return Grade(score=float(letter == gold), formatted=formatted, extracted=letter)
