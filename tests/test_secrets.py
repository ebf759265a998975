"""Keys leave no text, however they are written and in whatever pieces they come."""

import base64
import json
from urllib.parse import quote

import pytest

from eapo_agents import secrets
from eapo_agents.cli.output import safe_text
from eapo_agents.secrets import RedactedStream, read_key, redact

KEY = 'sk-Te/st+"\\é-0123456789'


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", {})
    monkeypatch.setenv("EAPO_TEST_SECRET", KEY)
    read_key("EAPO_TEST_SECRET", wanted_by="A test")


def in_base64(before, after=""):
    return base64.b64encode(f"{before}{KEY}{after}".encode()).decode()


WRITTEN = {
    "as it is": KEY,
    "percent": quote(KEY),
    "percent, all": quote(KEY, safe=""),
    "percent, each character": "".join(f"%{b:02x}" for b in KEY.encode()),
    "JSON": json.dumps(KEY)[1:-1],
    "JSON in Unicode": json.dumps(KEY, ensure_ascii=False)[1:-1],
    "JSON with each slash escaped": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "JSON escapes alone": "".join(f"\\u{ord(c):04X}" for c in KEY),
    "hexadecimal": KEY.encode().hex(),
    "base64": in_base64(""),
    "base64, a byte before": in_base64("a", "z"),
    "base64, two bytes before": in_base64("ab", ":"),
    "base64 for URLs": base64.urlsafe_b64encode(f"?{KEY}?".encode()).decode(),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_key_is_found_however_it_is_written(name):
    said = redact(f"It is {WRITTEN[name]} today.")
    assert "[key]" in said
    assert said.startswith("It is ")
    assert said.endswith(" today.")
    assert len(said) < len("It is [key] today.") + 9  # base64 leaves what its neighbours share


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_stream_shows_what_the_whole_text_shows(name, size):
    text = f"sk-Te is no key, {WRITTEN[name]} is, sk-"
    shown = []
    stream = RedactedStream(shown.append)
    for start in range(0, len(text), size):
        stream(text[start : start + size])
    stream.end()
    assert "".join(shown) == redact(text)
    assert WRITTEN[name] not in "".join(shown)


def test_other_text_does_not_wait():
    shown = []
    stream = RedactedStream(shown.append)
    for piece in ("two ", "parts, "):
        stream(piece)
    assert shown == ["two ", "parts, "]


def test_a_key_that_begins_another_is_not_taken_out_of_it(monkeypatch):
    for key in ("short-key", "short-key-and-more"):
        monkeypatch.setenv("EAPO_TEST_SECRET", key)
        read_key("EAPO_TEST_SECRET", wanted_by="A test")
    assert redact("short-key-and-more") == "[key]"
    shown = []
    stream = RedactedStream(shown.append)
    for piece in ("short-key", "-and-", "more", " short-key"):
        stream(piece)
    stream.end()
    assert "".join(shown) == "[key] [key]"


def test_text_for_a_screen_has_no_key():
    assert safe_text(f"\x1b[31m401 for {KEY}") == "\ufffd[31m401 for [key]"
