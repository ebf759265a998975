"""The loop that fills a store: a rollout starts the moment another ends, each is kept as it ends.

    plans = [RolloutPlan(run_id="r", key=p.id, problem=p, rollouts=range(8)) for p in problems]
    fill(store, plans, rollouts.run, engine=engine, concurrency=Concurrency("auto", engine))

What the store has is not run again, except rollouts that failed (see `graphs.failures`). Groups
begin in the order of their plans and the oldest is filled first, so that groups become whole early.
Killed at any moment, the same call continues: nothing is half there, nothing is there twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from eapo_agents.errors import BudgetError, EngineLostError
from eapo_agents.policy.engine import Cohort, Engine
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, RolloutGroup, Trajectory
from graphs.concurrency import LOOK_S, Concurrency
from graphs.failures import Retry, runs_again

_IDLE_S = 0.05
"""How often plans are asked for again, where there was none to begin."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """Which rollouts of one group to run."""

    problem: Problem
    rollouts: Sequence[int]
    """Indices within the group."""
    run_id: str = ""
    key: str = ""
    """The group's name within the run."""
    num_solo: int = 0
    """The first so many indices of the group run without experts (graphs of ours only)."""
    solo_first: bool = False
    """Whether those end before the others begin."""
    before: Sequence[Trajectory] = ()
    """Rollouts of the group that have ended already."""


class RunOne(Protocol):
    """Runs one rollout. A rollout that fails is a trajectory with an error."""

    def __call__(
        self, plan: RolloutPlan, rollout: int, ended: Sequence[Trajectory]
    ) -> Coroutine[object, object, Trajectory]:
        """Return the trajectory. `ended` are those of its group that have ended so far."""
        ...


OnTrajectory = Callable[[RolloutPlan, Trajectory], None]
OnGroup = Callable[[RolloutPlan, RolloutGroup], None]


def fill(
    store: TraceStore,
    plans: Iterable[RolloutPlan],
    run: RunOne,
    *,
    engine: Engine,
    concurrency: Concurrency,
    retry: Retry = "infrastructure",
    shared: bool = False,
    stored_as: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory,
    on_trajectory: OnTrajectory = lambda plan, trajectory: None,
    on_group: OnGroup = lambda plan, group: None,
) -> int:
    """Run what the plans want and the store does not have; return how many rollouts ran.

    Args:
        plans: what the store is to hold, whole groups, in the order in which they begin.
        retry: stored rollouts that failed and run again, in the place of what is stored.
        shared: whether other processes fill the same store: a group is claimed when it begins,
            and one that another live process has claimed is left to it.
        stored_as: what is stored of a trajectory, such as one without its problem's text.
        on_trajectory: called with each trajectory, once it is stored.
        on_group: called with each group that became whole: `plan.before` and what ran now.

    Raises:
        BudgetError: the experts' budget is spent. The rollouts that needed no more of it have
            ended and are stored; the others have left nothing.
        EngineLostError: the policy's engine is gone. Again the others have ended.
        KeyboardInterrupt: what has ended is stored.
    """
    missing = _Missing(store, retry, shared)

    def keep(plan: RolloutPlan, trajectory: Trajectory) -> None:
        missing.keep(plan, stored_as(trajectory))
        on_trajectory(plan, trajectory)

    def whole(plan: RolloutPlan, group: RolloutGroup) -> None:
        missing.release(plan)
        on_group(plan, group)

    try:
        return run_to_end(
            run_plans(
                missing.of(plans),
                run,
                engine=engine,
                concurrency=concurrency,
                on_trajectory=keep,
                on_group=whole,
            )
        )
    finally:
        missing.release_all()


