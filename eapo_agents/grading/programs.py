"""Finds the program in a chat model's reply.

The fenced block that defines the wanted name is the program, the last one if there are several.
What it lacks is taken from the reply's other blocks and from the prompt. Lines that only try the
program out (asserts, prints, `input()`, `unittest.main()`) are left out, as evalplus's sanitiser
leaves them out: the benchmark's tests judge, not the model's own.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from eapo_agents.grading.extraction import final_text

_OPENING = re.compile(r"^([ \t>]*)((?:[-*+]|\d{1,3}[.)])[ \t]+)?(`{3,}|~{3,})[ \t]*([^`\n]*)$")
_END_OF_TURN = re.compile(r"(?:<\|[^|>]*\|>|</s>|<eos>|<end_of_turn>)+\Z")
_LANGUAGES = re.compile(r"(?:i?python[\d.]*|py[\d.]*|pycon)?", re.IGNORECASE)
_MAX_ENDS = 20
"""Fences that are tried as the end of one block."""
_MAX_TRIED_CHARS = 100_000
_MAX_PARSED_CHARS = 3_000_000
"""Of all tries to find a program in running text."""
_STARTS = re.compile(r"(?:import|from|def|class|async)\b|@")
_READS = frozenset({"input", "exit", "quit", "breakpoint", "open"})
_TRIES = frozenset({"unittest", "doctest", "pytest"})
_BUILTINS = frozenset(dir(builtins))
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def find_program(text: str, *, prompt: str, entry_point: str, test: str = "") -> str:
    """Return the program in a reply.

    Args:
        prompt: code that the reply may continue; its imports and helpers come first.
        entry_point: the name that the program defines.
        test: the test program; names that it uses are kept.
    """
    if "<think>" in text or "</think>" in text:
        text = final_text(text)
    text = text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")
    blocks = [_Block.read(body) for body in code_blocks(text)]
    entries = [block for block in blocks if entry_point in block.defines]
    if entries:
        written = [block for block in entries if not _is_stub(block, entry_point)]
        return _assembled((written or entries)[-1], blocks, prompt, entry_point, test)
    if blocks:
        return _continued(prompt, [block.source for block in blocks])
    whole = _Block.read(_parsing_part(text))
    if entry_point in whole.defines:
        return _assembled(whole, [], prompt, entry_point, test)
    return prompt + text


def code_blocks(text: str) -> list[str]:
    """Return fenced blocks of Python, or without a language, in order.

    An unclosed one counts. A fence inside a string, such as a docstring, does not end a block: the
    first fence ends it that leaves a program.
    """
    lines = text.split("\n")
    found = []
    at = 0
    while at < len(lines):
        opening = _OPENING.match(lines[at])
        at += 1
        if opening is None:
            continue
        margin = len(opening[1]) + len(opening[2] or "")
        body, at = _body(lines, at, opening[3], margin)
        language = (opening[4].strip(" \t{}.").split() or [""])[0]
        if _LANGUAGES.fullmatch(language.split(",")[0].split(":")[0]):
            found.append(_typed(body))
    return found


def _typed(body: str) -> str:
    """Return what was typed in an interpreter's session; another block as it is."""
    if not body.lstrip().startswith(">>> "):
        return body
    return "".join(f"{line[4:]}\n" for line in body.split("\n") if line[:3] in (">>>", "..."))


def _body(lines: list[str], start: int, fence: str, margin: int) -> tuple[str, int]:
    """Return the block that begins at a line, and the number of the line behind it."""
    first: int | None = None
    tries = 0
    for number in range(start, len(lines)):
        line = _END_OF_TURN.sub("", lines[number].strip(" \t")).strip(" \t>")
        if not line.startswith(fence) or line.strip(fence[0]):
            continue
        first = number if first is None else first
        body = _without_margin(lines[start:number], margin)
        inside_string = any(body.count(quotes) % 2 for quotes in ('"""', "'''"))
        if not inside_string and (number == first or _parsed(body) is not None):
            return body, number + 1
        tries += 1
        if tries == _MAX_ENDS or len(body) > _MAX_TRIED_CHARS:
            break
    end = len(lines) if first is None else first
    return _without_margin(lines[start:end], margin), end + 1


def _without_margin(lines: list[str], margin: int) -> str:
    """Return lines without the indentation of their fence."""
    kept = [line[min(margin, len(line) - len(line.lstrip(" \t>"))) :] for line in lines]
    return "\n".join(kept) + "\n" if kept else ""


