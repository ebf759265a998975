"""Gathers requests of concurrent rollouts into batches, on a separate thread.

Rollouts of one cohort move in lockstep: a batch starts when every live rollout of the cohort has a
request waiting. That fills batches, and it makes their composition a function of the rollouts
alone, so that the same seed gives the same floating-point sums and the same trajectories. A rollout
held up by a slow expert is not waited for longer than `gather_timeout_s`; repeatability to the last
bit then depends on timing.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from eapo_agents.errors import EngineError
from eapo_agents.policy.engine import Completion, RolloutKey
from eapo_agents.types import Sampling

IDLE_GATHER_S = 0.005
"""How long a lone request, outside any cohort, waits for company."""
IDLE_END_S = 1.0
"""How long the worker waits for a request. Then it ends, and the next request starts another: a
thread that waited on would keep its engine, and so the model, alive for good."""
STOP_S = 30.0
"""How long the end of the program waits for the batch under way to notice it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to sample."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    key: RolloutKey
    on_token: Callable[[int], None] | None = None
    """Told each token as it is sampled, on the worker's thread."""
    abandoned: threading.Event = field(default_factory=threading.Event)
    """Set when nobody waits for it."""

    @property
    def order(self) -> tuple[str, int, int, int, int, int]:
        """Sorts a batch independently of arrival."""
        key = self.key
        return (key.problem_id, key.step, key.rollout, key.turn, key.branch, key.seed)


@dataclass(slots=True)
class _Cohort:
    batcher: Batcher
    live: int

    def finished(self) -> None:
        self.batcher._release(self, 1)


class Batcher:
    """Runs `run_batch` on a worker thread over batches of at most `max_batch_size` requests."""

    def __init__(
        self,
        run_batch: Callable[[Sequence[Request]], list[Completion]],
        *,
        max_batch_size: int,
        gather_timeout_s: float,
    ) -> None:
        self._run_batch = run_batch
        self._max_batch_size = max_batch_size
        self._gather_timeout_s = gather_timeout_s
        self._waiting: list[tuple[Request, concurrent.futures.Future[Completion]]] = []
        self._live = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.stopping = False
        """Set when the program ends: whoever runs a batch should give it up."""
        atexit.register(_stop, weakref.ref(self))

    async def submit(self, request: Request) -> Completion:
        """Waits for its turn in a batch; cancelling drops the request, or stops its sampling."""
        future: concurrent.futures.Future[Completion] = concurrent.futures.Future()
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="eapo-engine", daemon=True)
                self._thread.start()
            self._waiting.append((request, future))
            self._changed.notify_all()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            request.abandoned.set()
            raise

    @property
    def num_live(self) -> int:
        """Rollouts that may still ask for something."""
        return self._live

    @contextmanager
    def cohort(self, num_rollouts: int) -> Iterator[_Cohort]:
        """Counts `num_rollouts` as live until each has called `finished` or the block ends."""
        cohort = _Cohort(batcher=self, live=num_rollouts)
        with self._changed:
            self._live += num_rollouts
        try:
            yield cohort
        finally:
            self._release(cohort, cohort.live)

    def _release(self, cohort: _Cohort, num_rollouts: int) -> None:
        with self._changed:
            num_rollouts = min(num_rollouts, cohort.live)
            cohort.live -= num_rollouts
            self._live -= num_rollouts
            self._changed.notify_all()

    def _gather(self) -> list[tuple[Request, concurrent.futures.Future[Completion]]] | None:
        """Return what waits, once it is a batch; None where nothing came and the thread ends."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting or self.stopping, IDLE_END_S):
                self._thread = None  # under the lock: whoever submits next sees it
                return None
            deadline = time.monotonic() + (self._gather_timeout_s if self._live else IDLE_GATHER_S)
            while not self.stopping and (len(self._waiting) < self._live or not self._live):
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    break
                self._changed.wait(remaining_s)
            gathered, self._waiting = self._waiting, []
            return gathered

    def _loop(self) -> None:
        while not self.stopping:
            waiting = self._gather()
            if waiting is None:
                return
            gathered = sorted(waiting, key=lambda pair: pair[0].order)
            for start in range(0, len(gathered), self._max_batch_size):
                chunk = [
                    pair
                    for pair in gathered[start : start + self._max_batch_size]
                    if pair[1].set_running_or_notify_cancel()
                ]
                if chunk:
                    self._run_chunk(chunk)

    def stop(self) -> None:
        """Ends the worker thread. Tearing the interpreter down while it is inside native code would
        abort the process."""
        with self._changed:
            self.stopping = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None:
            thread.join(STOP_S)

    def _run_chunk(
        self, chunk: list[tuple[Request, concurrent.futures.Future[Completion]]]
    ) -> None:
        try:
            completions = self._run_batch([request for request, _ in chunk])
        except Exception as error:  # the thread must live on: the error belongs to the callers
            wrapped = EngineError(f"The policy engine failed on {len(chunk)} requests: {error!r}.")
            wrapped.__cause__ = error
            for _, future in chunk:
                future.set_exception(wrapped)
            return
        for (request, future), completion in zip(chunk, completions, strict=True):
            if not request.abandoned.is_set():
                future.set_result(completion)


def _stop(batcher_ref: weakref.ref[Batcher]) -> None:
    batcher = batcher_ref()
    if batcher is not None:
        batcher.stop()
