"""Seconds that `eapo view` takes over a store of 100,000 trajectories; one JSON line.

The store is filled by the real store, the server is the command's own, and each page is asked for
once by a client, in the order in which a person would come to it. The first page includes looking
for runs. At most 2 s are wanted for each.
"""

import html
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from eapo_agents.recipe import Recipe
from eapo_agents.store import TraceStore
from eapo_agents.types import (
    Consultation,
    ConsultationStatus,
    PolicyVersion,
    Problem,
    Role,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)

STEPS, PROBLEMS, ROLLOUTS = 250, 50, 8
POLICY = PolicyVersion(model="nowhere", base="base", weights="weights", step=0)


def fill(folder: Path) -> int:
    """Write a training run's folder, and return the number of trajectories in its store."""
    folder.mkdir(parents=True)
    figures = {"rollouts": 400, "reward": 0.5, "consultation_rate": 0.5, "experts/calls": 200}
    lines = [json.dumps({"step": step, **figures}) for step in range(1, STEPS + 1)]
    (folder / "steps.jsonl").write_text("\n".join(lines) + "\n")
    with TraceStore.open(folder / "traces.db", create=True) as store:
        recipe = Recipe(name="view").model_dump(mode="json")
        store.start_run("train", kind="train", recipe=recipe, sampling=Sampling(), policy=POLICY)
        for step in range(1, STEPS + 1):
            for problem in range(PROBLEMS):
                for rollout in range(ROLLOUTS):
                    one = trajectory(step, problem, rollout)
                    store.append(one, run_id="train", group_key=f"{step}/{one.problem.id}")
    return STEPS * PROBLEMS * ROLLOUTS


def trajectory(step: int, problem: int, rollout: int) -> Trajectory:
    """Return a small one: two turns, a consultation, 40 tokens."""
    asked = Consultation(
        slot=0,
        expert="solver",
        query=f"{problem} + {step}",
        reply=f"{problem} + {step} = {problem + step}.",
        status=ConsultationStatus.ACCEPTED,
        rho=0.5,
        u=0.25,
    )
    ids, logprobs = tuple(range(10)), (-0.1,) * 10
    turns = [
        Turn(
            context_ids=ids,
            completion_ids=ids,
            logprobs=logprobs,
            parent=parent,
            text=text,
            finish_reason="stop",
            consultations=consultations,
        )
        for parent, text, consultations in ((None, "", (asked,)), (0, f"Answer: {step}", ()))
    ]
    return Trajectory(
        problem=Problem(
            id=f"p{problem}", question=f"What is {problem}?", answer="1", grader="number"
        ),
        graph="consult",
        role=Role.CONSULT,
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
        answer=f"Answer: {step}",
        reward=float(rollout % 2),
        correct=bool(rollout % 2),
        error=None,
        policy=POLICY,
        sampling=Sampling(),
        seed=0,
        rollout=rollout,
        global_step=step,
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "runs"
        num_trajectories = fill(folder / "train")
        command = [sys.executable, "-m", "eapo_agents.cli.main", "view", str(folder), "--no-open"]
        started = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            until_address = time.perf_counter() - started
            seconds = ask(url)
        finally:
            os.kill(server.pid, signal.SIGINT)
            server.wait(timeout=30)
    print(
        json.dumps(
            {
                "benchmark": "view_speed",
                "trajectories": num_trajectories,
                "seconds": {"until the address": round(until_address, 3), **seconds},
            }
        )
    )


def ask(url: str) -> dict[str, float]:
    """Return the seconds of each page, following the links from one to the next."""
    base = url.partition("/?")[0]
    seconds: dict[str, float] = {}
    with httpx2.Client(follow_redirects=True, timeout=120) as client:

        def page(name: str, address: str) -> str:
            started = time.perf_counter()
            answer = client.get(address)
            seconds[name] = round(time.perf_counter() - started, 3)
            assert answer.status_code == 200, (address, answer.text[-500:])
            return answer.text

        def link(text: str, path: str) -> str:
            found = re.search(rf'href="(/{path}\?[^"]*)"', text)
            assert found is not None, f"no link to {path}"
            return base + html.unescape(found[1])

        runs = page("runs", url)
        run = page("run", link(runs, "run"))
        step = page("step", link(run, "step"))
        group = page("group", link(step, "group"))
        rollout = page("rollout", link(group, "rollout"))
        page("tokens", link(rollout, "tokens"))
        rollouts = page("rollouts", link(run, "rollouts"))
        older = re.findall(r'href="(/rollouts\?[^"]*before=[^"]*)"', rollouts)
        page("older rollouts", base + html.unescape(older[-1]))
        page("search, common", f"{base}/search?q=answer")
        page("search, absent", f"{base}/search?q=no-such-text")
    return seconds


if __name__ == "__main__":
    main()
