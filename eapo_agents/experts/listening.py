"""Lets somebody watch a reply while the expert writes it. Nobody watches a training run, and then
nothing is streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str], None]
_listener: ContextVar[Listener | None] = ContextVar("eapo_expert_listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Experts asked within this block tell the listener each piece of their replies, where they
    can; None is nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def current_listener() -> Listener | None:
    """Who watches this call."""
    return _listener.get()
