"""The loop that fills a store, on rollouts that are sleeps: what starts when, what is kept, what is
run again."""

import asyncio
import heapq
import random
import signal
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from langgraph.graph import START, StateGraph

from eapo_agents.errors import BudgetError, EngineLostError, StoreError
from eapo_agents.policy.engine import EngineLoad
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Problem, RolloutGroup, Sampling
from graphs.concurrency import Concurrency
from graphs.failures import describe, is_infrastructure
from graphs.fill import RolloutPlan, fill, run_plans
from graphs.rollout import Rollouts as GraphRollouts

G = 4


class Engine:
    """Counts who is announced; samples nothing."""

    def __init__(self, max_batch_size=None, load=None):
        self.max_batch_size = max_batch_size
        self.told = load
        self.live = 0
        self.least_while_waiting = None

    policy_version = PolicyVersion(model="m", base="b", weights="w", step=0)

    async def generate(self, *args, **kwargs):
        raise AssertionError("nothing samples here")

    async def load(self):
        return self.told

    @contextmanager
    def cohort(self, num_rollouts):
        engine, left = self, [num_rollouts]

        class Cohort:
            def finished(self):
                engine.live -= left[0]
                left[0] = 0

        self.live += num_rollouts
        try:
            yield Cohort()
        finally:
            Cohort().finished()


def plans_of(num_problems, rollouts=range(G), **changes):
    return [
        RolloutPlan(
            run_id="r",
            key=f"p{n}",
            problem=Problem(id=f"p{n}", question="?", answer="1", grader="exact"),
            rollouts=rollouts,
            **changes,
        )
        for n in range(num_problems)
    ]


class Rollouts:
    """Sleeps, or what `does` does, then gives a trajectory."""

    make = None

    def __init__(self, seconds=lambda plan, rollout: 0.0, does=lambda plan, rollout: None):
        self.seconds, self.does = seconds, does
        self.started, self.ended_before = [], {}
        self.running = self.most = 0

    async def run(self, plan, rollout, ended):
        self.started.append((plan.key, rollout))
        self.ended_before[plan.key, rollout] = sorted(t.rollout for t in ended)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.seconds(plan, rollout))
        finally:
            self.running -= 1
        error = self.does(plan, rollout)
        found = self.make((), problem=plan.problem, rollout=rollout)
        if error is None:
            return found
        return replace(found, error=describe(error), reward=None, correct=None)


@pytest.fixture(autouse=True)
def _trajectories(trajectory, monkeypatch):
    monkeypatch.setattr(Rollouts, "make", staticmethod(trajectory))


@pytest.fixture
def store(tmp_path):
    with TraceStore.open(tmp_path / "t.db", create=True) as opened:
        version = Engine.policy_version
        opened.start_run("r", kind="collect", recipe={}, sampling=Sampling(), policy=version)
        yield opened


def num_moved(store):
    """Failed attempts on record that have given up their places."""
    with sqlite3.connect(store.name) as connection:
        return connection.execute("SELECT count(*) FROM failed_attempts").fetchone()[0]


def run(store, plans, rollouts, at_once=8, engine=None, **options):
    engine = engine or Engine()
    limit = Concurrency(at_once, engine)
    return fill(store, plans, rollouts.run, engine=engine, concurrency=limit, **options)


def test_a_rollout_starts_when_one_ends_and_not_when_a_wave_does(store):
    """One rollout that never ends by itself holds up nobody else."""
    others = asyncio.Event()

    class Slow(Rollouts):
        async def run(self, plan, rollout, ended):
            if (plan.key, rollout) == ("p0", 0):
                await others.wait()  # until all others have ended: a wave would never let them
            found = await super().run(plan, rollout, ended)
            if len(self.started) == 5 * G - 1:
                others.set()
            return found

    rollouts = Slow()
    assert run(store, plans_of(5), rollouts, at_once=2) == 5 * G
    assert rollouts.started[-1] == ("p0", 0)


def test_no_more_run_at_once_than_allowed_and_the_oldest_group_is_filled_first(store):
    rng = random.Random(0)
    rollouts = Rollouts(lambda plan, rollout: rng.uniform(0, 0.01))
    whole = []
    run(store, plans_of(6), rollouts, at_once=3, on_group=lambda plan, _: whole.append(plan.key))
    assert rollouts.most == 3
    assert rollouts.started == sorted(rollouts.started)
    assert sorted(whole) == [f"p{n}" for n in range(6)]


def test_the_engine_is_told_of_a_new_rollout_before_the_ended_one_leaves(store):
    """Its batch would start without the new one in between."""
    engine, seen = Engine(), []
    inner = Rollouts(does=lambda plan, rollout: seen.append(engine.live))
    run(store, plans_of(5), inner, at_once=4, engine=engine)
    assert seen[:-4] == [4] * (5 * G - 4)
    assert engine.live == 0


