"""The two pipes of a process in the sandbox, kept apart from the code that the process will run."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any, NoReturn


class Channel:
    """Lines of JSON to and from the harness.

    Descriptors 0, 1 and 2 become /dev/null, so that what the sample prints is not a message.
    """

    def __init__(self) -> None:
        self._from = os.fdopen(os.dup(0), "rb")
        self._to = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)

    def read(self) -> dict[str, Any]:
        """Return the next message; end the process when the harness has closed the pipe."""
        line = self._from.readline()
        if not line:
            sys.exit(0)
        message: dict[str, Any] = json.loads(line)
        return message

    def write(self, text: str) -> None:
        """Write one line, or several that were joined."""
        data = memoryview(text.encode("ascii") + b"\n")
        while data:
            data = data[os.write(self._to, data) :]


class NoInput(io.StringIO):
    """A sample's standard input and output: writing does nothing, and reading fails."""

    def read(self, *args: object) -> NoReturn:
        raise OSError

    readline = readlines = read

    def readable(self) -> bool:
        return False

    def write(self, text: str) -> int:
        return len(text)
