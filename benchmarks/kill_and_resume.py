"""Ends commands at random moments, gives them again, and compares with an unbroken run.

    python benchmarks/kill_and_resume.py [--moments 20] [--commands collect,train]

Every other moment is a kill -9, the others are a Ctrl-C. A tiny fresh model, a task of its own.
What is compared: every rollout is there once, with the tokens of the unbroken run; the figures of
each training step; the number of expert calls that were paid for. One JSON line per command.
Commands are forked from this process, which has the imports; the jobs of a study are not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from eapo_agents.policy.fresh import make_model
from eapo_agents.store import TraceStore

TASK = '''
from eapo_agents.types import Problem


def problems(split):
    return [
        Problem(id=f"{split}-{n}", question=f"{split}: {n} + 2?", answer=str(n + 2), grader="exact")
        for n in range(24)
    ]


def reward(answer, problem):
    """Anything that differs between answers."""
    return 0.0 if answer is None else (1 + sum(map(ord, answer)) % 4) / 4
'''
RECIPE: dict[str, object] = {
    "name": "killed",
    "sampling": {"max_new_tokens": 96},
    "task": {"name": "kill_task:problems", "reward": "kill_task:reward", "system_prompt": ""},
    "consult": {
        "experts": {
            "helper": {
                "kind": "scripted",
                "stored": True,
                "options": {"default": "It is 7.", "delay_s": 0.02},
            }
        }
    },
    "rollouts": {"concurrency": 4},
    "collect": {"problems": 24, "num_generations": 4},
    "eval": {"problems": 24, "samples": 3, "max_new_tokens": 96},
    "train": {
        "steps": 12,
        "problems_per_step": 4,
        "num_generations": 4,
        "minibatches_per_step": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 0.003,
        "lora": None,
        "report_to": [],
        "save_steps": 5,
        "dynamic_sampling_retries": 1,
    },
}
CLOSE = 1e-3
"""Figures of a step may differ by so much: what is in a batch with a rollout moves its logprobs in
the last bits."""


def command_of(name: str, out: Path) -> list[str]:
    """Return the words of a command that works in `out`."""
    recipe = ["--recipe", str(out.parent / f"{name}.yaml")]
    match name:
        case "collect":
            return ["collect", *recipe, "--store", str(out / "traces.db")]
        case "eval":
            return ["eval", *recipe, "--out", str(out)]
        case "study":
            words = ["--arms", "self-exploration", "--seeds", "1", "--jobs", "1"]
            return ["study", recipe[1], *words, "--out", str(out)]
        case _:
            return ["train", *recipe, "--out", str(out)]


def make_workplace(folder: Path) -> None:
    """Write the model, the task and a recipe for each command."""
    texts = ["What is 1 + 2 * 3? Answer: 7 4 5 6 8 9 0"] * 20
    make_model(folder / "model", texts, layers=1, width=16, heads=2, vocabulary=300, seed=0)
    (folder / "kill_task.py").write_text(TASK)
    data = {**RECIPE, "policy": {"model": str(folder / "model")}}
    train = dict(RECIPE["train"])  # type: ignore[call-overload]
    for name in ("collect", "eval", "train", "study"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data))
    distillation = {**train, "method": "distillation", "num_generations": 2, "expert_calls": 30}
    distillation.pop("dynamic_sampling_retries")
    data = {**data, "name": "taught", "train": distillation}
    (folder / "distillation.yaml").write_text(yaml.safe_dump(data))


def start(words: Sequence[str], folder: Path) -> int:
    """Fork a process that runs the command; return its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    # a shell starts background jobs deaf to Ctrl-C, and so would be what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["eapo", *words]
    status = 1
    try:
        from eapo_agents.cli.main import main

        main()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def finish(child: int) -> int:
    """Wait for a process; return its exit status, negative for a signal."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@dataclass(slots=True)
class Left:
    """What a run left, as far as it must not depend on when it was ended."""

    tokens: dict[tuple[str, str, int], tuple[int, ...]] = field(default_factory=dict)
    """(run, group, rollout) -> sampled tokens, of all stores of the folder."""
    twice: int = 0
    steps: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    paid: int = 0
    """Replies of experts that were paid for."""
    weights: str | None = None

    @classmethod
    def of(cls, out: Path) -> Left:
        """Read a run's folder."""
        left = cls()
        for file in sorted(out.rglob("traces.db")):
            with TraceStore.open(file) as store:
                for stored in store.trajectories():
                    t = stored.trajectory
                    place = (str(file.parent.relative_to(out)), stored.group_key)
                    # evaluations name the weights, which may differ in their last bits
                    run = stored.run_id.rpartition("/")[0] or stored.run_id
                    key = (f"{place[0]}/{run}", place[1], t.rollout)
                    left.twice += key in left.tokens and "/eval" not in key[0]
                    left.tokens[key] = tuple(i for turn in t.turns for i in turn.completion_ids)
        for file in sorted(out.rglob("steps.jsonl")):
            by_step = {}
            for line in file.read_text().splitlines():
                step = json.loads(line)
                by_step[step["step"]] = step
            left.steps[str(file.relative_to(out))] = [by_step[s] for s in sorted(by_step)]
        for file in sorted(out.rglob("experts.db")):
            with sqlite3.connect(file) as ledger:
                left.paid += ledger.execute(
                    "SELECT count(*) FROM calls WHERE status = 'accepted' AND NOT cached"
                ).fetchone()[0]
        result = out / "train.json"
        if result.exists():
            left.weights = json.loads(result.read_text())["weights"]
        return left

    def differences(self, other: Left) -> list[str]:
        """Return what is otherwise than in the unbroken run `other`."""
        found = []
        if self.twice:
            found.append(f"{self.twice} rollouts twice")
        if lost := other.tokens.keys() - self.tokens.keys():
            found.append(f"{len(lost)} rollouts lost")
        if more := self.tokens.keys() - other.tokens.keys():
            found.append(f"{len(more)} rollouts too many")
        same = self.tokens.keys() & other.tokens.keys()
        if changed := [key for key in same if self.tokens[key] != other.tokens[key]]:
            found.append(f"{len(changed)} rollouts with other tokens")
        if self.paid != other.paid:
            found.append(f"{self.paid} calls paid, {other.paid} unbroken")
        for file, steps in other.steps.items():
            if not _alike(self.steps.get(file, []), steps):
                found.append(f"other figures in {file}")
        return found


