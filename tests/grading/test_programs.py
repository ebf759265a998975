"""Replies as chat models write them: the program in them is the one that is run."""

import textwrap
import time

import pytest

from eapo_agents.grading.programs import find_program

PROMPT = (
    "from typing import List\n\n\ndef double(xs: List[int]) -> List[int]:\n    '''Twice each.'''\n"
)
RIGHT = "def double(xs):\n    return [2 * x for x in xs]\n"
WRONG = "def double(xs):\n    return xs\n"


def block(*parts, language="python", fence="```"):
    return f"{fence}{language}\n{''.join(parts)}{fence}\n"


HELPER = "def _two(x):\n    return 2 * x\n"
WITH_HELPER = "def double(xs):\n    return [_two(x) for x in xs]\n"
REPLIES = {
    "indented in a list": "1. So:\n\n" + textwrap.indent(block(RIGHT), "   "),
    "behind a bullet": "- ```python\n" + textwrap.indent(RIGHT, "  ") + "  ```\n",
    "quoted": textwrap.indent(block(RIGHT), "> "),
    "indented by a tab": textwrap.indent(block(RIGHT), "\t"),
    "indented inside the fence": block(textwrap.indent(RIGHT, "    ")),
    "windows line ends": block(RIGHT).replace("\n", "\r\n"),
    "an interpreter's session with its own name": block(
        ">>> def double(xs):\n...     return [2 * x for x in xs]\n...\n>>> double([1])\n[2]\n",
        language="pycon",
    ),
    "a class that does the work": block(
        "class Twice:\n    def of(self, x):\n        return 2 * x\n\n\n",
        "def double(xs):\n    return [Twice().of(x) for x in xs]\n",
    ),
    "an async helper": block(
        "import asyncio\n\n\nasync def two(x):\n    return 2 * x\n\n\n",
        "def double(xs):\n    return [asyncio.run(two(x)) for x in xs]\n",
    ),
    "byte order mark": block("\ufeff" + RIGHT),
    "no-break spaces": block(RIGHT.replace("    ", "\xa0\xa0\xa0\xa0")),
    "tildes": block(RIGHT, fence="~~~"),
    "four backticks": block(RIGHT, fence="````"),
    "attributes": block(RIGHT, language="{.python .numberLines}"),
    "a title": block(RIGHT, language="python title=a.py"),
    "version in the language": block(RIGHT, language="Python3.11"),
    "backticks in a docstring": block(
        "def double(xs):\n    '''\n    ```\n    double([1])\n    ```\n    '''\n",
        "    return [2 * x for x in xs]\n",
    ),
    "a block in a docstring": block(
        'def double(xs):\n    """\n    ```python\n    double([1])\n    ```\n    """\n',
        "    return [2 * x for x in xs]\n",
    ),
    "helper before": block(HELPER) + "Then\n" + block(WITH_HELPER),
    "helper behind": block(WITH_HELPER) + "with\n" + block(HELPER),
    "helper of the first try": block(HELPER, WRONG) + "Better:\n" + block(WITH_HELPER),
    "import before": block("from math import prod\n")
    + block("def double(xs):\n    return [prod((2, x)) for x in xs]\n"),
    "constant before": block("TWO = 2\n")
    + block("def double(xs):\n    return [TWO * x for x in xs]\n"),
    "helpers of helpers": block("TWO = 2\n")
    + block("def _two(x):\n    return TWO * x\n")
    + block(WITH_HELPER),
    "a table that is filled": block(
        "TABLE = {}\nfor n in range(-9, 10):\n    TABLE[n] = 2 * n\n",
        "def double(xs):\n    return [TABLE[x] for x in xs]\n",
    ),
    "a list that is filled": block(
        "ADDED = []\nADDED.append(2)\ndef double(xs):\n    return [ADDED[0] * x for x in xs]\n"
    ),
    "signature behind": block(RIGHT) + "It has this form:\n" + block("def double(xs): ...\n"),
    "revised": block(WRONG) + "No, it is\n" + block(RIGHT),
    "output behind": block(RIGHT) + "gives\n" + block("[2, 4]\n", language=""),
    "other languages beside": block("let a = 1;\n", language="js") + block(RIGHT),
    "a wrong assert": block(RIGHT, "assert double([1]) == [3]\n"),
    "input": block(RIGHT, "n = int(input())\nprint(double([n]))\n"),
    "a loop over input": block(
        RIGHT, "import sys\nfor line in sys.stdin:\n    double([int(line)])\n"
    ),
    "exit": block(RIGHT, "import sys\nsys.exit(double([1])[0])\n"),
    "unittest": block(
        "import unittest\n",
        RIGHT,
        "class T(unittest.TestCase):\n    def test(self):\n",
        "        self.assertEqual(double([1]), [3])\nunittest.main()\n",
    ),
    "pytest, not there": block("import no_pytest_here\n", RIGHT, "no_pytest_here.main()\n"),
    "doctest": block("import doctest\n", RIGHT, "doctest.testmod()\n"),
    "a main program": block(RIGHT, "if __name__ == '__main__':\n    print(double([1]))\n"),
    "a program that ends": block(RIGHT, "quit()\n"),
    "a loop of checks": block(RIGHT, "for x in [1]:\n    assert double([x]) == [0]\n"),
    "a limit is set": block("import sys\nsys.setrecursionlimit(5000)\n", RIGHT),
    "future import": block("from __future__ import annotations\n", RIGHT),
    "future import behind a docstring": block(
        "'''Doubles.'''\nfrom __future__ import annotations\n", RIGHT
    ),
    "future import in the other block": block("from __future__ import annotations\n", HELPER)
    + block("from __future__ import division\n", WITH_HELPER),
    "lambda": block("double = lambda xs: [2 * x for x in xs]\n"),
    "class": block(
        "class double(list):\n    def __new__(cls, xs):\n        return [2 * x for x in xs]\n"
    ),
    "decorated": block("import functools\n", "def same(f):\n    return f\n@same\n" + RIGHT),
    "renamed": block("def twice(xs):\n    return [2 * x for x in xs]\ndouble = twice\n"),
    "either import": block(
        "try:\n    import numpy_ as np\nexcept ImportError:\n    np = None\n", RIGHT
    ),
    "the body alone": block("    return [2 * x for x in xs]\n"),
    "the body, not indented": block("return [2 * x for x in xs]\n"),
    "semicolons": block(
        "import math; TWO = 2\n", "def double(xs):\n    return [TWO * x for x in xs]\n"
    ),
    "text around it": f"Sure, from here on:\n\nimport math\n{RIGHT}\nIt doubles.\n",
    "an interpreter's session": block(
        ">>> def double(xs):\n...     return [2 * x for x in xs]\n...\n>>> double([1])\n[2]\n"
    ),
    "an end of turn behind the fence": block(RIGHT).rstrip("\n") + "<|im_end|>",
    "cut off behind it": block(RIGHT) + "```python\nprint(dou",
}


