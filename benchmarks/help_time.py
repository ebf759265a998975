"""How long `eapo --help` takes as a whole process; one JSON line with the median of 15. Under 0.3 s
is wanted."""

import json
import statistics
import subprocess
import sys
import time


def main() -> None:
    seconds = []
    for _ in range(15):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "eapo_agents.cli.main", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"benchmark": "help_time", "median_s": statistics.median(seconds)}))


if __name__ == "__main__":
    main()
