"""The keyboard while an answer is written: what is typed is kept for the next question, Ctrl-C
stops the turn and Ctrl-Z the program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prompt_toolkit.input import Input
    from prompt_toolkit.key_binding import KeyPress


class Typing:
    """Keeps the keys that are pressed while no prompt is open."""

    def __init__(self, source: Input) -> None:
        self._source = source
        self._keys: list[KeyPress] = []

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Collect what is typed within this block; it is not echoed into the answer."""
        if sys.platform == "win32":
            yield
            return
        import termios

        terminal = self._source.fileno()
        before = termios.tcgetattr(terminal)
        loop = asyncio.get_running_loop()

        def quiet() -> None:
            if os.tcgetpgrp(terminal) != os.getpgrp():
                return  # continued in the background: the terminal is somebody else's
            now = termios.tcgetattr(terminal)
            now[0] &= ~termios.ICRNL  # a prompt takes Enter as it comes
            now[3] &= ~(termios.ECHO | termios.ICANON)  # signals stay
            termios.tcsetattr(terminal, termios.TCSANOW, now)

        quiet()
        loop.add_signal_handler(signal.SIGCONT, quiet)  # after Ctrl-Z and `fg`
        try:
            with self._source.attach(self._read):
                yield
        finally:
            loop.remove_signal_handler(signal.SIGCONT)
            self._read()
            self._keys += _typed(self._source.flush_keys())
            termios.tcsetattr(terminal, termios.TCSANOW, before)

    def set_aside(self) -> None:
        """Keep what waits for the next prompt for a later one: a question that was typed ahead
        must not become the answer to another prompt."""
        from prompt_toolkit.input.typeahead import get_typeahead

        self._keys += _typed(get_typeahead(self._source))

    def give(self) -> None:
        """Hand what was kept to the next prompt."""
        from prompt_toolkit.input.typeahead import store_typeahead

        keys, self._keys = self._keys, []
        if keys:
            store_typeahead(self._source, keys)

    def _read(self) -> None:
        self._keys += _typed(self._source.read_keys())


def _typed(keys: list[KeyPress]) -> list[KeyPress]:
    """Return the keys of a person: a terminal also answers where its cursor stands."""
    from prompt_toolkit.keys import Keys

    return [key for key in keys if key.key != Keys.CPRResponse]
