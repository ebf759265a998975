"""Rollouts beside training: a worker for TRL's `AsyncGRPOTrainer` that runs graphs.

    AsyncGRPOTrainer(model=..., rollout_worker=GraphRolloutWorker(...), args=AsyncGRPOConfig(...))

The trainer moves its weights to the vLLM server by its own means (NCCL, or an adapter for each
version) and tells the worker the version's number; `set_version=engine.follow_trl` finds them under
TRL's names. TRL's trainer needs a GPU; the worker has been run on a CPU, against TRL's own queue
(`tests/trainers/test_async_worker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from eapo_agents.errors import EngineError
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.rewards import Reward, score_text
from eapo_agents.schedules import counter_key
from eapo_agents.types import Problem, RolloutGroup, Trajectory
from graphs.concurrency import Concurrency
from graphs.fill import RolloutPlan, run_plans
from graphs.groups import NO_ASSISTANCE, Assistance
from graphs.rollout import AnyGraph, Rollouts
from trainers.advantages import group_rows
from trainers.rows import TrainingRow
from trainers.sources import group_metrics

if TYPE_CHECKING:
    from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

_IDLE_S = 0.05


@dataclass(slots=True, kw_only=True)
class GraphRolloutWorker:
    """TRL's `RolloutWorkerProtocol` over one of our graphs, or a user's."""

    graph: AnyGraph
    policy: PolicyChatModel
    problems: Sequence[Problem]
    num_rollouts: int
    """G: trajectories per problem."""
    groups_in_flight: int
    """So many groups' rollouts run at once."""
    seed: int
    system_prompt: str
    set_version: Callable[[int], None]
    """Told each new version before rollouts with it begin."""
    reward: Reward = score_text
    assistance: Assistance = NO_ASSISTANCE
    advantages_of: Callable[[RolloutGroup], Sequence[float | None]] | None = None
    """Group -> one advantage per rollout, such as `Objective.advantages`; GRPO's by default."""
    on_group: Callable[[RolloutGroup], None] = lambda group: None
    """Called with each group, to log it."""
    max_samples: int = 4096
    """Rows that wait for the trainer before rollouts pause."""
    rollout_buffer: queue.Queue[RolloutSample] = field(init=False)
    metrics_queue: queue.Queue[dict[str, float]] = field(init=False)
    _version: int = 0
    _begun: dict[str, int] = field(default_factory=dict)
    """Number of a group under way -> the version with which it began."""
    _beat: float = 0.0
    _failure: BaseException | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.rollout_buffer = queue.Queue()
        self.metrics_queue = queue.Queue()

    def start(self) -> None:
        """Begin to run groups, in a separate thread."""
        if self._thread is None:
            self._beat = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="eapo-rollouts", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End it; rollouts under way are given up."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def update_model_version(self, model_version: int) -> None:
        """Let groups that begin from now on be of this version."""
        self._version = model_version
        self.set_version(model_version)

    def check_health(self, stale_after_s: float) -> None:
        """Raise EngineError where no rollout can be expected any longer."""
        if self._failure is not None:
            raise EngineError(f"The rollouts ended: {self._failure}") from self._failure
        silent_s = time.monotonic() - self._beat
        if self._thread is not None and silent_s > stale_after_s:
            raise EngineError(
                f"No group of rollouts has ended for {silent_s:.0f} s, and {stale_after_s:.0f} are "
                "allowed: look at the policy's servers and at the experts."
            )

    def _run(self) -> None:
        try:
            asyncio.run(self._until_stopped())
        except BaseException as error:  # check_health raises it, in the trainer's thread
            self._failure = error

    async def _until_stopped(self) -> None:
        running = asyncio.create_task(
            run_plans(
                self._plans(),
                self._one,
                engine=self.policy.engine,
                concurrency=Concurrency(
                    self.groups_in_flight * self.num_rollouts, self.policy.engine
                ),
                on_group=self._whole,
            )
        )
        while not self._stopped.is_set() and not running.done():
            await asyncio.wait([running], timeout=_IDLE_S)
        if running.done():
            running.result()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    def _plans(self) -> Iterator[RolloutPlan | None]:
        """Yield groups without end; None while the trainer has enough rows."""
        for number, problem in self._order():
            while self.rollout_buffer.qsize() >= self.max_samples:
                self._beat = time.monotonic()
                yield None
            self._begun[str(number)] = self._version
            yield RolloutPlan(
                problem=problem,
                rollouts=range(self.num_rollouts),
                key=str(number),
                num_solo=self.assistance.num_solo(self.num_rollouts),
                solo_first=self.assistance.solo_first,
            )

    def _order(self) -> Iterator[tuple[int, Problem]]:
        """Passes over the problems, each in its own order; numbered."""
        number = itertools.count()
        for epoch in itertools.count():
            key = [counter_key("epoch", self.seed, epoch, p.id) for p in self.problems]
            for _, problem in sorted(
                zip(key, self.problems, strict=True), key=lambda pair: pair[0]
            ):
                yield next(number), problem

    async def _one(
        self, plan: RolloutPlan, rollout: int, ended: Sequence[Trajectory]
    ) -> Trajectory:
        rollouts = Rollouts(
            graph=self.graph,
            policy=self.policy,
            system_prompt=self.system_prompt,
            seed=counter_key("group", self.seed, int(plan.key)) >> 96,
            global_step=self._begun[plan.key] + 1,
            reward=self.reward,
            assistance=self.assistance,
        )
        return await rollouts.run(plan, rollout, ended)

    def _whole(self, plan: RolloutPlan, group: RolloutGroup) -> None:
        self._beat = time.monotonic()
        number, version = int(plan.key), self._begun.pop(plan.key)
        self.on_group(group)
        told = group_metrics([group])
        self.metrics_queue.put({f"eapo/{name}": float(value) for name, value in told.items()})
        now = time.time()
        for row in group_rows([group], self.advantages_of):
            self.rollout_buffer.put(_sample(row, number, version, now))


def _sample(row: TrainingRow, number: int, version: int, now: float) -> RolloutSample:
    """Return a row as TRL's trainer takes it: without a weight, which the advantage carries."""
    from trl.experimental.async_grpo.async_rollout_worker import RolloutSample

    num_prompt = len(row.prompt_ids)
    assert row.logprobs_T is not None
    return RolloutSample(
        prompt=[{"role": "user", "content": row.trajectory.problem.question}],
        completion=[],
        input_ids=np.array([*row.prompt_ids, *row.completion_ids_T], dtype=np.int64),
        completion_mask=np.array([0] * num_prompt + list(row.mask_T), dtype=np.int64),
        old_log_probs=np.array([0.0] * num_prompt + list(row.logprobs_T), dtype=np.float32),
        advantage=row.advantage * row.weight,
        model_version=version,
        group_id=number,
        metrics={"reward": float(row.trajectory.reward or 0.0)},
        enqueued_at=now,
    )
