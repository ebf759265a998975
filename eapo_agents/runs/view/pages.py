"""Renders the templates. Whatever is put into them is text: it is escaped, without control
characters and without keys."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from eapo_agents.runs.view.curves import short
from eapo_agents.secrets import redact

if TYPE_CHECKING:
    from jinja2 import Environment

NONE = "–"  # noqa: RUF001  # a dash that stands in tables
_SHORT = 160
_TURNS_AROUND = {
    *"\u200e\u200f\u061c",
    *(chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))),
}
"""Marks that change the direction of what follows, so that a text reads as another one."""
_ODD = re.compile(r"[^\n\t -~]")


def asset(name: str) -> str:
    """Return the text of a file beside the templates."""
    return files("eapo_agents.runs.view").joinpath("templates", name).read_text("utf-8")


def visible(text: str) -> str:
    """Return a text without keys, whose control characters are shown and do nothing."""
    text = redact(text)
    return text if _ODD.search(text) is None else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in "\n\t" or (" " <= character <= "~"):
        return character
    if character in _TURNS_AROUND:
        return "\ufffd"
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # its picture
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cs") else character


def _finalize(value: object) -> object:
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value)
    return "" if value is None else value


def address(page: str, /, **parts: object) -> str:
    """Return a page's address; parts without a value are left out."""
    given = {key: str(value) for key, value in parts.items() if value not in (None, "")}
    path = "/" if page == "runs" else f"/{page}"
    return f"{path}?{urlencode(given, errors='replace')}" if given else path


def _percent(value: float | None, digits: int = 1) -> str:
    return NONE if value is None else f"{value:.{digits}%}"


def _interval(bounds: Any) -> str:  # two numbers, or None
    return "" if not bounds else f"[{bounds[0]:.1%}, {bounds[1]:.1%}]"


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return NONE
    return short(float(value)) if digits is None else f"{value:,.{digits}f}"


def _signed(value: float | None, digits: int = 3) -> str:
    return NONE if value is None else f"{value:+.{digits}f}" if value else "0"


def _money(value: float | None) -> str:
    if value is None:
        return "unpriced"
    return "free" if value == 0 else f"${value:.4f}" if value < 1 else f"${value:,.2f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def _when(text: str) -> str:
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


def _one_line(text: str | None, length: int = _SHORT) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def _as_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@cache
def environment(*, linked: bool = True) -> Environment:
    """Return the templates' environment.

    Args:
        linked: whether pages lead to other pages; a single exported page does not.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("eapo_agents.runs.view"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # an update of the package must not reach a view that is open
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": _percent,
        "interval": _interval,
        "number": _number,
        "signed": _signed,
        "money": _money,
        "seconds": _seconds,
        "when": _when,
        "one_line": _one_line,
        "as_json": _as_json,
    }
    made.filters.update(filters)
    made.globals["url"] = address if linked else _no_address
    made.globals["linked"] = linked
    return made


def _no_address(page: str, /, **parts: object) -> str:
    return ""


def render(template: str, values: Mapping[str, object], *, linked: bool = True) -> str:
    """Return a page."""
    return environment(linked=linked).get_template(template).render(**values)
