"""Runs a benchmark's own test program, with the sample's function behind a wall.

`check(candidate)` runs here; `candidate` is a stand-in whose calls go, as plain data, to the
process that has the sample's code, and come back as plain data. So nothing that the sample does to
its interpreter reaches the assertions. Messages, one JSON a line:

    to it    {"prompt", "test", "entry_point"}    a program to run
             {"value": text} or {"raised": name}  what the last call gave
    from it  {"!": "ready"}                       waiting for a program
             {"call": text}                       call the sample's function
             {"!": "passed"} or {"!": "failed", "error": name}
"""

from __future__ import annotations

import json
import sys
from typing import Any

from channel import Channel
from limits import set_limits
from values import from_text, to_text


class CandidateError(Exception):
    """The sample's function raised."""


def run_prompt(prompt: str, namespace: dict[str, Any]) -> None:
    """Runs code that ends with a function's head, with or without a docstring for its body."""
    try:
        program = compiled(prompt)
    except SyntaxError:
        program = compiled(prompt.rstrip() + "\n    pass\n")
    exec(program, namespace)


def compiled(source: str) -> Any:
    """Code that does not inherit this file's own future imports."""
    return compile(source, "<test>", "exec", dont_inherit=True)


def main() -> None:
    start = json.loads(sys.argv[1])
    channel = Channel()
    set_limits(start["limits"])
    sys.path.extend(start["paths"])

    def candidate(*arguments: Any, **named: Any) -> Any:
        channel.write(json.dumps({"call": to_text([arguments, named])}))
        reply = channel.read()
        if "raised" in reply:
            raise CandidateError(reply["raised"])
        return from_text(reply["value"])

    while True:
        channel.write('{"!":"ready"}')
        program = channel.read()
        namespace: dict[str, Any] = {}
        try:
            # The prompt has helpers that some tests use; a test may also call the function by name.
            run_prompt(program["prompt"], namespace)
            namespace[program["entry_point"]] = candidate
            exec(compiled(program["test"]), namespace)
            namespace["check"](candidate)
        except BaseException as error:
            name = f"{type(error).__name__}: {error}"[:200]
            channel.write(json.dumps({"!": "failed", "error": name}))
        else:
            channel.write('{"!":"passed"}')
