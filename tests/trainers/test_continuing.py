"""Training that ends early: after an interrupt its last step is whole, and it continues as if
nothing had been."""

import signal

import pytest

from eapo_agents.policy.fresh import make_model
from eapo_agents.recipe import Recipe
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem
from graphs.agent import load_agent
from trainers.run import train_live

STEPS = 4
PROBLEMS = [
    Problem(id=f"p{n}", question=f"What is {n}?", answer=str(n), grader="exact") for n in range(4)
]
blow = []
"""What the next reward does first."""


def reward(answer, problem):
    """Anything that differs between answers."""
    if blow:
        blow.pop()()
    return 0.0 if answer is None else (1 + sum(map(ord, answer)) % 4) / 4


@pytest.fixture
def train(tmp_path):
    """Trains in a folder; returns the steps that it took and the fingerprint of the weights."""
    texts = ["What is 1 + 2 * 3? Answer: 7 4 5 6 8 9 0"] * 20
    make_model(tmp_path / "model", texts, layers=1, width=16, heads=2, vocabulary=300, seed=0)
    settings = {
        "steps": STEPS,
        "problems_per_step": 2,
        "num_generations": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.01,
        "lora": None,
        "report_to": [],
        "save_steps": 20,
        "dynamic_sampling_retries": 0,
    }
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "policy": {"model": str(tmp_path / "model")},
            "sampling": {"max_new_tokens": 64},
            "task": {"reward": f"{__name__}:reward", "system_prompt": ""},
            "train": settings,
        }
    )

    def run(name, on_step=lambda step, metrics: None, after_step=None):
        agent = load_agent(recipe)
        folder = tmp_path / name
        took = []

        def told(step, metrics):
            took.append(step)
            on_step(step, metrics)

        folder.mkdir(exist_ok=True)
        with TraceStore.open(folder / "t.db", create=True) as store:
            version = agent.engine.policy_version
            store.start_run("r", kind="train", recipe={}, sampling=agent.sampling, policy=version)
            train_live(agent, PROBLEMS, store, folder, "r", told, after_step)
            num = len(list(store.trajectories()))
        assert num == STEPS * 2 * 4
        return took, agent.engine.policy_version.weights

    yield run
    blow.clear()


def interrupt():
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_during_rollouts_drops_the_step_and_saves_the_one_before(train, tmp_path):
    whole = train("whole")

    def blow_in_the_third(step, metrics):
        if step == 2:
            blow.append(interrupt)

    with pytest.raises(KeyboardInterrupt):
        train("cut", blow_in_the_third)
    assert (tmp_path / "cut" / "checkpoint-2").exists()
    took, weights = train("cut")
    assert (took, weights) == ([3, 4], whole[1])


def test_an_interrupt_during_optimization_lets_the_step_end_and_saves_it(train, tmp_path):
    whole = train("whole")

    def blow_at_once(step, metrics):
        if step == 2:
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        train("cut", blow_at_once)
    assert train("cut") == ([3, 4], whole[1])


def test_what_is_done_after_a_step_is_done_again_when_it_was_interrupted(train):
    whole = train("whole")
    told = []

    def after_step(step):
        told.append(step)
        if told.count(2) == 1 and step == 2:
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        train("cut", after_step=after_step)
    assert train("cut", after_step=after_step) == ([3, 4], whole[1])
    assert told == [1, 2, 2, 3, 4]


def test_a_run_that_was_lost_without_a_checkpoint_repeats_its_steps_with_the_stored_rollouts(
    train, tmp_path
):
    whole = train("whole")

    class KilledError(Exception):
        pass

    def die(step, metrics):
        if step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train("cut", die)
    assert not list((tmp_path / "cut").glob("checkpoint-*"))
    took, weights = train("cut")  # it counts the rollouts, too
    assert (took, weights) == ([1, 2, 3, 4], whole[1])


def test_a_finished_run_is_left_as_it_is(train, tmp_path):
    whole = train("whole")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "whole").rglob("*.safetensors")}
    assert train("whole") == ([], whole[1])
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "whole").rglob("*.safetensors")}
