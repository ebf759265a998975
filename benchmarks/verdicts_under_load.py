"""Whether verdicts depend on how busy the machine is, and what scoring costs.

    EAPO_DATA=... python benchmarks/verdicts_under_load.py [--busy 8]

992 answers (MATH-500: its solutions, and answers of other problems in their place; HumanEval: right
programs, wrong ones, some that compute for about a second, some that never end) are scored twice:
idle, and beside processes that keep every core busy. One JSON line with the verdicts that
differ and those that are undecided in either report, and the CPU time of scoring MATH-500, with all
child processes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from busy_cores import busy

if "EAPO_DATA" not in os.environ:
    sys.exit("EAPO_DATA must name the folder with the benchmarks' files.")
DATA = Path(os.environ["EAPO_DATA"])
MATH = DATA / "math500" / "test.jsonl"
CODE = DATA / "humaneval" / "HumanEval.jsonl.gz"
SLOW = "for _ in range(20_000_000):\n    pass\n"
ENDLESS = "while True:\n    pass\n"


def mathematics(file: Path) -> None:
    """Write 500 answers; every second one is another problem's."""
    rng = random.Random(0)
    records = [json.loads(line) for line in MATH.read_text().splitlines()]
    lines = []
    for index, record in enumerate(records):
        said = record["solution"]
        if index % 2:
            said = f"So it is \\boxed{{{rng.choice(records)['answer']}}}."
        lines.append(json.dumps({"id": index, "completion": said}))
    file.write_text("\n".join(lines) + "\n")


def programs(file: Path) -> None:
    """Write 492 programs, three for each task."""
    records = [json.loads(line) for line in gzip.decompress(CODE.read_bytes()).splitlines()]
    lines = []
    for index, record in enumerate(records):
        right = record["prompt"] + record["canonical_solution"]
        wrong = record["prompt"] + "    return None\n"
        odd = SLOW + right if index % 8 == 0 else ENDLESS + right if index % 41 == 1 else wrong
        for solution in (right, wrong, odd):
            lines.append(json.dumps({"task_id": record["task_id"], "solution": solution}))
    file.write_text("\n".join(lines) + "\n")


def score(benchmark: str, gold: Path, predictions: Path) -> tuple[dict[str, object], float]:
    """Return (problem and sample -> verdict, CPU seconds)."""
    words = [sys.executable, "-m", "eapo_agents.cli.main", "score", "-b", benchmark]
    words += ["--gold", str(gold), "--predictions", str(predictions), "--items", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 3):
        raise SystemExit(done.stderr)
    report = json.loads(done.stdout)
    verdicts = {f"{benchmark}/{number}": item for number, item in enumerate(report["items"])}
    cpu_s = sum(after[:2]) - sum(before[:2])
    return verdicts, cpu_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--busy", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        math_file, code_file = Path(folder) / "math.jsonl", Path(folder) / "code.jsonl"
        mathematics(math_file)
        programs(code_file)
        reports, cpu_s = [], 0.0
        for number in (0, given.busy):
            with busy(number):
                found, seconds = score("math500", MATH, math_file)
                cpu_s = cpu_s or seconds
                found |= score("humaneval", CODE, code_file)[0]
                reports.append(found)
    idle, loaded = reports
    differing = [key for key in idle if idle[key] != loaded.get(key)]
    undecided = [sum("undecided" in json.dumps(v) for v in r.values()) for r in reports]
    print(
        json.dumps({
            "benchmark": "verdicts_under_load",
            "items": len(idle),
            "busy": given.busy,
            "differing": len(differing),
            "first": [[idle[k], loaded.get(k)] for k in differing[:3]],
            "undecided": undecided,
            "math500_cpu_s": round(cpu_s, 1),
        })
    )  # fmt: skip


if __name__ == "__main__":
    main()