def _parsed(source: str) -> ast.Module | None:
    """Return the tree of a program, or of an indented part of one."""
    for text in (source, textwrap.dedent(source), source.replace("\xa0", " ")):
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
    return None


@dataclass(slots=True)
class _Block:
    """A block of code, with its statements if it is a program."""

    source: str
    statements: list[ast.stmt] = field(default_factory=list)
    defines: frozenset[str] = frozenset()

    @classmethod
    def read(cls, source: str) -> _Block:
        for text in (source, source.replace("\xa0", " "), textwrap.dedent(source)):
            try:
                statements = ast.parse(text).body
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            return cls(text, statements, frozenset().union(*map(_bound, statements)))
        names = re.findall(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", source, re.MULTILINE)
        return cls(source, [], frozenset(names))

    def text_of(self, statement: ast.stmt) -> str:
        """Return a statement's lines, with its decorators."""
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(d.lineno for d in decorators)])
        return "".join(self.source.splitlines(True)[first - 1 : statement.end_lineno])


def _is_stub(block: _Block, entry_point: str) -> bool:
    """Whether a block only shows the head of the function."""
    for statement in block.statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            body = [
                s for s in statement.body if not _is_constant(s) and not isinstance(s, ast.Pass)
            ]
            if statement.name == entry_point:
                return not body
    return False


def _is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _continued(prompt: str, bodies: list[str]) -> str:
    """Return the prompt with the first body that continues it, as it is or indented."""
    for body in bodies:
        dedented = textwrap.dedent(body)
        for continuation in (body, textwrap.indent(dedented, "    ")):
            tree = _strictly_parsed(prompt + continuation)
            if tree and continuation.strip():
                return prompt + continuation
    return prompt + bodies[0]


