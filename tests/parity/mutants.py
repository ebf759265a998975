"""Wrong and odd programs, made from right ones: what real samples do, and what no sample should."""

import ast
import copy
import random

_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv,
              ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv}  # fmt: skip
_COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
                ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn}  # fmt: skip


def _around(line, before=""):
    """A program that calls the right one and does something with its result `r`."""
    return f"{{code}}\n{before}_f = {{f}}\ndef {{f}}(*a):\n    r = _f(*a)\n    {line}\n"


def _instead(lines, before=""):
    """A program that never calls the right one."""
    return f"{{code}}\n{before}def {{f}}(*a):\n    {lines}\n"


_ODD = {
    "generator": _around("yield from r"),
    "tuple": _around("return tuple(r) if isinstance(r, list) else (r,)"),
    "list": _around("return list(r) if isinstance(r, (tuple, str, set)) else r"),
    "float": _around("return float(r) if isinstance(r, int) else r"),
    "numpy": _around(
        "return np.float64(r) if isinstance(r, float) else "
        "np.array(r) if isinstance(r, list) else r",
        "import numpy as np\n",
    ),
    "nearly": _around("return r * (1 + 1e-9) if isinstance(r, float) else r"),
    "string": _around("return str(r)"),
    "iterator": _around("return map(lambda x: x, r) if isinstance(r, list) else r"),
    "nothing": _around("pass"),
    "true": _instead("return True"),
    "raises": _instead("raise ValueError('x')"),
    "exits": _instead("sys.exit(0)", "import sys\n"),
    "exits_hard": _instead("os._exit(0)", "import os\n"),
    "exit": _instead("exit()"),
    "prints": _around("print('x' * 1000)\n    return r"),
    "reads": _around("input()\n    return r"),
    "cwd": _around("os.getcwd()\n    return r", "import os\n"),
    "syntax": "{code}\ndef broken(:\n",
    "shared": "{code}\n_f = {f}\ndef {f}(*a, seen=[]):\n    seen.append(1)\n"
    "    return _f(*a) if len(seen) < 4 else None\n",
    "mutates": _around("[x.clear() for x in a if isinstance(x, list)]\n    return r"),
    "subclass": _around(
        "return L(r) if isinstance(r, list) else D(r) if isinstance(r, dict) else r",
        "class L(list): pass\nclass D(dict): pass\n",
    ),
    "module": "{code}\nimport psutil\n",
    "main": "{code}\nif __name__ == '__main__':\n    raise SystemExit\n",
    "threads": _around(
        "t = threading.Thread(target=lambda: None)\n    t.start()\n    t.join()\n    return r",
        "import threading\n",
    ),
    "loops": _instead("while True: pass"),
    "swallows": "{code}\ndef {f}(*a):\n    while True:\n        try:\n"
    "            while True: x = 1\n        except Exception: x = 2\n",
    "recursion": _instead("return {f}(*a)"),
    "process": _around("subprocess.run(['true'])\n    return r", "import subprocess\n"),
    "class": "{code}\n_f = {f}\nclass _C:\n    def __call__(self, *a):\n"
    "        return _f(*a)\n{f} = _C()\n",
    "lambda": "{code}\n_f = {f}\n{f} = lambda *a: _f(*a)\n",
    "bool": _around("return int(r) if isinstance(r, bool) else r"),
    "annotated": "from __future__ import annotations\n{code}\n",
    "unicode": _around("return r + '\\ud800' if isinstance(r, str) else r"),
    "nan": _around("return float('nan') if isinstance(r, float) else r"),
    "huge": _around("return r + 10 ** 5000 if type(r) is int else r"),
}
ODD = tuple(_ODD)


def odd(name: str, code: str, entry_point: str) -> str:
    """The odd program of that name, made from a right one."""
    return _ODD[name].replace("{code}", code).replace("{f}", entry_point)


SLOW = ("loops", "swallows")
"""They take as long as they may: one of each is enough."""


def mutants(code: str, entry_point: str, seed: str, num: int) -> list[tuple[str, str]]:
    """`num` programs that differ from this one in one place of its function: (name, program).

    A completion cannot change the prompt before it, such as a helper that the test uses too.
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    rng = random.Random(seed)
    function = next(
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == entry_point
    )
    inside = set(ast.walk(function))
    places = [(n, i) for i, n in enumerate(ast.walk(tree)) if n in inside and _can_change(n)]
    rng.shuffle(places)
    made = []
    for _, index in places[:num]:
        changed = copy.deepcopy(tree)
        node = list(ast.walk(changed))[index]
        _change(node, rng)
        ast.fix_missing_locations(changed)
        try:
            made.append((f"{type(node).__name__}@{index}", ast.unparse(changed)))
        except Exception:
            continue
    return made


def _can_change(node):
    if isinstance(node, ast.BinOp):
        return type(node.op) in _OPERATORS
    if isinstance(node, ast.Compare):
        return type(node.ops[0]) in _COMPARISONS
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or node.value == ""
    return isinstance(node, ast.Return | ast.If | ast.BoolOp)


def _change(node, rng):
    if isinstance(node, ast.BinOp):
        node.op = _OPERATORS[type(node.op)]()
    elif isinstance(node, ast.Compare):
        node.ops[0] = _COMPARISONS[type(node.ops[0])]()
    elif isinstance(node, ast.Constant):
        node.value = " " if node.value == "" else node.value + rng.choice((-1, 1))
    elif isinstance(node, ast.Return):
        node.value = rng.choice((None, ast.Constant(value=0), ast.Constant(value=None)))
    elif isinstance(node, ast.If):
        node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)
    else:
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
