"""Runs a benchmark's own test program, with the sample's code in another process.

`check(candidate)` runs here. `candidate` and whatever else the test uses of the sample's are
stand-ins (objects.py), so nothing that the sample does to its interpreter reaches the assertions.
Messages, one JSON per line:

    to it    {"prompt", "test", "entry_point"}    a program to run
    from it  {"!": "ready"}                       it waits for a program
             {"!": "passed"} or {"!": "failed", "error": name}
    both     what objects.py exchanges with the sample's process
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from channel import Channel, NoInput
from limits import set_limits
from objects import Peer


class Namespace(dict[str, Any]):
    """The test's globals; what neither it nor Python has is the sample's."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(__name__="__test__")
        self._peer = peer
        self.theirs = frozenset(peer.ask("names")) - set(dir(builtins))

    def __missing__(self, name: str) -> Any:
        if name not in self.theirs:
            raise KeyError(name)
        return self._peer.ask("name", name)


def spelled_by(prompt: str, test: str, entry_point: str) -> Callable[[str], bool]:
    """Return whether a task spells an operator (`__eq__`), or names a class (`class Stack`)."""
    bound, read, classes = set(dir(builtins)), {entry_point}, set()
    for source in (prompt, prompt.rstrip() + "\n    pass\n", test):
        try:
            nodes = list(ast.walk(ast.parse(source)))
        except SyntaxError:
            continue
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                classes.add(node.name)
            elif isinstance(node, ast.alias):
                bound.add((node.asname or node.name).split(".")[0])
            elif isinstance(node, ast.Name):
                (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    classes |= {name for name in read - bound if name[:1].isupper()}

    def spelled(name: str) -> bool:
        if name.startswith("class "):
            return name.removeprefix("class ") in classes
        return name in prompt or name in test

    return spelled


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
    sys.stdin = sys.stdout = sys.stderr = NoInput()
    while True:
        channel.write('{"!":"ready"}')
        error = run(channel, channel.read())
        verdict = {"!": "failed", "error": error} if error else {"!": "passed"}
        channel.write(json.dumps(verdict))


def run(channel: Channel, program: dict[str, str]) -> str:
    """Run a test program; return why it failed."""
    prompt, test, entry_point = program["prompt"], program["test"], program["entry_point"]
    peer = Peer(
        channel.read,
        channel.write,
        number=0,
        trusted=False,
        spelled=spelled_by(prompt, test, entry_point),
    )
    try:
        namespace = Namespace(peer)
        # The prompt has helpers that some tests use; a test may also call the function by name.
        run_prompt(prompt, namespace)
        for name in namespace.theirs & namespace.keys():
            if isinstance(namespace[name], type):  # the sample makes objects of its own class
                del namespace[name]
        candidate = namespace[entry_point] = peer.ask("name", entry_point)
        exec(compiled(test), namespace)
        namespace["check"](candidate)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:200]
    return str(peer.broken)
