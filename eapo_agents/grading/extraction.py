"""Finds the answer in a model's text.

Strict extraction, for training rewards, takes the text behind the last `Answer:` on its line, else
the content of the last `\\boxed{...}`. Lenient extraction, for benchmarks of models that were not
asked for a form, takes every place where an answer is announced, the last one first; the grader
uses the first that it can read. Reasoning in `<think>` tags is never searched, and a text that is
still inside them has no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from eapo_agents.grading.grade import MAX_ANSWER_CHARS

_TAIL_CHARS = 200_000
"""An answer comes at the end: only this much of a longer text is searched."""
_MAX_PLACES = 50
_MARKER = re.compile(r"answer\s*[:\uff1a]", re.IGNORECASE)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_ANNOUNCED = re.compile(
    r"""answer\W{0,4}\s*[:\uff1a]                               # Answer: / **Answer**:
      | (?:answer|result|solution|choice|option)\s+(?:is|was|would\s+be|should\s+be)\b\s*:?
      | \#\#\#\#                                                # GSM8K's own mark
      | \u7b54\u3048\s*\u306f?\s*[:\uff1a]?                     # Japanese
      | \u7b54\u6848\s*[\u662f\u4e3a\u70ba]?\s*[:\uff1a]?        # Chinese
      | \uc815\ub2f5\s*\uc740?\s*[:\uff1a]?                     # Korean
      | (?:antwort|r\u00e9ponse|respuesta|risposta|resposta)\s*[:\uff1a]
      | \u043e\u0442\u0432\u0435\u0442\s*[:\uff1a]               # Russian
      | \u0627\u0644(?:\u0625\u062c\u0627\u0628\u0629|\u062c\u0648\u0627\u0628)\s*[:\uff1a]?
      | \u0909\u0924\u094d\u0924\u0930\s*[:\uff1a]              # Hindi
    """,
    re.IGNORECASE | re.VERBOSE,
)
_WRAPPERS = "*_`~ \t"
_CODE_BLOCK = re.compile(r"```[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)


def extract_answer(text: str) -> str | None:
    """Return the answer in the form that training asks for, or None."""
    text = final_text(text)
    markers = list(_MARKER.finditer(text))
    if markers:
        line = _line_after(text, markers[-1].end())
        inside = last_boxed(line)
        return (inside if inside is not None else line)[:MAX_ANSWER_CHARS] or None
    boxed = last_boxed(text)
    return boxed[:MAX_ANSWER_CHARS].strip() or None if boxed is not None else None


def announced_answers(text: str) -> Iterator[str]:
    """Yield every answer that the text announces, the last one first; none is empty."""
    text = final_text(text)
    places = [(m.start(), m.end(), True) for m in _BOXED.finditer(text)]
    places += [(m.start(), m.end(), False) for m in _ANNOUNCED.finditer(text)]
    for _, end, boxed in sorted(places, reverse=True)[:_MAX_PLACES]:
        found = _braced(text, end) if boxed else _line_after(text, end)
        if found := found[:MAX_ANSWER_CHARS].strip():
            yield found


def final_text(text: str) -> str:
    """Return the text behind the reasoning, without its first part if it is very long."""
    end = text.rfind("</think>")
    if end >= 0:
        text = text[end + len("</think>") :]
    elif "<think>" in text:
        return ""
    return text[-_TAIL_CHARS:]


def last_line(text: str) -> str | None:
    """Return the last line that is not blank."""
    lines = [line.strip() for line in final_text(text).splitlines() if line.strip()]
    return lines[-1][:MAX_ANSWER_CHARS] if lines else None


def code_blocks(text: str) -> list[str]:
    """Return fenced blocks of Python, or without a language, in order. An unclosed one counts."""
    found = _CODE_BLOCK.findall(text)
    return [body for language, body in found if language.lower() in ("", "python", "py", "python3")]


def ascii_digits(text: str) -> str:
    """Return the text with digits of every script, full-width forms and odd minus signs as
    ASCII."""
    if text.isascii():
        return text
    return "".join(_ascii_digit(c) for c in unicodedata.normalize("NFKC", text))


def _ascii_digit(character: str) -> str:
    if character.isascii():
        return character
    if character in "\u2212\u2010\u2011\u2012\u2013":
        return "-"
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def _line_after(text: str, start: int) -> str:
    """Return the rest of the line, or the next line that is not blank if the rest is."""
    rest = text[start : start + 4 * MAX_ANSWER_CHARS].lstrip(_WRAPPERS + "\r\n")
    return rest.splitlines()[0].strip(_WRAPPERS) if rest else ""


def last_boxed(text: str) -> str | None:
    """Return the content of the last `\\boxed{...}`."""
    starts = list(_BOXED.finditer(text))
    return _braced(text, starts[-1].end()) if starts else None


def _braced(text: str, begin: int) -> str:
    """Return the text from behind an opening brace to its partner, or to the end."""
    end = min(len(text), begin + 4 * MAX_ANSWER_CHARS)
    depth = 1
    for index in range(begin, end):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return text[begin:end]