def test_solo_rollouts_end_before_the_others_begin_and_the_next_group_fills_the_gap(store):
    rollouts = Rollouts(lambda plan, rollout: 0.01)
    run(store, plans_of(2, num_solo=2, solo_first=True), rollouts, at_once=4)
    assert rollouts.started[:4] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert all({0, 1} <= set(rollouts.ended_before[key, r]) for key in ("p0", "p1") for r in (2, 3))


def test_what_is_stored_is_not_run_again_and_tells_the_rest_what_ended(store):
    plans = plans_of(2, num_solo=2, solo_first=True)
    for rollout in (0, 1, 3):
        store.append(Rollouts.make((), rollout=rollout), run_id="r", group_key="p0")
    rollouts = Rollouts()
    groups = {}
    ran = run(store, plans, rollouts, on_group=lambda plan, g: groups.update({plan.key: g}))
    assert ran == 1 + G
    assert rollouts.ended_before["p0", 2] == [0, 1, 3]
    assert [t.rollout for t in groups["p0"].trajectories_G] == [0, 1, 2, 3]
    assert run(store, plans, rollouts) == 0


@pytest.mark.parametrize(("retry", "again"), [("infrastructure", 1), ("all", 2), ("never", 0)])
def test_failed_rollouts_run_again_in_the_place_of_what_is_stored(store, retry, again):
    causes = {1: ConnectionError("down for a minute"), 2: ValueError("no such key")}
    first = Rollouts(does=lambda plan, rollout: causes.get(rollout))
    assert run(store, plans_of(1), first) == G
    assert run(store, plans_of(1), Rollouts(), retry=retry) == again
    errors = [t.error for t in next(store.groups("r")).trajectories_G]
    assert sum(error is None for error in errors) == 2 + again
    assert len(errors) == G
    assert num_moved(store) == again


def test_a_failure_that_stays_is_recorded_each_time(store):
    down = Rollouts(does=lambda plan, rollout: ConnectionError("down"))
    assert [run(store, plans_of(1), down) for _ in range(3)] == [G] * 3
    assert len(list(store.trajectories("r"))) == G
    assert num_moved(store) == 2 * G


class ServiceGone(ConnectionResetError):
    pass


@pytest.mark.parametrize(
    ("error", "infrastructure"),
    [
        (ConnectionError("down"), True),
        (ServiceGone("down: for good"), True),
        (TimeoutError("slow"), True),
        (ExceptionGroup("several", [ServiceGone("down")]), True),
        (ValueError("ConnectionError: not really"), False),
        (RuntimeError("TimeoutError"), False),
    ],
)
def test_the_cause_can_be_read_back_from_the_recorded_error(error, infrastructure):
    assert is_infrastructure(describe(error)) is infrastructure


@pytest.mark.parametrize("kind", [BudgetError, EngineLostError])
def test_where_nothing_more_can_begin_what_runs_may_end(store, kind):
    class Spent(Rollouts):
        async def run(self, plan, rollout, ended):
            if (plan.key, rollout) == ("p1", 0):
                raise kind("it is over")
            return await super().run(plan, rollout, ended)

    spent = Spent(lambda plan, rollout: 0.02)
    with pytest.raises(kind, match="it is over"):
        run(store, plans_of(4), spent, at_once=6)
    kept = {(s.group_key, s.trajectory.rollout) for s in store.trajectories("r")}
    assert kept == set(spent.started)
    assert len(kept) < 4 * G - 1
    assert run(store, plans_of(4), Rollouts()) == 4 * G - len(kept)


def test_a_store_that_cannot_be_written_ends_everything_with_its_one_sentence(store):
    def full(plan, trajectory):
        raise StoreError("The store 't.db' cannot be written: the disk is full.")

    rollouts = Rollouts(lambda plan, rollout: 0.001 if plan.key == "p0" else 60.0)
    with pytest.raises(StoreError, match="the disk is full"):
        run(store, plans_of(2), rollouts, on_trajectory=full)
    assert rollouts.running == 0


@pytest.mark.parametrize("shared", [False, True])
def test_an_interrupt_keeps_what_has_ended_and_leaves_nothing_else(store, shared):
    def does(plan, rollout):
        if (plan.key, rollout) == ("p1", 1):
            signal.raise_signal(signal.SIGINT)

    rollouts = Rollouts(lambda plan, rollout: 0.001 if plan.key < "p2" else 60.0, does)
    engine = Engine()
    with pytest.raises(KeyboardInterrupt):
        run(store, plans_of(4), rollouts, at_once=6, engine=engine, shared=shared)
    assert rollouts.running == engine.live == 0
    kept = sum(map(len, store.have("r").values()))
    assert G <= kept < 4 * G
    assert run(store, plans_of(4), Rollouts(), shared=shared) == 4 * G - kept


