"""Imports point left: eapo_agents <- graphs <- trainers, evals. Only eapo_agents/runs and
eapo_agents/cli import all of them, inside their functions."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "eapo_agents": {"eapo_agents"},
    "graphs": {"eapo_agents", "graphs"},
    "trainers": {"eapo_agents", "graphs", "trainers"},
    "evals": {"eapo_agents", "graphs", "evals"},
}


def only_for_types(node: ast.stmt) -> bool:
    """`if TYPE_CHECKING:`, which is never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imports(file: Path) -> list[tuple[str, bool]]:
    """(top-level package, whether at module level) of every import of ours in a file."""
    tree = ast.parse(file.read_text())
    top = set(
        map(
            id,
            ast.walk(
                ast.Module(
                    body=[
                        node
                        for node in tree.body
                        if not isinstance(
                            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
                        )
                        and not only_for_types(node)
                    ],
                    type_ignores=[],
                )
            ),
        )
    )
    found = []
    for node in ast.walk(tree):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        found += [(n.split(".")[0], id(node) in top) for n in names if n.split(".")[0] in ALLOWED]
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_is_to_its_left(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        imports_all = {"cli", "runs"} & set(file.relative_to(ROOT).parts)
        for name, at_module_level in imports(file):
            if imports_all and not at_module_level:
                continue
            assert name in ALLOWED[package], f"{file.relative_to(ROOT)} imports {name}"


def processor_time(*arguments) -> tuple[float, str]:
    """Seconds of the processor that Python takes at best of ten, and what it prints."""
    times = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times), result.stdout


def test_help_answers_in_under_three_tenths_of_a_second():
    seconds, shown = processor_time("-m", "eapo_agents.cli.main", "--help")
    assert "train" in shown
    # where two busy threads share a core, or the core is slow, some of the standard library takes
    # longer too: 0.05 s else
    library, _ = processor_time("-c", "import argparse, asyncio, email, http.client, inspect, json")
    assert seconds < max(0.3, 6 * library)


def test_help_loads_no_heavy_library():
    code = (
        "import sys, eapo_agents.cli.main as m\n"
        "heavy = 'torch transformers trl langgraph langchain_core sqlalchemy numpy pydantic'\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "[]", result.stderr


def test_the_library_of_runs_knows_no_terminal():
    for file in (ROOT / "eapo_agents" / "runs").rglob("*.py"):
        text = file.read_text()
        for word in ("import typer", "from typer", "import rich", "from rich", "print("):
            assert word not in text, f"{file.name} has {word!r}"
