"""Data sets of the hub, or of a folder, by the library `datasets`: `hub:owner/name[/config]`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from eapo_agents.errors import TaskError
from eapo_agents.tasks.files import Numbered

PREFIX = "hub:"
_HELD_OUT = ("test", "validation", "valid", "dev")
"""Splits of the hub that are the held-out part, the first that is there."""


def read_hub(name: str) -> Iterator[Numbered]:
    """Yield the records of a data set's train and held-out splits. Where it has only one split, its
    records say no split.

    Raises:
        TaskError: it is not in the cache and cannot be loaded, or names a folder that is not there.
    """
    given = name.removeprefix(PREFIX)
    folder = Path(given).expanduser()
    if given.startswith(("/", ".", "~")) and not folder.is_dir():
        # split at its slashes, `/home/…` would be the data set `/home`: every file of it is read
        raise TaskError(
            f"The data set '{name}' cannot be loaded: there is no folder '{given}'. Name one that "
            "is there, or hub:owner/name."
        )
    path, config = _parts(str(folder))
    found = _load(name, path, config)
    there = list(found)
    held_out = next((split for split in _HELD_OUT if split in found), None)
    wanted = ["train"] if "train" in found else []
    wanted += [held_out] if held_out else []
    if not wanted:
        wanted = there[:1]
    for split in wanted:
        for number, record in enumerate(found[split]):
            told = {"split": split} if len(wanted) > 1 else {}
            plain = {key: value for key, value in record.items() if _is_plain(value)}
            numbered = {} if "id" in plain else {"id": f"{_short(path)}/{split}/{number}"}
            yield f"Row {number} of the split '{split}' of '{name}'", {**plain, **numbered, **told}


def _load(name: str, path: str, config: str | None) -> dict[str, list[dict[str, object]]]:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it warns of each attempt
    try:
        return dict(load_dataset(path, config))
    except Exception as error:  # the library raises a dozen kinds without a common base
        first = " ".join(str(error).split())[:200]
        raise TaskError(
            f"The data set '{name}' cannot be loaded ({type(error).__name__}: {first}): it is "
            "written hub:owner/name or hub:owner/name/config, and needs the network once, or a "
            "copy in the cache (HF_HOME); or save it as a file and name that."
        ) from error


def _parts(name: str) -> tuple[str, str | None]:
    """Return the data set and its configuration; a folder of this machine has none."""
    if Path(name).is_dir():
        return name, None
    owner, _, rest = name.partition("/")
    data_set, _, config = rest.partition("/")
    return (f"{owner}/{data_set}" if data_set else owner), config or None


def _short(path: str) -> str:
    return Path(path).name


def _is_plain(value: object) -> bool:
    """Return whether a value is text, a number or made of those: no image or sound."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)
