"""Runs a benchmark's own test program, with the sample's function in another process.

`check(candidate)` runs here. `candidate` is a stand-in: its calls go as plain data to the process
that has the sample's code, and values come back as plain data. So nothing that the sample does to
its interpreter reaches the assertions. Messages, one JSON per line:

    to it    {"prompt", "test", "entry_point"}    a program to run
             {"value": text} or {"raised": name}  how the last call ended
    from it  {"!": "ready"}                       it waits for a program
             {"call": text}                       call the sample's function
             {"!": "passed"} or {"!": "failed", "error": name}
"""

from __future__ import annotations

import json
import sys
from types import CodeType
from typing import Any

from channel import Channel
from limits import set_limits
from values import from_text, to_text


class CandidateError(Exception):
    """The sample's function raised."""


def run_prompt(prompt: str, namespace: dict[str, Any]) -> None:
    """Run code that ends with a function's head, with or without a docstring as its body."""
    try:
        program = compiled(prompt)
    except SyntaxError:
        program = compiled(prompt.rstrip() + "\n    pass\n")  # the head has no body
    exec(program, namespace)


def compiled(source: str) -> CodeType:
    """Compile code that does not inherit this file's own future imports."""
    return compile(source, "<test>", "exec", dont_inherit=True)


def main() -> None:
    """Run test programs until the harness closes the pipe."""
    start = json.loads(sys.argv[1])
    channel = Channel()
    set_limits(start["limits"])
    sys.path.extend(start["paths"])

    def candidate(*arguments: object, **named: object) -> object:
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