@pytest.mark.parametrize("name", REPLIES)
def test_the_program_of_a_reply_runs(name):
    program = find_program(REPLIES[name], prompt=PROMPT, entry_point="double")
    namespace = {}
    exec(compile(program, "<program>", "exec", dont_inherit=True), namespace)
    assert namespace["double"]([1, -2]) == [2, -4], program


def test_what_the_test_uses_is_kept():
    reply = block(HELPER, WITH_HELPER, "LIMIT = 3\nother = 4\n")
    program = find_program(
        reply, prompt=PROMPT, entry_point="double", test="def check(c):\n    assert LIMIT == 3\n"
    )
    assert "LIMIT = 3" in program
    assert "other" not in program


def test_a_wrong_program_stays_wrong():
    reply = block(RIGHT) + "No:\n" + block(WRONG, "assert double([1]) == [1]\n")
    namespace = {}
    exec(find_program(reply, prompt=PROMPT, entry_point="double"), namespace)
    assert namespace["double"]([1]) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "```\n" * 30_000,
        "```python\n'''\n" * 20_000,
        "def double(" * 20_000,
        "import a\n" * 30_000 + "(",
        "(" * 100_000,
        "```python\n" + "x = [" * 50_000,
        "```python\n" + "- " * 100_000 + "1\n```",
    ],
)
def test_hostile_text_costs_little_time(text):
    started = time.process_time()
    find_program(text, prompt=PROMPT, entry_point="double")
    assert time.process_time() - started < 10  # CPU time: it is far below on any machine
