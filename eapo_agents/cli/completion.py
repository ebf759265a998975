"""What the shell proposes for values: recipes, arms, benchmarks, graphs, experts, policies.

A shell waits for each of these, so names come from files, without the libraries behind them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

_SHIPPED = Path(__file__).parents[1] / "recipes"
GRAPHS = ("consult", "solo", "workflow", "leap", "hinted", "critique")
"""As in `graphs.builders`, which takes seconds to import."""
MOST = 200
"""Folders that are looked at under runs/: a shell does not wait for more."""


def recipes(incomplete: str) -> list[str]:
    """Return recipes, those of ./recipes too, and behind a `+` the arms."""
    base, plus, _ = incomplete.rpartition("+")
    if plus:
        return _fitting([f"{base}+{arm}" for arm in _names("arms")], incomplete)
    files = [str(file) for file in sorted(Path().glob("*.yaml"))]
    return _fitting([*_names(""), *files], incomplete)


def arms(incomplete: str) -> list[str]:
    """Return the arms, behind those that are named already."""
    return _behind_commas(_names("arms"), incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """Return the benchmarks, behind those that are named already."""
    from evals.benchmarks import BENCHMARKS

    return _behind_commas(BENCHMARKS, incomplete)


def graphs(incomplete: str) -> list[str]:
    """Return the graphs that ship."""
    return _fitting(GRAPHS, incomplete)


def experts(context: typer.Context, incomplete: str) -> list[str]:
    """Return the experts of the recipe that the line names so far."""
    import yaml

    from eapo_agents.cli.options import DEFAULT_RECIPE

    name = str(context.params.get("recipe") or DEFAULT_RECIPE).partition("+")[0]
    for file in (Path(name), Path("recipes") / f"{name}.yaml", _SHIPPED / f"{name}.yaml"):
        if file.is_file():
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
            return _fitting((found.get("consult") or {}).get("experts") or {}, incomplete)
    return []


def policies(incomplete: str) -> list[str]:
    """Return trained policies and runs in ./runs, and folders as the shell would."""
    found = [str(file.parent) for file in _some(Path("runs").glob("**/eapo_policy.json"))]
    return _fitting(found, incomplete) or [
        f"{folder}/" for folder in _some(Path().glob(f"{incomplete}*")) if folder.is_dir()
    ]


def _behind_commas(names: Iterable[str], incomplete: str) -> list[str]:
    before, comma, _ = incomplete.rpartition(",")
    return _fitting([f"{before}{comma}{name}" for name in names], incomplete)


def _names(folder: str) -> list[str]:
    tops = (_SHIPPED / folder, Path("recipes") / folder)
    return sorted({file.stem for top in tops for file in top.glob("*.yaml")})


def _some(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path, _ in zip(paths, range(MOST), strict=False))


def _fitting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
