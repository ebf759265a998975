"""A model's text in a terminal, as it is written: words are not broken at the margin, Markdown and
mathematics are rendered.

A block (a paragraph, a list, a piece of code) is shown as plain text while it grows, and rendered
once it is whole. Text is never markup for the terminal: no HTML, no links that hide their address.
What Markdown would swallow of a calculation (`2*3*4`) stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from eapo_agents.cli.latex import as_line
from eapo_agents.cli.output import safe_text

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.markdown import Markdown

REFRESH_PER_S = 8
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_CODE = re.compile(
    r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)|(`+)(?!`).*?(?<!`)\2(?!`)", re.M | re.S
)
_DISPLAYED = re.compile(r"\$\$(.{1,2000}?)\$\$|\\\[(.{1,2000}?)\\\]", re.DOTALL)
_INLINE = re.compile(r"(?<![\\$\w])\$(?=[^\s$])([^$\n]*?[^\s\\$])\$(?![\d$])|\\\((.{1,2000}?)\\\)")
_BARE = re.compile(r"\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}")
_TIMES = re.compile(r"(?<=[\w)\]}])(\*{1,2})(?=[\w(\[{\\])")
_PLAIN = [
    f"{name}_{end}"
    for name in ("paragraph", "ordered_list", "list_item")
    for end in ("open", "close")
]
"""Parts of Markdown that read the same as they are written."""
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~])")


class Prose:
    """Prints what one speaker writes."""

    def __init__(self, console: Console, speaker: str) -> None:
        self._console = console
        self._speaker = speaker
        self._rendered = console.is_terminal and not console.is_dumb_terminal
        self._waiting = ""
        """What of the text is not printed yet."""
        self._said = False
        self._live: Live | None = None

    def write(self, text: str) -> None:
        """Add a piece of text."""
        if not text:
            return
        if not self._rendered:
            self._label(end="  ")
            self._console.print(Text(safe_text(text)), end="", soft_wrap=True)
            return
        self._waiting += text
        *whole, self._waiting = blocks_of(self._waiting)
        for block in whole:
            self._print(block)
        if self._live is None:
            self._live = Live(
                get_renderable=self._growing,
                console=self._console,
                transient=True,
                refresh_per_second=REFRESH_PER_S,
            )
            self._live.start()

    def end(self) -> None:
        """Print what is left; the next text begins a new line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._rendered:
            self._print(self._waiting)
        elif self._said:
            self._console.print()
        self._waiting, self._said = "", False

    def _label(self, end: str) -> None:
        if not self._said:
            self._console.print(self._speaker, style="bold cyan", end=end)
        self._said = True

    def _print(self, block: str) -> None:
        block = safe_text(block).strip("\n").rstrip()
        if not block:
            return
        if self._said:
            self._console.print()
        plain = is_plain(block)
        self._label(end="  " if plain else "\n")
        self._console.print(Text(block.lstrip()) if plain else rendered(block))

    def _growing(self) -> RenderableType:
        """Return the end of the block that is being written, no higher than the screen."""
        text = Text(style="dim" if not is_plain(self._waiting) else "")
        if not self._said:
            text.append(f"{self._speaker}  ", style="bold cyan")
        text.append(safe_text(self._waiting).strip("\n"))
        lines = text.wrap(self._console, self._console.width)
        return Group(*lines[-max(1, self._console.height - 2) :])


def blocks_of(text: str) -> list[str]:
    """Return the whole blocks of a text, and what may still grow.

    A block ends at an empty line outside of code and displayed mathematics, once a line follows
    that is not indented: an indented one may belong to the item of a list.
    """
    blocks: list[str] = []
    begun, place = 0, 0
    fence = ""
    after_gap = False
    for line in text.splitlines(keepends=True):
        if not fence and after_gap and line.strip() and not line[0].isspace():
            blocks.append(text[begun:place])
            begun = place
        found = _FENCE.match(line)
        if fence:
            closes = found is not None and found[1].startswith(fence) and not line.strip("`~ \n")
            fence = "" if closes or line.strip() == fence else fence
        elif found is not None:
            fence = found[1]
        elif line.strip() in ("$$", "\\["):
            fence = {"$$": "$$", "\\[": "\\]"}[line.strip()]
        after_gap = not fence and not line.strip()
        place += len(line)
    return [*blocks, text[begun:]]


def is_plain(text: str) -> bool:
    """Return whether a text reads the same without being rendered."""
    if _with_mathematics(text) != text.strip("\n"):
        return False
    kinds = {"text", "hardbreak", "inline", *_PLAIN}

    def every(tokens: list[Token]) -> Iterator[str]:
        for token in tokens:
            yield token.type
            yield from every(token.children or [])

    return "\\" not in text and set(every(_parse(text))) <= kinds


def rendered(text: str) -> Markdown:
    """Return Markdown and mathematics for a terminal."""
    from rich.markdown import Markdown

    made = Markdown("", hyperlinks=False, code_theme="ansi_dark")
    made.markup = _with_mathematics(text)
    made.parsed = _parse(made.markup)
    return made


def _parse(text: str) -> list[Token]:
    """Parse Markdown without HTML, in which every line stays a line."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").enable("strikethrough")
    # a link shows its address, and an image is a link: neither may hide where it leads
    tokens = parser.disable(["link", "image", "autolink", "reference", "entity"]).parse(text)
    for token in tokens:
        for child in token.children or []:
            if child.type == "softbreak":
                child.type = "hardbreak"
    return tokens


def _with_mathematics(text: str) -> str:
    """Return Markdown in which formulas are lines of text, and calculations are no emphasis."""
    found, place = "", 0
    text = text.strip("\n")
    for code in _CODE.finditer(text):
        found += _of_words(text[place : code.start()]) + code[0]
        place = code.end()
    return found + _of_words(text[place:])


def _of_words(text: str) -> str:
    """The same for a part without code."""
    kept: list[str] = []

    def keep(line: str) -> str:
        kept.append(_MARKUP.sub(r"\\\1", line))
        return f"\x00{len(kept) - 1}\x00"

    def displayed(match: re.Match[str]) -> str:
        line = as_line(match[1] or match[2])
        return match[0] if line is None else f"\n\n{keep(line)}\n\n"

    def inline(match: re.Match[str]) -> str:
        line = as_line(match[1] or match[2])
        return keep(match[0] if line is None else line)

    def bare(match: re.Match[str]) -> str:
        line = as_line(match[0])
        return keep(match[0] if line is None else line)

    text = _DISPLAYED.sub(displayed, text.replace("\x00", ""))
    text = _BARE.sub(bare, _INLINE.sub(inline, text))
    text = _TIMES.sub(lambda match: "\\*" * len(match[1]), text)
    return re.sub("\x00(\\d+)\x00", lambda match: kept[int(match[1])], text)