def _strictly_parsed(source: str) -> bool:
    try:
        compile(source, "<program>", "exec", flags=ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return not re.search(r"^return\b", source, re.MULTILINE)


def _assembled(main: _Block, blocks: list[_Block], prompt: str, entry_point: str, test: str) -> str:
    """Return the program: the prompt's helpers, what other blocks give, and the main block."""
    helpers = _helpers(prompt, entry_point)
    if not main.statements:
        return _future_first(helpers + main.source)
    wanted = {entry_point} | _names_of(test)
    kept = _kept(main, wanted, entry_point)
    if kept is None:
        return _future_first(helpers + main.source)
    missing = set().union(*map(_free, kept)) - main.defines - _BUILTINS
    parts: list[str] = []
    for block in reversed([b for b in blocks if b is not main]):
        given = [s for s in block.statements if entry_point not in _bound(s)]
        needed = _closure(given, missing)
        taken = [s for s in given if _is_definition(s) and _bound(s) & needed]
        parts.insert(0, "".join(_line(block.text_of(s)) for s in taken))
        missing |= set().union(*map(_free, taken)) if taken else set()
        missing -= set().union(*map(_bound, taken)) if taken else set()
    body = main.source
    if len(kept) < len(main.statements):
        body = "".join(_line(main.text_of(s)) for s in kept)
    return _future_first(helpers + "".join(parts) + body)


def _line(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _kept(block: _Block, wanted: set[str], entry_point: str) -> list[ast.stmt] | None:
    """Return the statements of a program without those that only try it out; None if two of them
    share a line."""
    lines = [line for s in block.statements for line in {s.lineno, s.end_lineno or s.lineno}]
    if len(lines) != len(set(lines)):
        return None
    needed = _closure(block.statements, wanted)
    imports = [s for s in block.statements if _is_import(s)]
    gone = set(_TRIES)
    for statement in imports:
        names = _bound(statement)
        if not (names & needed or "*" in names or _is_standard(statement)):
            gone |= names
    imported = set().union(*map(_bound, imports)) - gone

    def is_kept(statement: ast.stmt) -> bool:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return statement.name in needed or not _read_by_head(statement) & gone
        if _is_import(statement):
            return not _bound(statement) & gone or bool(_bound(statement) & needed)
        if isinstance(statement, ast.Assert) or _is_main(statement):
            return False
        touched, used = _bound(statement) | _touched(statement), _free(statement)
        if isinstance(statement, ast.Expr):
            tries = used & ({entry_point} | _READS | gone) or _is_stream(statement)
            return _is_constant(statement) or (bool(touched & (needed | imported)) and not tries)
        if isinstance(statement, ast.Assign) and touched & imported and entry_point not in used:
            return True
        return bool(touched & needed)

    return [s for s in block.statements if is_kept(s)]


def _read_by_head(statement: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    """Return the names that are read when a definition runs: decorators, bases, defaults."""
    parts: list[ast.AST] = list(statement.decorator_list)
    if isinstance(statement, ast.ClassDef):
        parts += statement.bases
    else:
        parts.append(statement.args)
        parts += [statement.returns] if statement.returns else []
    return {n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)}


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _is_standard(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        modules = [statement.module or ""]
    else:
        modules = [a.name for a in statement.names] if isinstance(statement, ast.Import) else []
    return all(m.split(".")[0] in sys.stdlib_module_names for m in modules)


def _is_definition(statement: ast.stmt) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    return isinstance(statement, kinds) or _is_import(statement)


def _is_main(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and "__name__" in _free(statement.test)


def _is_stream(statement: ast.Expr) -> bool:
    said = ast.dump(statement.value)
    return any(f"attr='{name}'" in said for name in ("stdin", "stdout", "stderr", "exit", "_exit"))


def _closure(statements: list[ast.stmt], wanted: set[str]) -> set[str]:
    """Return the names that a program needs to define `wanted`."""
    free = [(_bound(s) | _touched(s), s) for s in statements]
    needed = set(wanted)
    while True:
        more = set().union(*(_free(s) for touched, s in free if touched & needed), set()) - needed
        if not more:
            return needed
        needed |= more


def _bound(statement: ast.stmt) -> frozenset[str]:
    """Return the names that a statement of a module binds."""
    return frozenset(_stores(statement))


def _stores(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((a.asname or a.name.split(".")[0]) for a in node.names)
    elif isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            yield node.id
    elif not isinstance(node, (ast.Lambda, *_COMPREHENSIONS)):
        for child in ast.iter_child_nodes(node):
            yield from _stores(child)


def _touched(statement: ast.stmt) -> frozenset[str]:
    """Return the names whose objects a statement may change: `x` of `x.y = 1`, `x[0] = 1`,
    `x.append(1)`."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return frozenset()
    found = set()
    for node in ast.walk(statement):
        changed = (
            node.func
            if isinstance(node, ast.Call)
            else node
            if isinstance(node, ast.Attribute | ast.Subscript)
            and not isinstance(node.ctx, ast.Load)
            else None
        )
        while isinstance(changed, ast.Attribute | ast.Subscript | ast.Call):
            changed = changed.func if isinstance(changed, ast.Call) else changed.value
            if isinstance(changed, ast.Name):
                found.add(changed.id)
    return frozenset(found)


def _free(node: ast.AST) -> set[str]:
    """Return the names that a node reads and does not bind in functions of its own."""
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Load) else set()
    found = set().union(*map(_free, ast.iter_child_nodes(node)), set())
    if isinstance(node, _COMPREHENSIONS):
        return found - {n for g in node.generators for n in _stores(g.target)}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        given = node.args
        names = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        body = node.body if isinstance(node.body, list) else [node.body]
        stored = {name for part in body for name in _stores(part)}
        shared = {n for g in ast.walk(node) if isinstance(g, ast.Global) for n in g.names}
        found = (found - {a.arg for a in names if a} - stored) | shared
    return found


def _names_of(test: str) -> set[str]:
    tree = _parsed(test)
    return set() if tree is None else {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def _helpers(prompt: str, entry_point: str) -> str:
    """Return the prompt without what is to be written."""
    try:
        statements = ast.parse(prompt).body
    except (SyntaxError, ValueError):
        return ""
    kept = [s for s in statements if entry_point not in _bound(s)]
    return ast.unparse(ast.Module(body=kept, type_ignores=[])) + "\n" if kept else ""


def _future_first(program: str) -> str:
    """Move `from __future__ import ...` to the beginning, where Python wants it."""
    if "__future__" not in program:
        return program
    try:
        statements = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program
    lines = program.splitlines(True)
    moved: list[str] = []
    for statement in reversed(statements):
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            moved.insert(0, ast.unparse(statement) + "\n")
            lines[statement.lineno - 1 : statement.end_lineno] = []
    return "".join([*moved, *lines])


def _parsing_part(text: str) -> str:
    """Return the longest run of lines, from a first line of code, that is a program."""
    lines = text.split("\n")
    left = _MAX_PARSED_CHARS
    for start in (i for i, line in enumerate(lines) if _STARTS.match(line)):
        for end in range(len(lines), start, -1):
            run = "\n".join(lines[start:end])
            left -= len(run)
            if left < 0:
                return text
            try:
                ast.parse(run)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            return run + "\n"
    return text
