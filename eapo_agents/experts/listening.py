"""Streams a reply to a listener while the expert writes it. Without a listener, as in training,
nothing is streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]
_listener: ContextVar[Listener | None] = ContextVar("eapo_expert_listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Pass each piece of the replies of experts asked within this block to the listener, as far as
    they can stream; None turns streaming off."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener | None:
    """Return the listener of this call."""
    return _listener.get()
