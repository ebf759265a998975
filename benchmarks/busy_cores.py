"""A warm start of the scale model alone and beside one busy process for each core, with torch's
threads as `eapo` has them wait (GOMP_SPINCOUNT=1000) and as libgomp does by itself (300,000).

Usage: python benchmarks/busy_cores.py [STEPS]
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SPINS = {"eapo's": "1000", "libgomp's": "300000"}
_LIMIT_S = 300.0


@contextlib.contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep that many cores busy."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def seconds_of_a_step(spin: str, steps: int) -> float | None:
    """Return the wall time of a step, over so many of the warm start; None where time is up."""
    command = [str(Path(sys.executable).parent / "eapo"), "--events", "warm-start"]
    command += ["-r", "scale-model", "--set", "warm_start.problems=256"]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*command, "--out", f"{folder}/warm"],
            env={**os.environ, "GOMP_SPINCOUNT": spin},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert process.stderr is not None
        begun, first = time.monotonic(), None
        for line in process.stderr:
            now = time.monotonic()
            done = _steps_done(line)
            if done and first is None:
                first = (now, done)
            elif first is not None and done >= first[1] + steps:
                process.kill()
                process.wait()
                return (now - first[0]) / (done - first[1])
            if now - begun > _LIMIT_S:
                break
        process.kill()
        process.wait()
        return None


def _steps_done(line: str) -> int:
    with contextlib.suppress(ValueError, AttributeError):
        event = json.loads(line)
        if str(event.get("what", "")).startswith("Warm start"):
            return int(event.get("done", 0))
    return 0


if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    found = {}
    for name, number in (("alone", 0), ("beside busy processes", os.cpu_count() or 1)):
        with busy(number):
            found[name] = {whose: seconds_of_a_step(spin, steps) for whose, spin in SPINS.items()}
    print(json.dumps({"seconds of a step": found, "cores": os.cpu_count()}, indent=1))