def test_a_group_that_another_live_process_has_claimed_is_left_to_it(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(TraceStore, "_owner", "another-host:1:0")
        assert store.claim("r", "p1")
    assert run(store, plans_of(3), Rollouts(), shared=True) == 2 * G
    assert set(store.have("r")) == {"p0", "p2"}


def test_the_same_seed_gives_the_same_groups_however_rollouts_interleave(store):
    found = []
    for seed in range(3):
        rng = random.Random(seed)
        rollouts = Rollouts(lambda plan, rollout, rng=rng: rng.uniform(0, 0.01))
        groups: dict[str, RolloutGroup] = {}

        async def all_of(rollouts=rollouts, groups=groups):
            await run_plans(
                plans_of(6, num_solo=2, solo_first=True),
                rollouts.run,
                engine=Engine(),
                concurrency=Concurrency(5, Engine()),
                on_group=lambda plan, group: groups.update({plan.key: group}),
            )

        asyncio.run(all_of())
        found.append([groups[key] for key in sorted(groups)])
    assert found[0] == found[1] == found[2]


async def test_it_runs_where_a_loop_runs_already_as_in_a_notebook(store):
    assert run(store, plans_of(1), Rollouts()) == G
    assert threading.active_count() < 50


def test_auto_is_the_embedded_engines_batch_and_halves_when_a_service_says_429():
    said = [0]
    limit = Concurrency("auto", Engine(max_batch_size=16), lambda: said[0])
    assert limit.limit == 16
    for _ in range(16):
        limit.rollout_ended()
    assert limit.limit == 16
    said[0] += 5  # a flood is one reason
    for _ in range(4):
        limit.rollout_ended()
        said[0] += 1
    assert limit.limit == 8
    for _ in range(60):
        limit.rollout_ended()
    assert 8 < limit.limit <= 16


def test_a_number_stays_what_it_is():
    limit = Concurrency(5, Engine(max_batch_size=16), lambda: 1)
    limit.rollout_ended()
    limit.engine_load(waiting=100, cache_used=1.0)
    assert limit.limit == 5


@pytest.mark.parametrize(
    ("load", "grows"), [((0, 0.1), True), ((500, 0.1), False), ((0, 0.99), False)]
)
async def test_auto_follows_an_engine_that_tells_its_load(load, grows, monkeypatch):
    monkeypatch.setattr("graphs.concurrency.LOOK_S", 0.001)
    limit = Concurrency("auto", Engine(load=EngineLoad(waiting=load[0], cache_used=load[1])))
    before = limit.limit
    watching = asyncio.create_task(limit.watch())
    while limit.limit == before:
        await asyncio.sleep(0.001)
    watching.cancel()
    assert (limit.limit > before) is grows


class VirtualTime(asyncio.SelectorEventLoop):
    """A loop in which sleeps take no time: schedules are compared, whatever the machine does."""

    def __init__(self):
        super().__init__()
        self.now = 0.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def ideal_s(seconds, at_once):
    """When the last ends, where each starts in order on the place that is free first."""
    free = [0.0] * at_once
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
def test_rollouts_of_any_spread_take_as_long_as_ideal_list_scheduling(sigma):
    rng = random.Random(sigma)
    seconds = {(f"p{n}", r): rng.lognormvariate(0, sigma) for n in range(64) for r in range(G)}
    rollouts = Rollouts(lambda plan, rollout: seconds[plan.key, rollout])
    engine = Engine()
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        runner.run(
            run_plans(
                plans_of(64), rollouts.run, engine=engine, concurrency=Concurrency(32, engine)
            )
        )
        took_s = runner.get_loop().time()
    assert took_s <= 1.01 * ideal_s(seconds.values(), 32)


def test_a_rollout_that_never_ends_is_cut_off_and_recorded_as_that(store, scripted, problem):
    async def hangs(state):
        await asyncio.sleep(3600)

    graph = StateGraph(dict).add_node("hangs", hangs).add_edge(START, "hangs").compile()
    policy = scripted(["Answer: 19"])
    limited = GraphRollouts(
        graph=graph, policy=policy, system_prompt="", seed=0, inputs=lambda p: {}, timeout_s=0.05
    )
    plan = limited.plan(problem, 2, run_id="r", key="p0")
    assert run(store, [plan], limited, engine=policy.engine) == 2
    errors = [stored.trajectory.error for stored in store.trajectories("r")]
    assert (
        errors
        == [
            "RolloutTimeoutError: The rollout took longer than rollouts.rollout_timeout_s (0.05 s)."
        ]
        * 2
    )
    assert not is_infrastructure(errors[0])
