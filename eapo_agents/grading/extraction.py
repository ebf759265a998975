"""Finds the answer in a model's text.

`<answer>` tags hold the answer where there are any. Else strict extraction, for training rewards,
takes the text behind the last `Answer:` on its line, else the content of the last `\\boxed{...}`;
neighbouring boxes are one list, and a box that is not closed is no answer. Lenient extraction, for
benchmarks of models that were not asked for a form, takes every place where an answer is announced,
the last one first; the grader uses the first that it can read. Reasoning in `<think>` tags is never
searched, and a text that is still inside them has no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from eapo_agents.grading.announcements import ANNOUNCED
from eapo_agents.grading.grade import MAX_ANSWER_CHARS

_TAIL_CHARS = 200_000
"""An answer comes at the end: only this much of a longer text is searched."""
_MAX_PLACES = 50
_MARKER = re.compile(r"answer\s*[:\uff1a]", re.IGNORECASE)
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_TAGS = re.compile(r"<((?:final_)?answer)>((?:(?!<\1>).)*?)</\1>", re.IGNORECASE | re.DOTALL)
_BETWEEN_BOXES = re.compile(
    r"""(?:[ \t$.,;]|\\[()\[\],;:! ]|\\q?quad|\n[ \t]*[-*][ \t]|\band\b|\bor\b
    |\\text\s*\{\s*(?:and|or|,)\s*\}|[a-zA-Z](?:_\{?\w\}?)?\s*=)*""",
    re.VERBOSE,
)
_NO_VALUE = re.compile(r"[\s$.\\()\[\]]*")
_NEXT_QUESTION = re.compile(
    r"\n\s*(?:Q|Question|Problem|User|Human|Instruction)\s*\d*\s*[:\uff1a]|\n\s*#{2,3}\s*(?:Q|I|P)\w+"
)
_SUPERSCRIPTS = str.maketrans(
    "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b", "0123456789+-"
)
_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b]+")
_VULGAR = re.compile("(\\d?)([\u00bc-\u00be\u2150-\u215e])")
_WRAPPERS = "*_`~ \t"
_END_OF_TURN = re.compile(
    r"\s*(?:<\|[^|<>\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<\uff5c[^|<>]{1,40}\uff5c>)\Z"
)
"""What ends a turn of a chat model, where a tool keeps it in the text."""
_MAX_ENDS = 20
_SIGNS = {"\u2044": "/", "\u2215": "/", "\u066b": ".", "\u066c": ",", "\u2060": "", "\u200b": ""}
"""Fraction slashes, Arabic decimal and thousands separators, and what nobody sees."""


def extract_answer(text: str) -> str | None:
    """Return the answer in the form that training asks for, or None."""
    text = final_text(text)
    if (tagged := tagged_answer(text)) is not None:
        return tagged
    markers = list(_MARKER.finditer(text))
    line = _line_after(text, markers[-1].end()) if markers else ""
    if markers and not _BOXED.search(line):
        return line[:MAX_ANSWER_CHARS] or None
    boxed = last_boxed(line or text)
    return boxed[:MAX_ANSWER_CHARS].strip() or None if boxed is not None else None


def tagged_answer(text: str) -> str | None:
    """Return what the last `<answer>` tags hold, or the boxes within."""
    found = [inside for m in _TAGS.finditer(text) if (inside := m[2].strip())]
    if not found:
        return None
    boxed = last_boxed(found[-1]) if _BOXED.search(found[-1]) else None
    return (found[-1] if boxed is None else boxed)[:MAX_ANSWER_CHARS].strip()


def before_next_question(text: str) -> str:
    """Return the text without a further question, which base models write behind an answer."""
    found = _NEXT_QUESTION.search(text)
    return text[: found.start()] if found and text[: found.start()].strip() else text


def announced_answers(text: str) -> Iterator[str]:
    """Yield every answer that the text announces, the last one first; none is empty."""
    text = before_next_question(final_text(text))
    if (tagged := tagged_answer(text)) is not None:
        yield tagged
        return
    places = [(m.start(), m.end(), True) for m in _BOXED.finditer(text)]
    places += [(m.start(), m.end(), False) for m in ANNOUNCED.finditer(text)]
    for _, end, boxed in sorted(places, reverse=True)[:_MAX_PLACES]:
        found = _braced(text, end) if boxed else _line_after(text, end)
        if boxed and found is None:
            return  # cut off: it was on its way to another answer
        if found and (found := found[:MAX_ANSWER_CHARS].strip()):
            yield found


def final_text(text: str) -> str:
    """Return the text behind the reasoning, without its first part if it is very long."""
    end = text.rfind("</think>")
    if end >= 0:
        text = text[end + len("</think>") :]
    elif "<think>" in text:
        return ""
    text = text[-_TAIL_CHARS:]
    for _ in range(_MAX_ENDS):
        if (end_of_turn := _END_OF_TURN.search(text, max(0, len(text) - 200))) is None:
            break
        text = text[: end_of_turn.start()]
    return text


def last_line(text: str) -> str | None:
    """Return the last line that is not blank."""
    lines = [line.strip() for line in final_text(text).splitlines() if line.strip("` ")]
    return lines[-1][:MAX_ANSWER_CHARS] if lines else None


def ascii_digits(text: str) -> str:
    """Return the text with digits of every script, full-width forms and odd minus signs as
    ASCII."""
    if text.isascii():
        return text
    text = _VULGAR.sub(_vulgar_fraction, text)
    text = _SUPERSCRIPT.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
    return "".join(_ascii_digit(c) for c in unicodedata.normalize("NFKC", text))


def _vulgar_fraction(match: re.Match[str]) -> str:
    numerator, _, denominator = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
    space = match[1] + " " if match[1] else ""
    return f"{space}{numerator}/{denominator}"


def _ascii_digit(character: str) -> str:
    if character.isascii():
        return character
    if (sign := _SIGNS.get(character)) is not None:
        return sign
    if character in "\u2212\u2010\u2011\u2012\u2013":
        return "-"
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def _line_after(text: str, start: int) -> str:
    """Return the rest of the line, or the next line that is not blank if the rest is."""
    rest = text[start : start + 4 * MAX_ANSWER_CHARS].lstrip(_WRAPPERS + "\r\n")
    line = rest.splitlines()[0].strip(_WRAPPERS) if rest else ""
    if line.endswith(("}", "},")) and line.count("{") < line.count("}"):
        line = line.rstrip("}, ").strip('"')  # JSON
    return line


def last_boxed(text: str) -> str | None:
    """Return the content of the last `\\boxed{...}`, and of the neighbours that form a list with
    it; None where the last one is not closed."""
    starts = list(_BOXED.finditer(text))[-_MAX_PLACES:]
    values: list[str] = []
    begin = len(text)
    for match in reversed(starts):
        inside = _braced(text, match.end())
        if inside is None:
            return None if not values else ", ".join(values)
        end = match.end() + len(inside) + 1
        if values and end > begin and _BOXED.search(inside):
            break  # a box around a box
        gap = text[end:begin]
        if values and not (
            _BETWEEN_BOXES.fullmatch(gap) and not _NO_VALUE.fullmatch(gap.strip("$ "))
        ):
            break
        if inside not in values:
            values.insert(0, inside)
        begin = match.start()
    return ", ".join(values) if values else None


def _braced(text: str, begin: int) -> str | None:
    """Return the text from behind an opening brace to its partner; None without one."""
    end = min(len(text), begin + 4 * MAX_ANSWER_CHARS)
    depth = 1
    for index in range(begin, end):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index]
    return None
