"""CPU time of scoring a MATH-500-sized file, and HumanEval+ against evalplus.evaluate.

    EAPO_DATA=DATA python benchmarks/scoring_speed.py [--code]

Predictions are the official solutions and, every fourth, the next problem's. CPU time is that of
the command with all its processes. `--code` scores HumanEval+'s canonical solutions here and with
`evalplus.evaluate`, one after the other, and gives the ratio of the wall times.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(*command: str, **variables: str) -> dict[str, float]:
    """Run a command and return the wall and CPU seconds of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    environment = os.environ | variables
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(cpu, 1)}


def scored(name: str, predictions: Path, gold: Path) -> dict[str, float]:
    eapo = str(Path(sys.executable).parent / "eapo")
    files = ("--predictions", str(predictions), "--gold", str(gold))
    return run(eapo, "score", "-b", name, *files, "--json")


def math500(data: Path, folder: Path) -> dict[str, float]:
    gold = data / "math500" / "test.jsonl"
    records = [json.loads(line) for line in gold.read_text(encoding="utf-8").splitlines()]
    lines = []
    for number, record in enumerate(records):
        other = records[(number + (number % 4 == 3)) % len(records)]
        lines.append({"id": record["unique_id"], "completion": other["solution"]})
    predictions = folder / "math500.jsonl"
    predictions.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return scored("math500", predictions, gold)


def humanevalplus(data: Path, folder: Path) -> dict[str, object]:
    gold = data / "evalplus" / "HumanEvalPlus.jsonl.gz"
    plain = folder / "HumanEvalPlus.jsonl"
    plain.write_bytes(gzip.decompress(gold.read_bytes()))
    lines = [
        {"task_id": r["task_id"], "solution": r["prompt"] + r["canonical_solution"]}
        for r in map(json.loads, plain.read_text(encoding="utf-8").splitlines())
    ]
    predictions = folder / "samples.jsonl"
    predictions.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    upstream = ("-m", "evalplus.evaluate", "--dataset", "humaneval", "--samples", str(predictions))
    theirs = run(sys.executable, *upstream, HUMANEVAL_OVERRIDE_PATH=str(plain), HOME=str(folder))
    ours = scored("humanevalplus", predictions, gold)
    return {"ours": ours, "evalplus": theirs, "ratio": round(ours["wall_s"] / theirs["wall_s"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", action="store_true")
    given = parser.parse_args()
    data = Path(os.environ["EAPO_DATA"])
    with tempfile.TemporaryDirectory() as name:
        result: dict[str, object] = {"benchmark": "scoring_speed"}
        result["math500"] = math500(data, Path(name))
        if given.code:
            result["humanevalplus"] = humanevalplus(data, Path(name))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
