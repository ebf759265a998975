"""Mathematical equivalence: equal text, equal numbers, else math-verify in a separate process.

Sympy evaluates whatever it gets, so a hostile answer (a tower of powers, a huge factorial) would
hold the caller for ever, and no signal interrupts a long multiplication. The process has a limit on
memory and is killed when it is late; another one is ready to take its place.
"""

from __future__ import annotations

import atexit
import json
import queue
import re
import selectors
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from eapo_agents.errors import GradingError
from eapo_agents.grading.extraction import (
    announced_answers,
    ascii_digits,
    extract_answer,
    final_text,
    last_boxed,
)
from eapo_agents.grading.grade import NOTHING, Grade
from eapo_agents.grading.numbers import last_number, read_number
from eapo_agents.types import Problem

TIME_LIMIT_S = 1.0
"""For one comparison, from the moment the process is ready."""
_MAX_CHARS = 400
_START_S = 120.0
_NUM_PROCESSES = 2
_PLAIN_NUMBER = re.compile(
    r"[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:/\d+)?|\d+(?:\s+\d+/\d+)?"
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|mbox|mathrm|mathbf|textrm)\s*\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d}) ])\s*\\(?:text|mbox|mathrm|textrm)\s*\{[^{}]*\}\s*(?:\^\{?\d\}?)?$")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\u00b0|\\degree")
_SPACING = re.compile(r"\\[,!;:> ]|\\q?quad|~|\s+")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|\{([^{}]*)\}\s*(\d)|(\d)\s*\{([^{}]*)\})")
_ASSIGNED = re.compile(r"^\s*[a-zA-Z](?:\([a-z]\))?\s*=\s*(?=[^=]*$)")


def math(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Grade equivalence as mathematics: `\\frac{1}{2}`, `0.5` and `1/2` are equal.

    Lenient: the last box counts, as in benchmarks of mathematics, else any announced answer, else
    the last number of the text if the gold answer is a number.
    """
    if not lenient:
        answer = extract_answer(text)
        return NOTHING if answer is None else math_answer(answer, problem)
    boxed = last_boxed(final_text(text))
    announced = [boxed] if boxed else announced_answers(text)
    for answer in announced:
        if (graded := math_answer(answer, problem)).formatted:
            return graded
    gold, last = plain_number(problem.answer), last_number(final_text(text))
    if gold is None or last is None:
        return NOTHING
    return Grade(score=float(last == gold), formatted=False, extracted=str(last))


def math_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer."""
    gold, given = simplify(problem.answer), simplify(answer)
    if not gold:
        raise GradingError(
            f"The gold answer '{problem.answer}' is not mathematics, and the grader is 'math'."
        )
    if not given:
        return NOTHING
    if given == gold:
        return Grade(score=1.0, formatted=True, extracted=answer)
    wanted, value = plain_number(gold), plain_number(given)
    if wanted is not None and value is not None:
        return Grade(score=float(wanted == value), formatted=True, extracted=answer)
    if len(given) > _MAX_CHARS:
        return Grade(score=0.0, formatted=True, extracted=answer, note="too long to be an answer")
    verdict = _processes().compare(problem.answer, answer)
    return Grade(
        score=float(verdict.equal),
        formatted=verdict.readable,
        extracted=answer,
        note=verdict.note,
    )


def simplify(text: str) -> str:
    """Return LaTeX without what changes nothing: spacing, dollar signs, units, `\\left`, `x =`, a
    final full stop."""
    text = ascii_digits(text).strip().strip("$*_` ").rstrip(".").strip("$ ")
    text = re.sub(r"\\[()\[\]]", "", text)
    for old, new in (
        ("\\dfrac", "\\frac"),
        ("\\tfrac", "\\frac"),
        ("\\left", ""),
        ("\\right", ""),
        ("\\$", ""),
        ("$", ""),
        ("\\%", ""),
        ("%", ""),
        ("{,}", ","),
    ):
        text = text.replace(old, new)
    text = _UNIT.sub("", _DEGREES.sub("", text).rstrip())
    text = _TEXT.sub(r"\1", text)
    text = _SHORT_FRACTION.sub(_long_fraction, text)
    text = _ASSIGNED.sub("", text)
    return _SPACING.sub("", text)


def plain_number(text: str) -> Fraction | None:
    """Return the exact value of a text that is a number and nothing else."""
    text = text.strip().strip("$").strip()
    if not text or not _PLAIN_NUMBER.fullmatch(text):
        return None
    return read_number(text)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict of math-verify."""

    equal: bool
    readable: bool
    note: str = ""


class _Process:
    """One process with math-verify loaded: a line in, a line out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eapo_agents.grading.math_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # so that a Ctrl-C reaches only us
        )
        self._is_ready = False

    def ask(self, message: dict[str, str]) -> dict[str, bool]:
        """Wait until the process is ready, and then at most `TIME_LIMIT_S` for its reply.

        Raises:
            TimeoutError, OSError, EOFError, ValueError: there is no reply.
        """
        if not self._is_ready:
            self._line(_START_S)
            self._is_ready = True
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
        reply: dict[str, bool] = json.loads(self._line(TIME_LIMIT_S))
        return reply

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self, limit_s: float) -> bytes:
        """Return one line; the process never writes more than one at a time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                data = self._process.stdout.read(4096)
                if not data:
                    raise EOFError
                line += data
        return line


class MathProcesses:
    """Compares with math-verify; thread-safe. One process works while another one is ready."""

    def __init__(self, num_processes: int = _NUM_PROCESSES) -> None:
        self._free: queue.Queue[_Process] = queue.Queue()
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        for _ in range(num_processes):
            self._add()
        atexit.register(self.close)

    def compare(self, gold: str, answer: str) -> Comparison:
        """Compare two answers. An answer that takes too long is wrong."""
        process = self._free.get()
        try:
            reply = process.ask({"gold": gold, "answer": answer})
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self._replace(process)
            late = isinstance(error, TimeoutError)
            return Comparison(False, False, "too hard to compare" if late else "cannot be compared")
        except BaseException:
            self._replace(process)
            raise
        self._free.put(process)
        if reply.get("gold_unreadable"):
            raise GradingError(
                f"The gold answer '{gold}' is not mathematics, and the grader is 'math'."
            )
        return Comparison(reply["equal"], reply["readable"])

    def close(self) -> None:
        """End every process."""
        with self._lock:
            ended, self._all = self._all, set()
        for process in ended:
            process.end()

    def _replace(self, process: _Process) -> None:
        process.end()
        with self._lock:
            self._all.discard(process)
        self._add()

    def _add(self) -> None:
        process = _Process()
        with self._lock:
            self._all.add(process)
        self._free.put(process)


@cache
def _processes() -> MathProcesses:
    return MathProcesses()


def _long_fraction(match: re.Match[str]) -> str:
    a, b, c, d, e, f = match.groups()
    numerator, denominator = (a, b) if a else (c, d) if c is not None else (e, f)
    return f"\\frac{{{numerator}}}{{{denominator}}}"
