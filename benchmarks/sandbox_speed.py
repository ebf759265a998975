"""HumanEval+ (164 canonical solutions): `eapo score` in its sandbox against `evalplus.evaluate`,
whole processes, in turn, expected outputs cached by both. Beside it, what the solutions' own calls
take: no harness is faster than that on all cores, while evalplus ends on a multiple of 20 s.

EAPO_DATA names the folder with upstream's files. Usage: python benchmarks/sandbox_speed.py [ROUNDS]
"""

from __future__ import annotations

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 3


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Wall time of a whole process that succeeds."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Prints the medians and their ratios as JSON."""
    gold = Path(os.environ["EAPO_DATA"]) / "evalplus" / "HumanEvalPlus.jsonl.gz"
    scripts = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = gzip.decompress(gold.read_bytes()).decode()
        (folder / "gold.jsonl").write_text(text)
        samples = folder / "samples.jsonl"
        with samples.open("w") as file:
            for task in map(json.loads, text.splitlines()):
                solution = task["prompt"] + task["canonical_solution"]
                file.write(json.dumps({"task_id": task["task_id"], "solution": solution}) + "\n")
        environment = {
            **os.environ,
            "HOME": name,
            "EAPO_CACHE": name,
            "HUMANEVAL_OVERRIDE_PATH": str(folder / "gold.jsonl"),
        }
        ours = [str(scripts / "eapo"), "score", "-b", "humanevalplus", "--gold", str(gold)]
        ours += ["--predictions", str(samples), "--json"]
        theirs = [str(scripts / "evalplus.evaluate"), "--dataset", "humaneval"]
        theirs += ["--samples", str(samples)]
        found: dict[str, list[float]] = {"eapo": [], "evalplus": [], "evalplus --parallel 2": []}
        for number in range(ROUNDS + 1):
            for key, command in (
                ("eapo", ours),
                ("evalplus", theirs),
                ("evalplus --parallel 2", [*theirs, "--parallel", "2"]),
            ):
                for result in folder.glob("*_results.json"):
                    result.unlink()
                taken = seconds(command, environment)
                if number:  # the first round works out the expected outputs
                    found[key].append(taken)
        medians = {key: statistics.median(values) for key, values in found.items()}
        ratios = {
            f"eapo / {key}": medians["eapo"] / value
            for key, value in medians.items()
            if key != "eapo"
        }
        (cache,) = folder.glob("evalplus-humaneval-*.json.gz")
        expected = json.loads(gzip.decompress(cache.read_bytes()))["expected"]
        calls = sum(sum(inputs["seconds"]) for sets in expected.values() for inputs in sets)
        told = {"medians": medians, "ratios": ratios, "the solutions' own calls, one core": calls}
        print(json.dumps({"seconds": found, **told}, indent=1))


if __name__ == "__main__":
    main()
