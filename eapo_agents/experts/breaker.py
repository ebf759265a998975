"""A circuit breaker: an endpoint that keeps failing gets no calls for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 10
"""Failures in a row that open the circuit."""
COOLDOWN_S = 30.0


class CircuitBreaker:
    """Closed until `failures` calls in a row fail, then open for `cooldown_s`. After that one call
    may try, and its end closes or opens the circuit again."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        cooldown_s: float = COOLDOWN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._in_a_row = 0
        self._opened_at: float | None = None
        self._probing = False

    def open_for_s(self) -> float:
        """Return the seconds until a call may be made; 0 if one may be made now."""
        if self._opened_at is None:
            return 0.0
        left_s = self._opened_at + self._cooldown_s - self._clock()
        # while one call tries, all others wait: nobody knows yet whether the endpoint works
        return max(left_s, self._cooldown_s) if self._probing else max(left_s, 0.0)

    def start(self) -> None:
        """Note that a call begins. On an open circuit this call is the one that tries."""
        self._probing = self._opened_at is not None

    def succeeded(self) -> None:
        """Note that the call was answered: close the circuit."""
        self._in_a_row, self._opened_at, self._probing = 0, None, False

    def failed(self, *, at_once: bool = False) -> None:
        """Note that the call failed; `at_once` opens the circuit whatever came before."""
        self._in_a_row += 1
        if at_once or self._probing or self._in_a_row >= self._limit:
            self._opened_at = self._clock()
        self._probing = False

    def abandoned(self) -> None:
        """Note that the call ended and says nothing about the endpoint."""
        self._probing = False
