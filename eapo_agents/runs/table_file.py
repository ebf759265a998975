"""Reads the file of a table: the tasks, kinds of help, methods and budgets that a study compares,
and what each lays over the recipe.

    recipe: scale-model
    table:
      task: {sums: {}, rule: {recipe: four_tasks/rule.yaml}}
      help:
        whole: {}
        plan: consult.experts.solver.options.gives=plan
        wrong-60: {base: whole, arm: weaker}
      method: [eapo, distillation, self-exploration]
      calls: [200, 700]
    without:
      - {task: rule, help: plan, because: its expert knows no plan}
    seeds: 5
    against: distillation
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from eapo_agents.errors import RecipeError
from eapo_agents.recipe_file import Layer
from eapo_agents.registry import did_you_mean

TABLE = "table"
DIMENSIONS = ("task", "help", "method", "calls")
_KEYS = ("recipe", TABLE, "without", "seeds", "against")
_SPECIAL = {"task": ("recipe",), "help": ("base",), "method": ()}
"""Keys of a choice that are no section of a recipe, by dimension; `arm` and `for` are in each."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_RESERVED = ("base",)
_REFERENCE = "distillation"
_SEEDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One task, kind of help or method."""

    name: str
    layers: tuple[Layer, ...] = ()
    """What it lays over the recipe."""
    recipe: str | None = None
    """Of a task: its recipe, in the place of the file's."""
    base: str | None = None
    """Of a help: the help whose warm-started policies it begins with. None: its own."""
    only_for: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict)
    """Name of a choice of another dimension -> what is laid over that one's cells only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Cells that are not run."""

    where: Mapping[str, frozenset[str]]
    """Dimension -> names; a cell is left out that has one of them in each."""
    because: str = ""

    def has(self, cell: Cell) -> bool:
        """Return whether it leaves a cell out."""
        return all(cell.names[dimension] in names for dimension, names in self.where.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training, on every seed."""

    task: str
    help: str
    method: str
    calls: int | None = None
    """The expert calls that it is planned for; None where there is no limit."""

    @property
    def names(self) -> Mapping[str, str]:
        """Return its name in each dimension."""
        calls = "" if self.calls is None else str(self.calls)
        return {"task": self.task, "help": self.help, "method": self.method, "calls": calls}

    @property
    def block(self) -> str:
        """Return its study's folder, below the table's."""
        return f"{self.task}/{self.help}"

    @property
    def arm(self) -> str:
        """Return its folder's name within a seed of its study."""
        return self.method if self.calls is None else f"{self.method}-{self.calls}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """What a file says."""

    file: Path
    recipe: str | None
    tasks: Mapping[str, Choice]
    helps: Mapping[str, Choice]
    methods: Mapping[str, Choice]
    calls: tuple[int, ...]
    """Budgets. None: runs have no limit."""
    without: tuple[LeftOut, ...]
    seeds: int
    against: str
    """The method that the others are compared with."""

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, those that are left out too; with each budget, where there are any."""
        for task in self.tasks:
            for help_ in self.helps:
                for method in self.methods:
                    for calls in self.calls or (None,):
                        yield Cell(task=task, help=help_, method=method, calls=calls)

    def recipe_of(self, cell: Cell) -> str:
        """Return the recipe that a cell's layers are laid over."""
        return self.tasks[cell.task].recipe or self.recipe or ""

    def layers(self, cell: Cell, *, base: bool = False) -> list[Layer]:
        """Return what is laid over the recipe, the last on top.

        Args:
            base: leave the method out, for the policy that all methods begin with.
        """
        chosen = [self.tasks[cell.task], self.helps[cell.help]]
        names = {cell.task, cell.help}
        if not base:
            chosen.append(self.methods[cell.method])
            names |= {cell.method, cell.names["calls"]}
        found: list[Layer] = [layer for choice in chosen for layer in choice.layers]
        for choice in chosen:
            for name, layers in choice.only_for.items():
                found += layers if name in names else ()
        return found


def is_table(path: str) -> bool:
    """Return whether a file is that of a table, and not a recipe."""
    file = Path(path)
    if not file.is_file():
        return False
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False  # whoever reads it as a recipe says why it cannot be read
    return isinstance(data, dict) and TABLE in data


def read_table(path: str | Path) -> TableFile:
    """Read a table's file.

    Raises:
        RecipeError: one sentence that names the key, the rule and what was given.
    """
    file = Path(path)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"The table '{file}' cannot be read: {error}.") from error
    return _Reader(file).read(data)


