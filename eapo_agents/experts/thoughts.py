"""Separates a model's thought from its answer, where the server that runs it does not.

A thought stands before the answer, between the tags that its family writes, or in the channels of
gpt-oss. A tag inside backticks, a code fence or a sentence is text. Everything here takes time
linear in the text, which a hostile service may make as long as it likes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_WORDS = "think|thinking|thought|thoughts|reasoning|reflection|analysis|seed:think|longcat_think"
_PAIRS = {
    **{f"<{word}>": f"</{word}>" for word in _WORDS.split("|")},
    "[THINK]": "[/THINK]",  # Mistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|START_THINKING|>": "<|END_THINKING|>",  # Cohere
    "<|inner_prefix|>": "<|inner_suffix|>",  # Apertus
    "<|channel>thought": "<channel|>",  # Gemma
}
_OPENING = re.compile("|".join(map(re.escape, _PAIRS)), re.I)
_CLOSING = re.compile("|".join(map(re.escape, _PAIRS.values())), re.I)
_MORE_CLOSING = re.compile(rf"(?:\s{{0,9}}(?:{_CLOSING.pattern}))+", re.I)
_FENCE = re.compile(r"^[ \t]{0,8}(```|~~~)")
_CHANNEL = re.compile(
    r"<\|channel\|>\s{0,4}(\w{1,20})[^<]{0,99}<\|message\|>(.*?)"
    r"(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.S,
)
_BARE_ANALYSIS, _BARE_FINAL = "analysis", "assistantfinal"
"""gpt-oss's channels behind a server that leaves the special tokens out."""
_ANSWER_MARKS = re.compile(r"<\|(?:START|END)_RESPONSE\|>")
_NEAR = 80
"""Characters around a tag that decide whether it stands alone in its line or in a sentence."""


class Said(NamedTuple):
    """What a model wrote."""

    answer: str
    """Empty where the thought never ended."""
    thought: str


def split_thought(text: str) -> Said:
    """Return the answer and the thought; a text without a thought is returned as it is."""
    start = text.lstrip()
    if start.startswith(("<|channel|>", "<|start|>")) and (parts := _CHANNEL.findall(start)):
        return Said(
            _joined((said for channel, said in parts if channel == "final"), "\n"),
            _joined(said for channel, said in parts if channel != "final"),
        )
    if start.startswith(_BARE_ANALYSIS) and _BARE_FINAL in start:
        thought, _, answer = start.removeprefix(_BARE_ANALYSIS).partition(_BARE_FINAL)
        return Said(answer.strip(), thought.strip())
    spans = list(_thoughts(text))
    if not spans:
        return Said(text, "")
    begins = [0, *(after for *_, after in spans)]
    ends = [*(before for before, *_ in spans), len(text)]
    answers = (text[begin:end] for begin, end in zip(begins, ends, strict=True))
    return Said(
        _ANSWER_MARKS.sub("", _joined(answers)).strip(),
        _joined(text[begin:end] for _, begin, end, _ in spans),
    )


def open_thought(prompt: str) -> str:
    """Return the tag with which a prompt ends, so that the completion is a thought at first."""
    end = prompt.rstrip()
    return next((tag for tag in _PAIRS if end.endswith(tag)), "")


