"""Puts a trained scale model into the package: its weights before and after in float16, its
tokenizer, and the figures of its training.

    eapo train --recipe scale-model+eapo --out RUN
    python benchmarks/studies/ship_scale_model.py RUN
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eapo_agents.policy.shipped import FOLDER, TRAINING, Stretch, Training

COMMAND = "eapo train --recipe scale-model+eapo"
STRETCH = 60
"""Steps that a line of the figures stands for."""


def save(policy: Path, model: Path, to: Path) -> None:
    AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float16).save_pretrained(to)
    AutoTokenizer.from_pretrained(model).save_pretrained(to)


def figures(run: Path) -> Training:
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    evals = [json.loads(line) for line in (run / "evals.jsonl").read_text().splitlines()]
    accuracy = {e["step"]: e["scores"]["solo"]["score"] for e in evals}
    stretches, calls = [], 0
    for last in range(STRETCH, len(steps) + 1, STRETCH):
        some = steps[last - STRETCH : last]
        accepted = sum(step["experts/accepted"] for step in some)
        withheld = sum(step["experts/withheld"] for step in some)
        calls += round(sum(step["experts/calls"] for step in some))
        stretches.append(
            Stretch(
                step=last,
                accuracy=accuracy[last],
                asked=sum(step["consultation_rate"] for step in some) / len(some),
                accepted=accepted / max(1, accepted + withheld),
                calls=calls,
            )
        )
    told = json.loads((run / "train.json").read_text())
    return Training(
        command=COMMAND,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        seconds=told["seconds"],
        calls=told["expert_calls"],
        withheld=told["expert_calls_withheld"],
        stretches=stretches,
    )


def main(run: Path) -> None:
    save(run / "warm/policy", run / "fresh", FOLDER / "before")
    save(run / "policy", run / "fresh", FOLDER / "trained")
    (FOLDER / TRAINING).write_text(json.dumps(asdict(figures(run)), indent=1) + "\n")
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    print(f"{FOLDER}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
