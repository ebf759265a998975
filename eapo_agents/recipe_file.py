"""Reads recipe files, with arms laid over them and overrides, and writes resolved recipes.

Every key is checked: an unknown one is refused with the known ones listed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from eapo_agents.errors import RecipeError
from eapo_agents.old_keys import OLD_ARMS
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_rules import UnusedSettingError
from eapo_agents.registry import did_you_mean, name_of
from eapo_agents.settings import explain

Section = dict[str, Any]
"""A section as YAML has it, not checked yet."""
Layer = Section | str
"""What is laid over a recipe: sections, or a text."""
_LONGEST_NAME = 64


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), **functions: Callable[..., object]
) -> Recipe:
    """Read a recipe file, or a shipped recipe by name, and apply `key.sub=value` overrides.

    Functions of your own may be given as they are: `load_recipe("cpu-smol", graph=build)`. The
    recipe has their names.

    `NAME+ARM` is a recipe with an arm laid over it: a file of the keys that make it another method,
    in ./recipes/arms or shipped. Several may follow one another. Where an arm or an override makes
    a setting of the recipe unused, that setting is taken out.

    Raises:
        RecipeError: one sentence that names the key, the rule and what was given.
    """
    file, layers = _read_with_arms(path)
    overrides = [*overrides, *(f"{key}={name_of(made)}" for key, made in functions.items())]
    return _resolve(file, [*layers, *overrides])


def load_recipe_under(
    path: str | Path, layers: Sequence[Layer], overrides: Sequence[str] = (), *, name: str
) -> Recipe:
    """Read a recipe as `load_recipe` does, and lay these over it, one after the other.

    Args:
        layers: sections as an arm's file has them, arms by name (`ARM+ARM`), or `key.sub=value`.
        overrides: `key.sub=value`, laid over all of them.
        name: what is added to the recipe's name.

    Raises:
        RecipeError: one sentence that names the key, the rule and what was given.
    """
    file, read = _read_with_arms(path)
    of_file = [str(layer["name"]) for layer in read if isinstance(layer, dict) and "name" in layer]
    for layer in layers:
        if isinstance(layer, str) and "=" not in layer:
            read += [_read(_find(arm, "arms")) for arm in layer.split("+")]
        else:
            read.append(layer)
    named: Section = {"name": "-".join([*of_file[-1:], name])[:_LONGEST_NAME]}
    return _resolve(file, [*read, named, *overrides])


def _read_with_arms(path: str | Path) -> tuple[Path, list[Layer]]:
    """Return a recipe's file, and what it and its arms hold; they are in its name."""
    base, *arms = [str(path)] if Path(path).exists() else str(path).split("+")
    file = _find(base)
    layers = [_read(file), *(_read(_find(arm, "arms")) for arm in arms)]
    if not arms:
        return file, [*layers]
    names = [str(layer["name"]) for layer in layers if "name" in layer] or [""]
    return file, [*layers, {"name": "-".join([names[-1], *arms])}]


def _resolve(file: Path, given: Sequence[Layer]) -> Recipe:
    """Return the recipe that the layers make, the last one on top."""
    data: Section = {}
    layers: list[Section] = []
    for layer in given:
        if isinstance(layer, str):
            layers.append(_apply(data, layer))
        else:
            _merge(data, copy.deepcopy(layer))
            layers.append(layer)
    if (key := _secret_url(data)) is not None:
        raise RecipeError(
            f"In the recipe '{file}', '{key}': a URL must hold no user or password, since recipes "
            "are printed and kept with runs: name the environment variable that has the key."
        )
    by_whom = _GivenBy(layers)
    while True:
        try:
            return Recipe.model_validate(data)
        except ValidationError as error:
            found = error.errors()[0].get("ctx", {}).get("error")
            if isinstance(found, UnusedSettingError):
                _take_out_unused(data, by_whom, found, file)
            else:
                raise RecipeError(f"In the recipe '{file}', {explain(error, Recipe)}") from error