def _thoughts(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield where the tag of each thought begins, the thought begins, it ends, its tag ends."""
    in_code = _code(text)
    openings = [tag for tag in _OPENING.finditer(text) if not in_code(tag.start())]
    closings = list(_CLOSING.finditer(text))
    plain = [tag for tag in closings if not in_code(tag.start())]
    after = 0
    # the server's prompt held the opening tag: the thought is what stands before the closing one
    first = openings[0].start() if openings else len(text)
    for tag in plain:
        if tag.start() > first:
            break
        if not _in_a_sentence(text, tag):
            after = _after(text, tag)
            yield 0, 0, tag.start(), after
            break
    # an odd backtick or an open fence can hide every closing tag: then one that stands alone counts
    plain_of = _by_name(plain)
    alone_of = _by_name([tag for tag in closings if _alone(text, tag)])
    for tag in openings:
        if tag.start() < after or not _begins_line(text, max(after, tag.start() - _NEAR), tag):
            continue
        name = _PAIRS[_known(tag.group())].lower()
        end = _next(plain_of.get(name, []), tag.end()) or _next(alone_of.get(name, []), tag.end())
        if end is None:
            yield tag.start(), tag.end(), len(text), len(text)
            return
        after = _after(text, end)
        yield tag.start(), tag.end(), end.start(), after


def _after(text: str, closing: re.Match[str]) -> int:
    """Where a thought's closing tags end: one that was opened twice is closed twice."""
    more = _MORE_CLOSING.match(text, closing.end())
    return more.end() if more else closing.end()


def _by_name(tags: list[re.Match[str]]) -> dict[str, list[re.Match[str]]]:
    found: dict[str, list[re.Match[str]]] = {}
    for tag in tags:
        found.setdefault(tag.group().lower(), []).append(tag)
    return found


def _next(tags: list[re.Match[str]], position: int) -> re.Match[str] | None:
    index = bisect_left(tags, position, key=lambda tag: tag.start())
    return tags[index] if index < len(tags) else None


def _begins_line(text: str, since: int, tag: re.Match[str]) -> bool:
    near = text[since : tag.start()]
    return not near.rpartition("\n")[2].strip() and (len(near) < _NEAR or "\n" in near)


def _around(text: str, tag: re.Match[str]) -> tuple[str, str]:
    """What stands near a tag in its line."""
    before = text[max(0, tag.start() - _NEAR) : tag.start()].rpartition("\n")[2]
    return before, text[tag.end() : tag.end() + _NEAR].partition("\n")[0]


def _alone(text: str, tag: re.Match[str]) -> bool:
    before, after = _around(text, tag)
    return not before.strip() and not after.strip()


def _in_a_sentence(text: str, tag: re.Match[str]) -> bool:
    before, after = _around(text, tag)
    quoted = before.endswith(('"', "'")) and after.startswith(('"', "'"))
    return quoted or (before.strip() != "" and before.endswith(" ") and after.strip() != "")


def _code(text: str) -> Callable[[int], bool]:
    """Find the fenced blocks and, within a line, what backticks enclose."""
    starts: list[int] = []
    ends: list[int] = []
    lines = text.splitlines(keepends=True)
    fences = [match.group(1) if (match := _FENCE.match(line)) else "" for line in lines]
    last = {fence: index for index, fence in enumerate(fences) if fence}
    position, fenced = 0, ""
    for index, (line, fence) in enumerate(zip(lines, fences, strict=True)):
        if fenced:
            ends[-1] = position + len(line)
            fenced = "" if fence == fenced else fenced
        elif fence and last[fence] > index:  # one that is never closed is no block
            starts.append(position)
            ends.append(position + len(line))
            fenced = fence
        else:
            for begin, end in _inline_code(line):
                starts.append(position + begin)
                ends.append(position + end)
        position += len(line)

    def inside(at: int) -> bool:
        index = bisect_left(starts, at + 1) - 1
        return index >= 0 and at < ends[index]

    return inside


def _inline_code(line: str) -> Iterator[tuple[int, int]]:
    runs = [match.span() for match in re.finditer("`+", line)]
    following: dict[int, int] = {}
    closes = [0] * len(runs)
    for index in range(len(runs) - 1, -1, -1):
        length = runs[index][1] - runs[index][0]
        closes[index] = following.get(length, 0)
        following[length] = index
    index = 0
    while index < len(runs):
        if closes[index]:
            yield runs[index][0], runs[closes[index]][1]
            index = closes[index]
        index += 1


def _known(tag: str) -> str:
    return next(known for known in _PAIRS if known.lower() == tag.lower())


def _joined(texts: Iterable[str], between: str = "\n\n") -> str:
    return between.join(stripped for text in texts if (stripped := text.strip()))
