"""Reads recipe files, with arms laid over them and overrides, and writes resolved recipes.

Every key is checked: an unknown one is refused with the known ones listed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from eapo_agents.errors import RecipeError
from eapo_agents.recipe import ExpertSection, Recipe


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file, or a shipped recipe's name, and applies `key.sub=value` overrides.

    `NAME+ARM` is a recipe with an arm laid over it: a file of the keys that make it another method,
    in ./recipes/arms or shipped. Several may follow one another.

    Raises:
        RecipeError: one sentence that names the key, the rule and what was given.
    """
    base, *arms = [str(path)] if Path(path).exists() else str(path).split("+")
    file = _find(base)
    data = _read(file)
    for arm in arms:
        _merge(data, _read(_find(arm, "arms")))
    if arms:
        data["name"] = "-".join([str(data.get("name", "")), *arms])
    for override in overrides:
        _apply(data, override)
    if (key := _secret_url(data)) is not None:
        raise RecipeError(
            f"In the recipe '{file}', '{key}': a URL must hold no user or password, since recipes "
            "are printed and kept with runs: name the environment variable that has the key."
        )
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"In the recipe '{file}', {_explain(error)}") from error


def fixed_part(recipe: Recipe) -> dict[str, Any]:
    """What may not change while a run goes on. Its length may, and what experts may cost and how
    they and the policy's servers are reached."""
    fixed = recipe.model_dump(mode="json")
    del fixed["train"]["steps"], fixed["consult"]["budget"], fixed["consult"]["expert_store"]
    for setting in _SERVERS:
        del fixed["policy"][setting]
    for expert in fixed["consult"]["experts"].values():
        for setting in _REACHING:
            del expert[setting]
        for option in ("base_url", "api_key_env"):
            expert["options"].pop(option, None)
    return fixed


SHIPPED = Path(__file__).parent / "recipes"
"""The recipes that come with the package; their arms are in its folder `arms`."""
_USER_IN_URL = re.compile(r"\s*\w+://[^/\s]*@")
_SERVERS = ("servers", "server_key_env", "request_timeout_s", "server_wait_s")
_REACHING = ("queue_timeout_s", "retries", "concurrency", "per_minute", "price", "stored")


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every setting written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe '{file}' cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"The recipe '{file}' is not YAML: {_one_line(error)}.") from error
    if not isinstance(data, dict):
        raise RecipeError(
            f"The recipe '{file}' must be a mapping of keys, got {type(data).__name__}."
        )
    return data


def _merge(data: dict[str, Any], arm: dict[str, Any]) -> None:
    """Lays an arm over a recipe. Experts are replaced one by one, each as a whole."""
    for key, value in arm.items():
        section = data.get(key)
        if key == "experts" and isinstance(section, dict) and isinstance(value, dict):
            section.update(value)
        elif isinstance(section, dict) and isinstance(value, dict):
            _merge(section, value)
        else:
            data[key] = value


def _find(path: str | Path, kind: str = "") -> Path:
    """A file, a name in ./recipes, or a shipped recipe's (or arm's) name, in this order."""
    file = Path(path)
    if file.exists():
        return file
    folders = [Path("recipes") / kind, SHIPPED / kind]
    for folder in folders:
        if file.suffix == "" and (folder / f"{file}.yaml").exists():
            return folder / f"{file}.yaml"
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    near = difflib.get_close_matches(str(path), known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    what = "arm" if kind else "recipe"
    raise RecipeError(
        f"There is no {what} '{path}': give a YAML file, or the name of one in ./{folders[0]} or "
        f"of a shipped one. {hint}Known: {', '.join(known)}."
    )


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"An override must read key.sub=value, got '{override}'.")
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(f"The override '{override}' does not fit: '{parent}' is no section.")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The override '{override}' has no YAML value.") from error


def _secret_url(value: Any, key: str = "") -> str | None:
    """The key of a URL with a user or password in it, None where there is none."""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    elif isinstance(value, str) and _USER_IN_URL.match(value):
        return key
    found = (_secret_url(item, f"{key}.{name}" if key else str(name)) for name, item in inside)
    return next((one for one in found if one is not None), None)


def _explain(error: ValidationError) -> str:
    # a misspelt key is also a missing one: what was written helps more than what was not
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}."
        return f"there is no key '{key}': {hint}"
    where = f"'{key}': " if key else ""
    given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
    return f"{where}{first['msg'].removeprefix('Value error, ')}{given}."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Recipe
    for part in location:
        fields = getattr(section, "model_fields", {})
        annotation = fields[part].annotation if part in fields else ExpertSection
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next((o for o in options if hasattr(o, "model_fields")), section)
    return sorted(section.model_fields)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
