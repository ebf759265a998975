"""Folders that are there whole or not at all."""

import os
import subprocess
import sys

import pytest

from eapo_agents.files import whole_folder


def test_what_a_killed_process_had_begun_is_removed_and_a_live_one_s_is_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = tmp_path / f".model.{ended.pid}.tmp"
    others = tmp_path / f".model.{os.getppid()}.tmp"
    for begun in (left, others):
        begun.mkdir()
        (begun / "weights").write_text("half")
    with whole_folder(tmp_path / "model") as unfinished:
        (unfinished / "weights").write_text("all")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "weights").read_text() == "all"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["model", others.name])


def fill(folder, text, fails=False, first_stays=False):
    with whole_folder(folder, first_stays=first_stays) as unfinished:
        (unfinished / "weights").write_text(text)
        if fails:
            raise ValueError("full")


def test_an_error_in_the_middle_leaves_nothing_and_what_is_there_stays(tmp_path):
    with pytest.raises(ValueError, match="full"):
        fill(tmp_path / "model", "half", fails=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "model").mkdir()
    fill(tmp_path / "model", "first")
    fill(tmp_path / "model", "second", first_stays=True)
    with pytest.raises(OSError, match="not empty"):
        fill(tmp_path / "model", "third")
    assert (tmp_path / "model" / "weights").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1
