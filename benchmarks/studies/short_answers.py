"""How many right, helped answers of a study's training are shorter than the reply that helped them,
in tokens: what `internalise.min_answer_to_reply_ratio: 1` is about.

    python benchmarks/studies/short_answers.py runs/study eapo eapo+own-words
"""

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.loading import load_agent
from eapo_agents.store import TraceStore
from eapo_agents.types import ConsultationStatus, Trajectory


def first_heard(trajectory: Trajectory) -> str | None:
    """The first reply that was let in."""
    heard = (
        consultation.reply
        for turn in trajectory.turns
        for consultation in turn.consultations
        if consultation.status is ConsultationStatus.ACCEPTED
    )
    return next(heard, None)


def main(study: Path, arms: Sequence[str]) -> None:
    """A line for each arm of each seed."""
    for seed in range(len(list(study.glob("seed-*")))):
        for arm in arms:
            folder = study / f"seed-{seed}" / arm
            renderer = load_agent(load_recipe(folder / "recipe.yaml")).renderer
            length = cache(lambda text, renderer=renderer: len(renderer.encode_text(text)))
            num_helped = num_short = 0
            with TraceStore.open(folder / "traces.db") as store:
                for stored in store.trajectories(run_id="train"):
                    reply = first_heard(stored.trajectory)
                    if reply is None or not stored.trajectory.correct:
                        continue
                    num_helped += 1
                    answer = stored.trajectory.turns[-1].completion_ids
                    num_short += len(answer) < length(reply)
            print(f"seed {seed}, {arm}: {num_short} of {num_helped}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