class _GivenBy:
    """Which layer of a recipe (file, arms, overrides) gave a setting."""

    def __init__(self, layers: Sequence[Section]) -> None:
        self._layers = layers
        self._taken_out: dict[str, int] = {}

    def layer(self, key: str) -> int:
        """Return the last layer that gives a key, or that made it unused; -1 without one."""
        if key in self._taken_out:
            return self._taken_out[key]
        numbers = reversed(range(len(self._layers)))
        return next((n for n in numbers if _gives(self._layers[n], key)), -1)

    def take_out(self, key: str, layer: int) -> None:
        """Note which layer made a key unused."""
        self._taken_out[key] = layer


def _gives(layer: Section, key: str) -> bool:
    place: object = layer
    for part in key.split("."):
        if not isinstance(place, dict):
            return True
        if part not in place:
            return False
        place = place[part]
    return True


def _take_out_unused(
    data: Section, by_whom: _GivenBy, found: UnusedSettingError, file: Path
) -> None:
    """Take out the settings that a later layer made unused.

    Raises:
        RecipeError: one has had no effect from the start.
    """
    causes: dict[str, int] = {}
    for key, conditions in found.unused.items():
        for one in conditions:
            cause = max(by_whom.layer(cause) for cause in one.causes)
            if cause <= by_whom.layer(key):
                raise RecipeError(f"In the recipe '{file}', {UnusedSettingError({key: [one]})}.")
            causes[key] = max(cause, causes.get(key, -1))
    for key, layer in causes.items():
        by_whom.take_out(key, layer)
        *sections, name = key.split(".")
        place = data
        for section in sections:
            place = place[section]
        del place[name]


def fixed_part(recipe: Recipe) -> Section:
    """Return what may not change while a run continues. Its length may change (unless a share of it
    is distillation), what experts may cost, how experts and servers are reached, and how many
    rollouts run at once."""
    fixed = recipe.model_dump(mode="json")
    del fixed["rollouts"]
    if not recipe.train.distillation_share:
        del fixed["train"]["steps"]
    fixed["consult"] = fixed_consult(fixed["consult"])
    for setting in _SERVERS:
        del fixed["policy"][setting]
    if fixed["policy"]["endpoint"] is not None:
        del fixed["policy"]["endpoint"]["key_env"]
    return fixed


def fixed_consult(consult: Mapping[str, Any]) -> Section:
    """Return what of a recipe's consult section may not change while a run continues."""
    fixed = {k: v for k, v in consult.items() if k not in ("budget", "expert_store")}
    fixed["experts"] = {}
    for name, expert in consult["experts"].items():
        options = {k: v for k, v in expert["options"].items() if k not in _ADDRESS}
        kept = {k: v for k, v in expert.items() if k not in _REACHING}
        fixed["experts"][name] = {**kept, "options": options}
    return fixed


SHIPPED = Path(__file__).parent / "recipes"
"""The recipes that come with the package; their arms are in its folder `arms`."""
_USER_IN_URL = re.compile(r"\s*\w+://[^/\s]*@")
_SERVERS = ("calls", "servers", "server_key_env", "request_timeout_s", "server_wait_s")
_ADDRESS = ("base_url", "api_key_env")
_REACHING = ("queue_timeout_s", "retries", "concurrency", "per_minute", "price", "stored")


def to_yaml(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML, every setting written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(file: Path) -> Section:
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


def _merge(data: Section, arm: Section) -> None:
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
    what = "arm" if kind else "recipe"
    if kind and str(path) in OLD_ARMS:
        raise RecipeError(f"There is no arm '{path}': it is called '{OLD_ARMS[str(path)]}' now.")
    known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")})
    raise RecipeError(
        f"There is no {what} '{path}': give a YAML file, or the name of one in ./{folders[0]} or "
        f"of a shipped one. {did_you_mean(str(path), known)}Known: {', '.join(known)}."
    )


def _apply(data: Section, override: str) -> Section:
    """Set a key of the recipe, and return the override as a layer."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"An override must read key.sub=value, got '{override}'.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The override '{override}' has no YAML value.") from error
    *parents, last = key.split(".")
    section = data
    for parent in parents:
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise RecipeError(
                f"The override '{override}' does not fit: '{parent}' is not a section."
            )
    section[last] = value
    layer: Section = {last: value}
    for parent in reversed(parents):
        layer = {parent: layer}
    return layer


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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
