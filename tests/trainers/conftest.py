"""The small model's first layers, and a fresh, tiny model, each made once a session."""

import signal
from contextlib import nullcontext

import pytest

from eapo_agents.policy.fresh import make_model
from eapo_agents.recipe_file import load_recipe
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from graphs.agent import load_agent
from trainers.run import train_live
from trainers.warm_start_episodes import script_texts

SMALL = [
    "train.steps=2",
    "train.problems_per_step=4",
    "train.minibatches_per_step=1",
    "train.warmup_steps=0",
    "train.save_steps=1",
    "sampling.max_new_tokens=6",
]


@pytest.fixture(scope="session")
def loaded_policy(loaded_shallow_policy):
    return loaded_shallow_policy


@pytest.fixture(scope="session")
def eight_problems():
    return load_problems("arithmetic", split="train", limit=8, seed=0)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory, eight_problems):
    folder = tmp_path_factory.mktemp("small")
    texts = script_texts(load_recipe("scale-model"), eight_problems)
    make_model(folder, texts, layers=1, width=32, heads=2, vocabulary=320, seed=0)
    return folder


@pytest.fixture
def agent_of(small_model):
    """agent_of(*settings, arm="") -> an agent of the scale model's recipe, smaller."""

    def make(*settings: str, arm: str = ""):
        overrides = [f"policy.model={small_model}", *SMALL, *settings]
        return load_agent(load_recipe(f"scale-model+{arm}" if arm else "scale-model", overrides))

    return make


@pytest.fixture
def live():
    """live(agent, problems, folder) -> (metrics of each step, trajectories) of a live training,
    which an interrupt ends after step `until`."""

    def run(agent, problems, folder, until: int | None = None, run_id: str = "train"):
        agent.pool.open(folder / "e.db", run_id)
        told = []
        with TraceStore.open(folder / "t.db", create=True) as store:
            store.start_run(
                run_id,
                kind="train",
                recipe={},
                sampling=agent.sampling,
                policy=agent.engine.policy_version,
            )

            def on_step(step, metrics):
                told.append(metrics)
                if step == until:
                    signal.raise_signal(signal.SIGINT)

            with nullcontext() if until is None else pytest.raises(KeyboardInterrupt):
                train_live(agent, problems, store, folder / "out", run_id, on_step)
            return told, [s.trajectory for s in store.trajectories()]

    return run
