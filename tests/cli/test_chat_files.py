"""Files in a question."""

import pytest

from eapo_agents.cli.chat_files import MAX_BYTES, with_files
from eapo_agents.errors import UsageError


def test_a_file_s_text_stands_once_after_the_question(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "my notes.md").write_text("two")
    asked, notes = with_files('Compare @a.txt, (@a.txt) and @"my notes.md". @a.txt.', tmp_path)
    assert (
        asked
        == "Compare a.txt, (@a.txt) and my notes.md. a.txt.\n\na.txt:\none\n\nmy notes.md:\ntwo"
    )
    assert notes == ["a.txt: 4 characters", "my notes.md: 3 characters"]
    kept = r"me@example.org and \@home"
    assert with_files(kept, tmp_path) == ("me@example.org and @home", [])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none", None, "There is no file 'none'"),
        ("huge", b"x" * (MAX_BYTES + 1), "larger than 64 KiB"),
        ("latin", "é".encode("latin-1"), "not a text in UTF-8"),
        ("zero", b"a\0b", "not a text in UTF-8"),
        (".", None, "is a folder"),
        ("~nobody-here/x", None, "There is no file"),
        ("x" * 300, None, "cannot be read|There is no file"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(tmp_path, name, content, why):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=why):
        with_files(f"Read @{name}", tmp_path)
