"""How many rollouts run at once: a number, or what the engine and the services can take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from eapo_agents.policy.engine import Engine, MeasuredEngine

Wanted = int | Literal["auto"]
"""`rollouts.concurrency` of a recipe."""
LOOK_S = 1.0
"""How often an engine is asked how busy it is."""
FIRST, MOST = 64, 1024
"""Where `auto` begins and ends for an engine that tells no size."""
FULL = 0.95
"""Share of the engine's cache that is as good as all of it: more rollouts only push others out."""
ROOMY = 0.8
"""Share of the cache below which there is room for more rollouts."""


class Concurrency:
    """The number of rollouts that may run at once, now."""

    def __init__(
        self,
        wanted: Wanted,
        engine: Engine,
        rate_limited: Callable[[], int] = lambda: 0,
    ) -> None:
        """Begin with `wanted`, or for `auto` with the engine's batch size where it has one.

        Args:
            rate_limited: how often a service has said so far that it gets too many requests
                (HTTP 429). Each time halves the number, and it then grows again by one for each
                round of rollouts.
        """
        size = engine.max_batch_size if isinstance(engine, MeasuredEngine) else None
        self._adapts = wanted == "auto"
        self._measured = engine if isinstance(engine, MeasuredEngine) and size is None else None
        self._limit = float(FIRST if wanted == "auto" else wanted)
        self._most = MOST
        if wanted == "auto" and size is not None:
            self._limit = self._most = size
        elif wanted == "auto" and self._measured is None:
            self._most = FIRST
        self._rate_limited = rate_limited
        self._seen = rate_limited()
        self._ended_since = 0

    @property
    def limit(self) -> int:
        """Rollouts that may run at once; at least 1."""
        return int(self._limit)

    def rollout_ended(self) -> None:
        """Take note that a rollout ended, and of what the services said meanwhile."""
        if not self._adapts:
            return
        self._ended_since += 1
        said, self._seen = self._rate_limited() - self._seen, self._rate_limited()
        if said > 0 and self._ended_since >= self.limit // 2:
            # one flood is one reason: those that ran with it say the same
            self._set(self._limit / 2)
        elif said == 0 and self._measured is None:
            self._set(self._limit + 1 / self._limit)

    async def watch(self) -> None:
        """Follow the load of an engine that tells it, until cancelled."""
        while self._adapts and self._measured is not None:
            await asyncio.sleep(LOOK_S)
            load = await self._measured.load()
            if load is not None:
                self.engine_load(load.waiting, load.cache_used)

    def engine_load(self, waiting: int, cache_used: float) -> None:
        """Shrink where requests wait or the cache is nearly full; grow where there is room."""
        if not self._adapts:
            return
        if waiting > self._limit / 10 or cache_used > FULL:
            self._set(self._limit * 0.8)
        elif waiting == 0 and cache_used < ROOMY:
            self._set(self._limit * 1.25)

    def _set(self, limit: float) -> None:
        if limit < self._limit:
            self._ended_since = 0
        self._limit = min(max(1.0, limit), float(self._most))
