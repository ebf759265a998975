"""Trajectories to padded training batches, in tokens a second; one JSON line. At least 1 million
are wanted."""

import json
import random
import statistics
import time

from eapo_agents.types import (
    PolicyVersion,
    Problem,
    Role,
    RolloutGroup,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)
from trainers.advantages import group_rows
from trainers.batches import pad_rows

NUM_GROUPS, GROUP_SIZE, ROUNDS = 64, 8, 5
CONTEXT, COMPLETION, TURNS = 120, 200, 3


def make_groups() -> list[RolloutGroup]:
    rng = random.Random(0)
    problem = Problem(id="p", question="q", answer="1", grader="number")

    def turn(number: int) -> Turn:
        return Turn(
            context_ids=tuple(rng.randrange(49_152) for _ in range(CONTEXT)),
            completion_ids=tuple(rng.randrange(49_152) for _ in range(COMPLETION)),
            logprobs=tuple(-rng.random() for _ in range(COMPLETION)),
            parent=number - 1 if number else None,
            text="",
            finish_reason="stop",
        )

    def trajectory(rollout: int) -> Trajectory:
        return Trajectory(
            problem=problem,
            graph="consult",
            role=Role.CONSULT,
            turns=tuple(turn(n) for n in range(TURNS)),
            stop_reason=StopReason.ANSWERED,
            answer="1",
            reward=float(rollout % 2),
            correct=bool(rollout % 2),
            error=None,
            policy=PolicyVersion(model="m", base="b", weights="w", step=0),
            sampling=Sampling(),
            seed=0,
            rollout=rollout,
            global_step=1,
        )

    return [
        RolloutGroup(problem=problem, trajectories_G=tuple(map(trajectory, range(GROUP_SIZE))))
        for _ in range(NUM_GROUPS)
    ]


def main() -> None:
    groups = make_groups()
    tokens = NUM_GROUPS * GROUP_SIZE * TURNS * (CONTEXT + COMPLETION)
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        pad_rows(group_rows(groups), multiple=8, pad_id=0)
        seconds.append(time.perf_counter() - started)
    print(
        json.dumps(
            {
                "benchmark": "rows_per_second",
                "tokens": tokens,
                "tokens_per_second": round(tokens / statistics.median(seconds)),
            }
        )
    )


if __name__ == "__main__":
    main()
