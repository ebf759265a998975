"""Shared parts: all real. The small model is loaded once a session."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A suite that a shell starts in the background ignores Ctrl-C; tests of interrupts send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import Script
from eapo_agents.recipe import Recipe
from eapo_agents.types import PolicyVersion, Problem, Role, Sampling, StopReason, Trajectory, Turn


@pytest.fixture(scope="session")
def needs_sandbox():
    """Skips where code of models cannot be kept in; `.ci/run` installs what is needed."""
    from eapo_agents.errors import SandboxError
    from eapo_agents.sandbox import find_isolation

    try:
        find_isolation("bubblewrap")
    except SandboxError as error:
        pytest.skip(f"bubblewrap is needed: {error}")


@pytest.fixture(scope="session")
def loaded_policy():
    from eapo_agents.policy.models import EMBEDDED, load_policy

    return load_policy(EMBEDDED)


@pytest.fixture(scope="session")
def renderer(loaded_policy) -> ChatRenderer:
    return ChatRenderer(loaded_policy.tokenizer)


@pytest.fixture(scope="session")
def saved_model() -> Path:
    """The small model's plain folder, which is kept in the cache folder."""
    from eapo_agents.policy.models import EMBEDDED, reach_model

    return Path(reach_model(EMBEDDED).loadable())


@pytest.fixture(scope="session")
def shallow_model(saved_model, tmp_path_factory) -> Path:
    """The small model's first two layers of thirty, with its tokenizer: quick, where what is tested
    does not depend on what a model says."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("shallow")
    model = AutoModelForCausalLM.from_pretrained(saved_model, num_hidden_layers=2)
    model.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(saved_model).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def loaded_shallow_policy(shallow_model):
    from eapo_agents.policy.models import load_policy

    return load_policy(str(shallow_model))


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "sampling": {"max_new_tokens": 12},
            "train": {
                "report_to": [],
                "problems_per_step": 2,
                "num_generations": 2,
                "gradient_accumulation_steps": 2,
            },
        }
    )


@pytest.fixture
def agent(loaded_policy, renderer, recipe):
    """A fresh engine over a copy of the weights, so that a test may train them."""
    import copy

    from eapo_agents.policy.transformers_engine import TransformersEngine
    from graphs.agent import Agent, make_pool

    model = copy.deepcopy(loaded_policy.model)
    return Agent(
        recipe=recipe,
        loaded=loaded_policy,
        renderer=renderer,
        engine=TransformersEngine(
            model, name="small", stop_ids=sorted(renderer.stop_ids), base=loaded_policy.base
        ),
        pool=make_pool(recipe),
    )


@pytest.fixture
def scripted(renderer):
    """Makes a chat model that writes what a script says."""
    from eapo_agents.policy.chat_model import PolicyChatModel
    from eapo_agents.policy.scripted import ScriptedEngine

    def make(script: Script | list[str], max_new_tokens: int = 400) -> PolicyChatModel:
        def by_turn(key: RolloutKey, prompt: str) -> str:
            return script[min(key.turn, len(script) - 1)]

        return PolicyChatModel(
            engine=ScriptedEngine(renderer, by_turn if isinstance(script, list) else script),
            renderer=renderer,
            sampling=Sampling(max_new_tokens=max_new_tokens),
        )

    return make


SMALL_TASK = """
from eapo_agents.types import Problem

def problems(split):
    return [
        Problem(id=f"{split}-{n}", question=f"What is {split} {n}?", answer=str(n), grader="exact")
        for n in range(4)
    ]

def reward(answer, problem):
    return 0.0 if answer is None else (1 + sum(map(ord, answer)) % 4) / 4
"""


@pytest.fixture(scope="session")
def small_task():
    """small_task(folder) puts a model of a few thousand weights and a task, small_task, into it."""

    def make(folder: Path) -> None:
        from eapo_agents.policy.fresh import make_model

        texts = ["What is 1 + 2 * 3? Answer: 7 4 5 6 8 9 0"] * 20
        make_model(folder / "model", texts, layers=1, width=16, heads=2, vocabulary=300, seed=0)
        (folder / "small_task.py").write_text(SMALL_TASK)

    return make


SMALL_DISK_KB = 2048


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, half of which is taken by a file `ballast`."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_KB}k", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    (folder / "ballast").write_bytes(b"x" * (SMALL_DISK_KB * 512))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Faulty:
    """A chat endpoint that misbehaves as its path says: tests/experts/faulty_server.py."""

    def __init__(self) -> None:
        script = Path(__file__).parent / "experts" / "faulty_server.py"
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.port = int(self.process.stdout.readline())

    def url(self, fault: str) -> str:
        return f"http://127.0.0.1:{self.port}/{fault}/v1"

    def counts(self) -> dict[str, int]:
        return self._get("counts")

    def last(self) -> dict:
        """What was asked last."""
        return self._get("last")

    def _get(self, name: str) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}") as response:
            return json.load(response)


@pytest.fixture(scope="session")
def faulty():
    server = Faulty()
    yield server
    server.process.kill()


VERSION = PolicyVersion(model="small", base="base", weights="weights", step=0)


def make_problem(number: int = 0) -> Problem:
    return Problem(
        id=f"p{number}",
        question="What is 7 + 3 * 4?",
        answer="19",
        grader="number",
        metadata={"expression": "7 + 3 * 4"},
    )


def make_trajectory(turns: tuple[Turn, ...], **changes: object) -> Trajectory:
    facts: dict[str, object] = {
        "problem": make_problem(),
        "graph": "consult",
        "role": Role.CONSULT,
        "turns": turns,
        "stop_reason": StopReason.ANSWERED,
        "answer": "Answer: 19",
        "reward": 1.0,
        "correct": True,
        "error": None,
        "policy": VERSION,
        "sampling": Sampling(),
        "seed": 0,
        "rollout": 0,
        "global_step": 1,
    }
    return Trajectory(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture
def problem() -> Problem:
    return make_problem()


@pytest.fixture
def trajectory():
    """Makes a trajectory of given turns."""
    return make_trajectory
