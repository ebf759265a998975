"""A GGUF file is read once: the small model's package brings one."""

import os
import shutil
from pathlib import Path

import pytest

from eapo_agents.errors import ModelError
from eapo_agents.policy.gguf import plain_folder
from eapo_agents.policy.models import EMBEDDED, find_model, load_tokenizer, public_name


@pytest.fixture(scope="module")
def file(loaded_policy) -> Path:
    """The small model's, whose plain folder is there since it was loaded."""
    source = find_model(EMBEDDED)
    assert source.gguf_file
    return Path(source.location) / source.gguf_file


def test_the_same_file_elsewhere_has_the_same_folder_and_another_content_does_not(file, tmp_path):
    copy = tmp_path / "mine.gguf"
    shutil.copy(file, copy)
    folder = plain_folder(file)
    assert plain_folder(copy) == folder
    assert load_tokenizer(str(copy)).get_vocab() == load_tokenizer(EMBEDDED).get_vocab()
    assert public_name(str(copy)) == "mine.gguf"
    copy.write_bytes(b"no GGUF at all")
    with pytest.raises(ModelError, match="cannot be loaded from"):
        load_tokenizer(str(copy))
    assert not list(folder.parent.glob(f".*.{os.getpid()}.tmp"))


def test_a_file_that_is_missing_and_a_cache_that_cannot_be_written_are_said(
    file, tmp_path, monkeypatch
):
    with pytest.raises(ModelError, match=r"no model folder or GGUF file 'missing\.gguf'"):
        find_model("missing.gguf")
    (tmp_path / "taken").write_text("a file, where a folder is wanted")
    monkeypatch.setenv("EAPO_CACHE", str(tmp_path / "taken"))
    with pytest.raises(ModelError, match="another folder in EAPO_CACHE"):
        load_tokenizer(EMBEDDED)
