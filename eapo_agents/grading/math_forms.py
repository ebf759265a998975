"""The form of an answer: a value, a list, a set, a tuple or interval, a union, a matrix."""

from __future__ import annotations

import re
from dataclasses import dataclass

from eapo_agents.grading.extraction import ascii_digits

_OPEN, _CLOSE = "([{", ")]}"
_MATRIX = re.compile(
    r"\\begin\{([pb]matrix|array|matrix)\}(?:\{[clr|]*\})?(.*?)\\end\{\1\}", re.DOTALL
)
_VALUE, _BELOW = r"([^<>=]+?)", r"(<|\\le(?![a-z]))"
_BOUND = re.compile(rf"\s*([a-zA-Z])\s*(<|>|\\[lg]e(?![a-z]))\s*{_VALUE}\s*")
_BOUNDS = re.compile(rf"\s*{_VALUE}\s*{_BELOW}\s*([a-zA-Z])\s*{_BELOW}\s*{_VALUE}\s*")
_THOUSANDS_LIKE = re.compile(r"-?\d{1,3}(?:,\d{3})+")


@dataclass(frozen=True, slots=True)
class Form:
    """An answer, split at its outermost commas."""

    kind: str
    """`list`, `set`, `matrix RxC`, or the brackets of a tuple or interval, such as `(]`."""
    parts: tuple[str, ...]


def form_of(text: str) -> Form:
    """Return the form of a rewritten answer."""
    text = re.sub(r"^[a-zA-Z]\s*\\in\s*(?=[\[(\\])", "", text.strip())
    text = re.sub(r"^[a-zA-Z]\s*=\s*(?=\\\{)", "", text)
    text = text.replace("\\langle", "(").replace("\\rangle", ")")
    if found := _MATRIX.fullmatch(text.strip("()[] ") if text.count("\\begin") == 1 else text):
        rows = [r.split("&") for r in found[2].strip().removesuffix("\\\\").split("\\\\")]
        shape = "x".join(str(len(r)) for r in rows)
        return Form(f"matrix {shape}", tuple(c.strip() for r in rows for c in r))
    if len(parts := split(text, "\\cup")) > 1:
        return Form("union", tuple(parts))
    if text.startswith("\\{") and text.endswith("\\}"):
        return Form("set", tuple(_pairs(split(text[2:-2], ","))))
    if len(text) > 2 and text[0] in "([" and text[-1] in ")]" and _closes_at_end(text):
        parts = split(text[1:-1], ",")
        if len(parts) > 1:
            return Form(text[0] + text[-1], tuple(parts))
    return Form("list", tuple(_pairs(split(text, ","))))


def as_list(text: str, size: int) -> Form | None:
    """Return `100,200` as a list where it was read as one number and a list of `size` is wanted."""
    plain = ascii_digits(text).strip(" $.")
    parts = plain.split(",")
    if _THOUSANDS_LIKE.fullmatch(plain) and len(parts) == size:
        return Form("list", tuple(parts))
    return None


def as_union(form: Form) -> Form:
    """Return inequalities of one variable as the union of their intervals."""
    intervals, names = [], set()
    for part in form.parts:
        if match := _BOUND.fullmatch(part):
            names.add(match[1])
            is_open = match[2] in "<>"
            if match[2] in (">", "\\ge"):
                intervals.append(f"{'(' if is_open else '['}{match[3]},\\infty)")
            else:
                intervals.append(f"(-\\infty,{match[3]}{')' if is_open else ']'}")
        elif match := _BOUNDS.fullmatch(part):
            names.add(match[3])
            left, right = "(" if match[2] == "<" else "[", ")" if match[4] == "<" else "]"
            intervals.append(f"{left}{match[1]},{match[5]}{right}")
    done = len(names) == 1 and len(intervals) == len(form.parts) > 1
    return Form("union", tuple(intervals)) if done else form


def split(text: str, separator: str) -> list[str]:
    """Split at a separator outside all brackets."""
    parts, depth, begin, index = [], 0, 0, 0
    while index < len(text):
        character = text[index]
        if character == "\\" and text[index : index + 2] in ("\\{", "\\}"):
            depth += 1 if text[index + 1] == "{" else -1
            index += 2
            continue
        if character in _OPEN:
            depth += 1
        elif character in _CLOSE:
            depth -= 1
        elif depth <= 0 and text.startswith(separator, index):
            parts.append(text[begin:index].strip())
            index += len(separator)
            begin = index
            continue
        index += 1
    parts.append(text[begin:].strip())
    if separator == "," and len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts


def _closes_at_end(text: str) -> bool:
    """Return whether the first bracket's partner is the last character, `(0,1]` included."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0:
            return index == len(text) - 1
    return False


def _pairs(parts: list[str]) -> list[str]:
    """Return `a \\pm b` as its two values."""
    found = []
    for part in parts:
        if part.count("\\pm") == 1 and "\\mp" not in part:
            found += [
                part.replace("\\pm", "+").strip().removeprefix("+"),
                part.replace("\\pm", "-"),
            ]
        else:
            found.append(part)
    return found
