"""A training step of ours against plain GRPOTrainer's on the same rows and model, in trained and
padding-free tokens a second; one JSON line with the ratio of the medians, the losses and the peaks
of memory. At least 3 is wanted, the same loss to 1e-6, and no higher a peak.

Both get the same padded batch from the same `TrainingRow`s; plain GRPOTrainer splits and computes
it as TRL does. The rows have one to four turns, the lengths that such trajectories have, and the
prompts that groups have in common, which ours computes once. Each
trainer runs in a process of its own, in turn, five times, or as often as the argument says.
"""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_ROWS, GROUP, PASSES, ROUNDS = 32, 4, 8, 5
RECIPE = "cpu-smol"


def make_rows(num_rows: int = NUM_ROWS, vocabulary: int = 40_000):
    """Returns rows of one to four turns, of random tokens. The four rows of a group have the same
    prompt, and all prompts the same system message."""
    from eapo_agents import types
    from trainers.rows import TrainingRow

    trajectory = types.Trajectory(
        problem=types.Problem(id="p", question="q", answer="1", grader="number"),
        graph="consult",
        role=types.Role.CONSULT,
        turns=(),
        stop_reason=types.StopReason.ANSWERED,
        answer="1",
        reward=1.0,
        correct=True,
        error=None,
        policy=types.PolicyVersion(model="m", base="b", weights="w", step=0),
        sampling=types.Sampling(),
        seed=0,
        rollout=0,
        global_step=1,
    )
    rng = random.Random(0)

    def some(count):
        return tuple(rng.randrange(1000, vocabulary) for _ in range(count))

    head, rows = some(40), []
    for row in range(num_rows):
        if row % GROUP == 0:
            prompt = head + some(rng.randint(0, 80))
        turns = rng.choice([1, 1, 2, 2, 3, 4])
        ids, mask = [], []
        for turn in range(turns):
            if turn:
                reply = rng.randint(20, 60)
                ids += some(reply)
                mask += [0] * reply
            sampled = min(160, 8 + int(rng.expovariate(1 / 40)))
            ids += some(sampled)
            mask += [1] * sampled
        rows.append(
            TrainingRow(
                prompt_ids=prompt,
                completion_ids_T=tuple(ids),
                mask_T=tuple(mask),
                logprobs_T=tuple(-10.0 * m for m in mask),
                advantage=rng.choice([-1.0, 1.0]),
                weight=1.0,
                trajectory=trajectory,
            )
        )
    return rows


def one_step(kind: str, loaded, rows, settings: list[str], passes: int = PASSES) -> dict:
    """Returns the seconds, loss and peak memory of one optimizer step on the rows.

    Args:
        kind: `ours`, or `plain` for TRL's own step.
        loaded: a model and its tokenizer, as `load_policy` returns them.
        settings: of the recipe, such as `policy.device=cuda`.
    """
    import torch
    from transformers import PrinterCallback
    from transformers.trainer_utils import SaveStrategy
    from trl import GRPOTrainer

    from eapo_agents.recipe_file import load_recipe
    from trainers.batches import pad_rows
    from trainers.grpo import EapoTrainer
    from trainers.objective import Objective
    from trainers.sources import LoggedRollouts
    from trainers.trl_arguments import grpo_config

    groups = len(rows) // GROUP
    given = [f"train.problems_per_step={groups}", f"train.num_generations={GROUP}"]
    given += ["train.minibatches_per_step=1", f"train.gradient_accumulation_steps={passes}"]
    given += ["train.report_to=[]", "train.save_steps=100", *settings]
    recipe = load_recipe(RECIPE, given)

    class Ours(EapoTrainer):
        def _generate_and_score_completions(self, inputs):
            return self._batch(rows, [])

    class Plain(Ours):
        _prepare_inputs = GRPOTrainer._prepare_inputs
        _compute_loss = GRPOTrainer._compute_loss
        _get_per_token_logps_and_entropies = GRPOTrainer._get_per_token_logps_and_entropies

    with tempfile.TemporaryDirectory() as folder:
        args = grpo_config(recipe, Path(folder), 1)
        args.save_strategy = SaveStrategy.NO  # else the last step is kept, and its writing timed
        trainer = (Plain if kind == "plain" else Ours)(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            args=args,
            source=LoggedRollouts(logged=[None] * len(rows), groups_per_step=groups),
            objective=Objective(solo_prompt=lambda problem: [1], settings=recipe.train),
            fresh_from=lambda: 0,
            importance_ratio_cap=2.0,
        )
        trainer.remove_callback(PrinterCallback)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, started_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds = time.perf_counter() - started
        cpu_seconds = time.process_time() - started_cpu
        losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
    assert len(pad_rows(rows, multiple=passes, pad_id=0)["prompt_ids"]) == len(rows)
    assert torch.isfinite(torch.tensor(losses)).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses}
    return told | {"peak_mb": peak / 1024, "peak_of_the_steps_mb": (peak - before) / 1024}


def alone(kind: str) -> None:
    """Prints what one step of the small model takes in this process."""
    from eapo_agents.policy.models import load_policy
    from eapo_agents.recipe_file import load_recipe

    loaded = load_policy(load_recipe(RECIPE, []).policy.model)
    print(json.dumps(one_step(kind, loaded, make_rows(), ["train.lora=null"])))


def main(rounds: int) -> None:
    runs = {"plain": [], "ours": []}
    for round_number in range(rounds):
        order = ("plain", "ours") if round_number % 2 else ("ours", "plain")
        for kind in order:
            out = subprocess.run(
                [sys.executable, __file__, kind], capture_output=True, text=True, check=True
            ).stdout
            runs[kind].append(json.loads(out.strip().splitlines()[-1]))
    rows = make_rows()
    tokens = sum(len(row.prompt_ids) + len(row.completion_ids_T) for row in rows)
    seconds = {kind: statistics.median(r["seconds"] for r in of) for kind, of in runs.items()}
    first = {kind: of[0]["losses"][0] for kind, of in runs.items()}
    print(
        json.dumps(
            {
                "tokens_a_second": {kind: tokens / s for kind, s in seconds.items()},
                "ratio": seconds["plain"] / seconds["ours"],
                "ratios": [
                    p["seconds"] / o["seconds"]
                    for p, o in zip(runs["plain"], runs["ours"], strict=True)
                ],
                # what is left where other work shares the machine
                "cpu_ratios": [
                    p["cpu_seconds"] / o["cpu_seconds"]
                    for p, o in zip(runs["plain"], runs["ours"], strict=True)
                ],
                "loss_difference": abs(first["plain"] - first["ours"]),
                "loss": first["ours"],
                "peak_mb": {
                    kind: statistics.median(r["peak_mb"] for r in of) for kind, of in runs.items()
                },
            }
        )
    )


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else str(ROUNDS)
    main(int(given)) if given.isdecimal() else alone(given)