async def run_plans(
    plans: Iterable[RolloutPlan | None],
    run: RunOne,
    *,
    engine: Engine,
    concurrency: Concurrency,
    on_trajectory: OnTrajectory = lambda plan, trajectory: None,
    on_group: OnGroup = lambda plan, group: None,
) -> int:
    """Run all of the plans' rollouts; return how many. `fill` does this with a store.

    Args:
        plans: read as places become free. None: there is nothing to begin now, ask again soon.
    """
    running = _Loop(iter(plans), run, engine, concurrency, on_trajectory, on_group)
    watching = asyncio.create_task(concurrency.watch())
    try:
        return await running.to_end()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def run_to_end(work: Coroutine[object, object, T]) -> T:
    """Run a coroutine, where a loop runs already (a notebook) in a separate thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


class _Missing:
    """What of the plans a store does not have, and how it gets there."""

    def __init__(self, store: TraceStore, retry: Retry, shared: bool) -> None:
        self._store = store
        self._retry = retry
        self._shared = shared
        self._failed: set[tuple[str, str, int]] = set()
        self._claimed: set[tuple[str, str]] = set()

    def of(self, plans: Iterable[RolloutPlan]) -> Iterator[RolloutPlan]:
        """Yield plans of what is missing. Claims are made as they are asked for."""
        there: dict[str, dict[str, dict[int, str | None]]] = {}
        for plan in plans:
            if plan.run_id not in there:
                there[plan.run_id] = self._store.outcomes(plan.run_id)
            missing = self._missing(plan, there[plan.run_id])
            if missing.rollouts and self._shared:
                if not self._store.claim(plan.run_id, plan.key):
                    continue
                self._claimed.add((plan.run_id, plan.key))
                # another process may have filled it between the look and the claim
                missing = self._missing(plan, self._store.outcomes(plan.run_id, plan.key))
                if not missing.rollouts:
                    self.release(plan)
            if missing.rollouts:
                yield missing

    def _missing(self, plan: RolloutPlan, there: dict[str, dict[int, str | None]]) -> RolloutPlan:
        errors = there.get(plan.key, {})
        again = {r for r, error in errors.items() if runs_again(error, self._retry)}
        missing = [r for r in plan.rollouts if r not in errors or r in again]
        self._failed |= {(plan.run_id, plan.key, r) for r in again}
        before = plan.before
        if missing and errors and plan.solo_first:
            stored = self._store.trajectories(plan.run_id, group_key=plan.key)
            before = [s.trajectory for s in stored if s.trajectory.rollout not in again]
        return replace(plan, rollouts=missing, before=before)

    def keep(self, plan: RolloutPlan, trajectory: Trajectory) -> None:
        """Commit a trajectory, in the place of one that failed before."""
        failed = (plan.run_id, plan.key, trajectory.rollout) in self._failed
        self._store.append(
            trajectory, run_id=plan.run_id, group_key=plan.key, replaces_failed=failed
        )

    def release(self, plan: RolloutPlan) -> None:
        """Give up the claim of a group."""
        if (plan.run_id, plan.key) in self._claimed:
            self._claimed.remove((plan.run_id, plan.key))
            self._store.release(plan.run_id, plan.key)

    def release_all(self) -> None:
        """Give up what is claimed still, as after an interruption."""
        while self._claimed:
            self._store.release(*self._claimed.pop())


@dataclass(slots=True)
class _Group:
    """A group that has begun and is not whole yet."""

    plan: RolloutPlan
    waiting: deque[int]
    running: set[int] = field(default_factory=set)
    ended: list[Trajectory] = field(default_factory=list)

    def begin(self) -> int | None:
        """Take the next rollout; None where none may begin now."""
        if not self.waiting:
            return None
        num_solo = self.plan.num_solo
        solo_run = any(rollout < num_solo for rollout in self.running)
        if self.plan.solo_first and self.waiting[0] >= num_solo and solo_run:
            return None
        rollout = self.waiting.popleft()
        self.running.add(rollout)
        return rollout

    @property
    def whole(self) -> RolloutGroup:
        found = [*self.plan.before, *self.ended]
        found.sort(key=lambda trajectory: trajectory.rollout)
        return RolloutGroup(problem=self.plan.problem, trajectories_G=tuple(found))


@dataclass(slots=True)
class _Running:
    """A rollout under way."""

    group: _Group
    rollout: int
    cohort: Cohort
    leaving: ExitStack


@dataclass(slots=True)
class _Loop:
    """One call of `run_plans`."""

    plans: Iterator[RolloutPlan | None]
    run: RunOne
    engine: Engine
    concurrency: Concurrency
    on_trajectory: OnTrajectory
    on_group: OnGroup
    open: list[_Group] = field(default_factory=list)
    running: dict[asyncio.Task[Trajectory], _Running] = field(default_factory=dict)
    num_run: int = 0
    all_begun: bool = False
    stopped_by: BudgetError | EngineLostError | None = None
    """Nothing new begins; what runs may end."""

    async def to_end(self) -> int:
        try:
            self._begin()
            while self.running or not (self.all_begun or self.stopped_by):
                if self.running:
                    await asyncio.wait(
                        self.running, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED
                    )
                else:
                    await asyncio.sleep(_IDLE_S)
                ended = self._keep_ended()
                # before those that ended leave: the engine's next batch is to wait for the new ones
                self._begin()
                self._leave(ended)
        except asyncio.CancelledError:
            self._leave(self._keep_ended())
            raise
        finally:
            await self._abandon()
        if self.stopped_by is not None:
            raise self.stopped_by
        return self.num_run

    def _begin(self) -> None:
        """Start rollouts as long as there are places."""
        while len(self.running) < self.concurrency.limit and not self.stopped_by:
            found = self._next()
            if found is None:
                return
            group, rollout = found
            leaving = ExitStack()
            cohort = leaving.enter_context(self.engine.cohort(1))
            work = self.run(group.plan, rollout, (*group.plan.before, *group.ended))
            task = asyncio.create_task(work)
            self.running[task] = _Running(group, rollout, cohort, leaving)

    def _next(self) -> tuple[_Group, int] | None:
        for group in self.open:
            if (rollout := group.begin()) is not None:
                return group, rollout
        while not self.all_begun:
            try:
                plan = next(self.plans)
            except StopIteration:
                self.all_begun = True
                break
            if plan is None:
                break
            group = _Group(plan, deque(sorted(plan.rollouts)))
            if (rollout := group.begin()) is not None:
                self.open.append(group)
                return group, rollout
            self.on_group(plan, group.whole)
        return None

    def _keep_ended(self) -> list[_Running]:
        """Keep what has ended; raise the first error that is not a rollout's own."""
        ended: list[_Running] = []
        failures: list[BaseException] = []
        for task in [task for task in self.running if task.done()]:
            one = self.running.pop(task)
            ended.append(one)
            one.group.running.remove(one.rollout)
            try:
                self._keep(one.group, task.result())
            except (BudgetError, EngineLostError) as error:
                self.stopped_by = self.stopped_by or error
            except BaseException as error:  # raised below, once the others are kept
                failures.append(error)
        if failures:
            self._leave(ended)
            raise failures[0]
        return ended

    def _keep(self, group: _Group, trajectory: Trajectory) -> None:
        group.ended.append(trajectory)
        self.num_run += 1
        self.concurrency.rollout_ended()
        self.on_trajectory(group.plan, trajectory)
        if len(group.ended) == len(group.plan.rollouts):
            self.open.remove(group)
            self.on_group(group.plan, group.whole)

    def _leave(self, ended: Iterable[_Running]) -> None:
        for one in ended:
            one.cohort.finished()
            one.leaving.close()

    async def _abandon(self) -> None:
        """End what still runs, and leave nothing of it."""
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
        self._leave(self.running.values())
        self.running.clear()