class _Reader:
    """Reads what a file holds; every error names it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self, data: Any) -> TableFile:
        self._known("", self._mapping("", data), _KEYS)
        given = self._mapping(TABLE, data.get(TABLE))
        self._known(TABLE, given, DIMENSIONS)
        choices = {name: self._choices(name, given.get(name)) for name in DIMENSIONS[:3]}
        if not choices["method"]:
            self._refuse(f"'{TABLE}.method' must name at least one method")
        for dimension in ("task", "help"):
            # the recipe's own, where the file names none
            choices[dimension] = choices[dimension] or {dimension: Choice(name=dimension)}
        calls = self._calls(given.get("calls"))
        names = {name: list(choices[name]) for name in DIMENSIONS[:3]}
        names["calls"] = [str(number) for number in calls]
        self._check_names(names, choices)
        recipe = self._text("recipe", data.get("recipe"))
        if recipe is None and any(task.recipe is None for task in choices["task"].values()):
            self._refuse("'recipe' is missing: give one here, or in each task")
        methods = choices["method"]
        first = _REFERENCE if _REFERENCE in methods else next(iter(methods))
        against = self._text("against", data.get("against")) or first
        self._one_of("against", against, methods)
        table = TableFile(
            file=self._file,
            recipe=self._beside(recipe),
            tasks=choices["task"],
            helps=choices["help"],
            methods=methods,
            calls=calls,
            without=tuple(self._without(data.get("without"), names)),
            seeds=self._number("seeds", data.get("seeds", _SEEDS)),
            against=against,
        )
        for number, left_out in enumerate(table.without):
            if not any(left_out.has(cell) for cell in table.cells()):
                self._refuse(f"'without', entry {number + 1}, leaves nothing out")
        return table

    def _choices(self, dimension: str, given: Any) -> dict[str, Choice]:
        """Read a dimension: a mapping of names, or a list of arms."""
        at = f"{TABLE}.{dimension}"
        if isinstance(given, list) and all(isinstance(name, str) for name in given):
            if len(set(given)) < len(given):
                self._refuse(f"'{at}' names one of {', '.join(given)} twice")
            given = {name: name for name in given}
        found = self._mapping(at, given or {})
        return {name: self._choice(dimension, name, value) for name, value in found.items()}

    def _choice(self, dimension: str, name: str, given: Any) -> Choice:
        at = f"{TABLE}.{dimension}.{name}"
        self._check_name(at, name)
        if not isinstance(given, dict):
            return Choice(name=name, layers=tuple(self._layers(at, given)))
        special = {key: given[key] for key in (*_SPECIAL[dimension], "arm", "for") if key in given}
        sections = {key: value for key, value in given.items() if key not in special}
        texts = {
            key: self._text(f"{at}.{key}", special.get(key)) for key in ("recipe", "base", "arm")
        }
        only_for = self._mapping(f"{at}.for", special.get("for") or {})
        return Choice(
            name=name,
            layers=(*([texts["arm"]] if texts["arm"] else []), *([sections] if sections else [])),
            recipe=self._beside(texts["recipe"]),
            base=texts["base"],
            only_for={
                str(other): tuple(self._layers(f"{at}.for.{other}", value))
                for other, value in only_for.items()
            },
        )

    def _layers(self, at: str, given: Any) -> Iterator[Layer]:
        """Yield layers: sections, arms by name, `key=value`, or a list of these."""
        for one in given if isinstance(given, list) else [given]:
            if isinstance(one, str | dict):
                yield one
            elif one is not None:
                self._refuse(
                    f"'{at}' must hold sections of a recipe, the name of an arm, 'key.sub=value', "
                    f"or a list of these, got {one!r}"
                )

    def _without(self, given: Any, names: Mapping[str, Sequence[str]]) -> Iterator[LeftOut]:
        if given is not None and not isinstance(given, list):
            self._refuse(f"'without' must be a list, got {given!r}")
        for number, entry in enumerate(given or []):
            at = f"without, entry {number + 1}"
            found = dict(self._mapping(at, entry))
            because = self._text(f"{at}: because", found.pop("because", None)) or ""
            self._known(at, found, DIMENSIONS)
            if not found:
                self._refuse(f"'{at}' must name what is left out, such as {{help: plan}}")
            where = {}
            for dimension, named in found.items():
                wanted = [str(name) for name in (named if isinstance(named, list) else [named])]
                for name in wanted:
                    self._one_of(f"{at}: {dimension}", name, names[dimension])
                where[dimension] = frozenset(wanted)
            yield LeftOut(where=where, because=because)

    def _check_names(
        self, names: Mapping[str, Sequence[str]], choices: Mapping[str, Mapping[str, Choice]]
    ) -> None:
        """Refuse a name that stands for two things, and one that stands for none."""
        every = [name for of_dimension in names.values() for name in of_dimension]
        twice = next((name for name in every if every.count(name) > 1), None)
        if twice is not None:
            self._refuse(f"'{twice}' names two things: each name stands once in the table")
        arms = [*names["method"], *(f"{m}-{c}" for m in names["method"] for c in names["calls"])]
        twice = next((arm for arm in arms if arms.count(arm) > 1), None)
        if twice is not None:
            self._refuse(f"'{twice}' is a method and the folder of another one with its budget")
        for dimension, of_dimension in choices.items():
            others = [name for key, found in names.items() if key != dimension for name in found]
            for choice in of_dimension.values():
                at = f"{TABLE}.{dimension}.{choice.name}"
                for name in choice.only_for:
                    self._one_of(f"{at}.for", name, others)
                if choice.base is not None:
                    self._one_of(f"{at}.base", choice.base, names["help"])
                    if choices["help"][choice.base].base is not None:
                        self._refuse(f"'{at}.base' names a help that has another's base itself")

    def _calls(self, given: Any) -> tuple[int, ...]:
        found = given if isinstance(given, list) else [] if given is None else [given]
        numbers = [self._number(f"{TABLE}.calls", number) for number in found]
        if len(set(numbers)) < len(numbers):
            self._refuse(f"'{TABLE}.calls' has a number twice: {given!r}")
        return tuple(numbers)

    def _check_name(self, at: str, name: object) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
            self._refuse(
                f"'{at}' must be a name of at most 40 letters, digits, '.', '_' and '-', and not "
                f"'{_RESERVED[0]}', got {name!r}"
            )

    def _number(self, at: str, given: Any) -> int:
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            self._refuse(f"'{at}' must be a whole number of at least 1, got {given!r}")
        return int(given)

    def _text(self, at: str, given: Any) -> str | None:
        if given is None or (isinstance(given, str) and given):
            return given
        self._refuse(f"'{at}' must be a text, got {given!r}")

    def _mapping(self, at: str, given: Any) -> Mapping[Any, Any]:
        if not isinstance(given, dict):
            what = f"'{at}'" if at else "it"
            self._refuse(f"{what} must be a mapping of keys, got {given!r}")
        found: Mapping[Any, Any] = given
        return found

    def _known(self, at: str, given: Mapping[Any, Any], known: Sequence[str]) -> None:
        for key in given:
            self._one_of(f"{at}.{key}" if at else str(key), key, known)

    def _one_of(self, at: str, name: object, known: Iterable[str]) -> None:
        names = list(known)
        if name not in names:
            self._refuse(
                f"'{at}': there is no '{name}' here. {did_you_mean(str(name), names)}"
                f"Known: {', '.join(names) or 'none'}"
            )

    def _beside(self, recipe: str | None) -> str | None:
        """Return a recipe as it is found from here: a file beside the table's, else as it is."""
        if recipe is None:
            return None
        base, *arms = recipe.split("+")
        beside = self._file.parent / base
        return "+".join([str(beside), *arms]) if beside.is_file() else recipe

    def _refuse(self, rule: str) -> NoReturn:
        raise RecipeError(f"In the table '{self._file}', {rule}.")