def _alike(steps: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> bool:
    return len(steps) == len(others) and all(
        one.keys() == other.keys()
        and all(math.isclose(one[k], other[k], rel_tol=CLOSE, abs_tol=CLOSE) for k in one)
        for one, other in zip(steps, others, strict=True)
    )


def run_whole(name: str, folder: Path) -> tuple[Left, float]:
    """Run a command to its end; return what it left and the seconds that it took."""
    out = folder / "unbroken"
    started = time.monotonic()
    if finish(start(command_of(name, out), folder)):
        raise SystemExit(f"The unbroken {name} failed: see {folder / 'log.txt'}.")
    seconds = time.monotonic() - started
    left = Left.of(out)
    shutil.rmtree(out)
    return left, seconds


def try_command(name: str, folder: Path, moments: int, rng: random.Random) -> dict[str, object]:
    """End a command at random moments and compare; return the figures."""
    unbroken, seconds = run_whole(name, folder)  # the first pays for imports
    same, seconds = run_whole(name, folder)
    problems = [f"unbroken: {found}" for found in same.differences(unbroken)]
    same_weights = 0
    for moment in range(moments):
        out = folder / "ended"
        blow = signal.SIGINT if moment % 2 else signal.SIGKILL
        while True:
            child = start(command_of(name, out), folder)
            time.sleep(rng.uniform(0.05, 0.9) * seconds)
            os.kill(child, blow)  # a process that has ended waits to be asked for its status
            status = finish(child)
            if status != 0:
                break
            shutil.rmtree(out)  # it was faster than the blow
            seconds *= 0.8
        if status != (-blow if blow == signal.SIGKILL else 130):
            problems.append(f"{moment}: exit status {status} after {blow.name}")
        # once more to the end, and a few times once more, which finds a finished run
        again = [
            finish(start(command_of(name, out), folder)) for _ in range(2 if moment < 4 else 1)
        ]
        if any(again):
            problems.append(f"{moment}: exit statuses {again} when given again")
        left = Left.of(out)
        problems += [f"{moment} ({blow.name}): {found}" for found in left.differences(unbroken)]
        same_weights += left.weights == unbroken.weights
        if problems:
            kept = folder / f"{name}-{moment}"
            out.rename(kept) if not kept.exists() else None
        shutil.rmtree(out, ignore_errors=True)
    return {
        "command": name,
        "moments": moments,
        "rollouts": len(unbroken.tokens),
        "same_weights": same_weights,
        "problems": problems,
        "unbroken_s": round(seconds, 1),
    }


def main() -> None:
    """Try all commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--commands", default="collect,eval,train,distillation,study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Keep what differs here.")
    given = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PYTHONPATH=os.getcwd())
    import evals.answering  # noqa: F401  # forked processes have the imports
    import trainers.run  # noqa: F401

    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make_workplace(folder)
        failed = False
        for name in given.commands.split(","):
            found = try_command(name, folder, given.moments, random.Random(f"{given.seed}/{name}"))
            failed |= bool(found["problems"])
            print(json.dumps(found), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
