"""Trajectories committed a second, one transaction each, to an SQLite store on disk; one JSON line.

Each has three turns, 960 tokens and two consultations. At least 1,000 a second are wanted.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from rows_per_second import make_groups

from eapo_agents.store import TraceStore
from eapo_agents.types import Consultation, ConsultationStatus, Sampling

NUM_TRAJECTORIES, ROUNDS = 1000, 5


def main() -> None:
    consultations = tuple(
        Consultation(
            slot=slot,
            expert="solver",
            query="7 + 3 * 4",
            reply="3 * 4 = 12. 7 + 12 = 19.",
            status=ConsultationStatus.ACCEPTED,
            rho=0.5,
            u=0.25,
        )
        for slot in range(2)
    )
    trajectory = make_groups()[0].trajectories_G[0]
    first = dataclasses.replace(trajectory.turns[0], consultations=consultations)
    trajectory = dataclasses.replace(trajectory, turns=(first, *trajectory.turns[1:]))
    rollouts = [dataclasses.replace(trajectory, rollout=n) for n in range(NUM_TRAJECTORIES)]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(ROUNDS):
            with TraceStore.open(Path(folder) / f"{round_}.db", create=True) as store:
                store.start_run(
                    "run",
                    kind="collect",
                    recipe={},
                    sampling=Sampling(),
                    policy=trajectory.policy,
                )
                started = time.perf_counter()
                for rollout in rollouts:
                    store.append(rollout, run_id="run", group_key="g")
                seconds.append(time.perf_counter() - started)
    print(
        json.dumps(
            {
                "benchmark": "store_writes",
                "trajectories": NUM_TRAJECTORIES,
                "trajectories_per_second": round(NUM_TRAJECTORIES / statistics.median(seconds)),
            }
        )
    )


if __name__ == "__main__":
    main()
