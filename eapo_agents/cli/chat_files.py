"""Files in a question: `@notes.txt` puts the file's text after the question."""

from __future__ import annotations

import re
from pathlib import Path

from eapo_agents.errors import UsageError

MAX_BYTES = 64 * 1024
"""A larger file does not fit the context of the models that this package is for."""
_NAMED = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|(\S+))')
_LITERAL = re.compile(r"(?<!\S)\\@")


def with_files(question: str, folder: Path | None = None) -> tuple[str, list[str]]:
    """Return a question with the text of the files that it names, and a note on each.

    `@"my notes.txt"` names a file with spaces, `\\@name` is the word itself.

    Raises:
        UsageError: a file is missing, not text, or too large.
    """
    texts: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        written = match[1] or match[2]
        name, rest = (written, "") if match[1] else _split(written, folder)
        if name not in texts:
            texts[name] = _text_of(name, folder)
        return f"{name}{rest}"

    asked = _LITERAL.sub("@", _NAMED.sub(named, question))
    for name, text in texts.items():
        asked += f"\n\n{name}:\n{text.rstrip()}"
    return asked, [f"{name}: {len(text):,} characters" for name, text in texts.items()]


def _split(written: str, folder: Path | None) -> tuple[str, str]:
    """Return the file's name and the punctuation behind it, which a name may end with too."""
    name = written
    while name and not _exists(name, folder):
        if name[-1] not in ".,;:!?)":
            return written.rstrip(".,;:!?)") or written, ""
        name = name[:-1]
    return (name, written[len(name) :]) if name else (written, "")


def _place(name: str, folder: Path | None) -> Path:
    try:
        place = Path(name).expanduser()
    except RuntimeError:  # ~nobody
        place = Path(name)
    return (folder or Path()) / place


def _exists(name: str, folder: Path | None) -> bool:
    try:
        return _place(name, folder).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _text_of(name: str, folder: Path | None) -> str:
    file = _place(name, folder)
    how = "write \\@ for the sign itself"
    try:
        if file.is_dir():
            raise UsageError(f"'{name}' is a folder: name a text file after @, or {how}.")
        if not file.is_file():
            raise UsageError(f"There is no file '{name}': name one after @, or {how}.")
        with file.open("rb") as opened:
            found = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"The file '{name}' cannot be read ({reason}): name another.") from error
    if len(found) > MAX_BYTES:
        raise UsageError(
            f"The file '{name}' is larger than {MAX_BYTES // 1024} KiB, the most that goes into a "
            "question: cut out the part that matters."
        )
    try:
        text = found.decode()
    except UnicodeDecodeError:
        text = "\x00"
    if "\x00" in text:
        raise UsageError(f"The file '{name}' is not a text in UTF-8: name a text file.")
    return text
