"""The worker against TRL's own parts of its protocol: the queue's dataset and the collator."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict

import numpy as np
import pytest
from accelerate import PartialState

from eapo_agents.errors import EngineError
from eapo_agents.tasks import load_problems
from trainers.async_worker import GraphRolloutWorker

trl_async = pytest.importorskip("trl.experimental.async_grpo.async_grpo_trainer")


def make_worker(agent, **changes) -> GraphRolloutWorker:
    policy = agent.policy(agent.sampling)
    settings = {
        "graph": agent.solo_graph(policy),
        "policy": policy,
        "problems": load_problems("arithmetic", split="train", limit=4, seed=0),
        "num_rollouts": 3,
        "groups_in_flight": 2,
        "seed": 0,
        "system_prompt": "",
        "set_version": agent.engine.weights_changed,
    }
    return GraphRolloutWorker(**{**settings, **changes})


def spread_rewards(group):
    """An untrained model is never right: rewards that differ, so that there are rows."""
    for number, trajectory in enumerate(group.trajectories_G):
        object.__setattr__(trajectory, "reward", float(number % 2))


def test_trls_queue_takes_what_the_worker_samples(agent):
    worker = make_worker(agent, on_group=spread_rewards)
    protocol = trl_async.RolloutWorkerProtocol
    wanted = [name for name in vars(protocol) if not name.startswith("_")]
    assert all(hasattr(worker, name) for name in [*wanted, *protocol.__annotations__])
    metrics = defaultdict(list)
    PartialState(cpu=True)  # TRL's log needs it
    dataset = trl_async.RolloutQueueDataset(
        worker.rollout_buffer,
        model_version_fn=lambda: worker._version,
        check_health_fn=worker.check_health,
        stale_after_s=120.0,
        metrics=metrics,
        max_staleness=1,
        poll_interval_s=0.5,
    )
    worker.update_model_version(1)
    worker.start()
    try:
        samples = list(itertools.islice(dataset, 6))
    finally:
        worker.stop()
    assert agent.engine.policy_version.step == 1
    for sample in samples:
        mask = sample["completion_mask"]
        assert sample["input_ids"].shape == mask.shape == sample["old_log_probs"].shape
        assert set(mask.tolist()) == {0, 1}
        assert (sample["old_log_probs"][mask == 0] == 0).all()
        assert (sample["old_log_probs"][mask == 1] <= 0).all()
        assert np.isfinite(sample["old_log_probs"]).all()
        assert sample["advantage"] != 0
    assert len({sample["group_id"] for sample in samples}) >= 2
    assert "eapo/reward" in worker.metrics_queue.get_nowait()


def test_stale_samples_are_dropped_by_their_version(agent):
    worker = make_worker(agent, on_group=spread_rewards, groups_in_flight=1, max_samples=2)
    worker.start()
    deadline = time.monotonic() + 120
    while worker.rollout_buffer.qsize() < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.stop()
    assert worker.rollout_buffer.get_nowait().model_version == 0


def test_a_worker_that_fails_or_hangs_says_so(agent):
    def fail(group):
        raise ValueError("the store is full")

    worker = make_worker(agent, on_group=fail)
    worker.start()
    worker._thread.join(120)
    with pytest.raises(EngineError, match=r"The rollouts ended: the store is full"):
        worker.check_health(60.0)
    idle = make_worker(agent, max_samples=0)
    idle.start()
    idle.check_health(60.0)
    idle.stop()
    idle._beat -= 100
    with pytest.raises(EngineError, match="No group of rollouts has ended for 100 s"):
        idle.check_health(60.0)
