"""The recipe's keys as a page, and the recipes and arms that ship, made from what the code has."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import SHIPPED
from eapo_agents.settings import fields_of, section_of


@dataclass(frozen=True, slots=True)
class Key:
    """One setting of a recipe."""

    name: str
    """Its place, such as `train.lora.r`."""
    takes: str
    """Its type and bounds."""
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Shipped:
    """A recipe or an arm that comes with the package, or lies in ./recipes."""

    kind: str
    name: str
    about: str
    """The first sentence of the comment that it begins with."""


def shipped() -> list[Shipped]:
    """Return the recipes and arms that can be named here; a file in ./recipes hides a shipped one
    of the same name."""
    found = []
    for kind, folder in (("recipe", ""), ("arm", "arms")):
        tops = (SHIPPED / folder, Path("recipes") / folder)
        files = {file.stem: file for top in tops for file in top.glob("*.yaml")}
        found += [Shipped(kind, name, _about(file)) for name, file in sorted(files.items())]
    return found


def _about(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
    return comment.partition(". ")[0].rstrip(".")


def reference() -> str:
    """Return every key of a recipe as Markdown, a table for each section."""
    parts = []
    for title, section in _sections(Recipe):
        about = " ".join((section.__doc__ or "").split())
        rows = [
            f"| `{key.name}` | {key.takes} | {key.default} | {key.meaning} |"
            for key in _keys(section)
        ]
        head = f"### {title}" if title else "### At the top"
        table = "| key | takes | default | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(rows)
        parts.append(f"{head}\n\n{about}\n\n{table}\n" if title else f"{head}\n\n{table}\n")
    return "\n".join(parts)


def all_keys() -> list[str]:
    """Return every dotted key of a recipe; an expert's stands below `consult.experts.NAME`."""
    return [
        f"{title}.{key.name}" if title else key.name
        for title, section in _sections(Recipe)
        for key in _keys(section)
    ]


def _sections(section: type[object], title: str = "") -> Iterator[tuple[str, type[object]]]:
    yield title, section
    for name, annotation in fields_of(section).items():
        inner = section_of(_resolved(section, name, annotation))
        if inner is not None:
            place = f"{title}.{name}" if title else name
            in_a_mapping = "dict[" in str(annotation)
            yield from _sections(inner, f"{place}.NAME" if in_a_mapping else place)


def _keys(section: type[object]) -> list[Key]:
    """The settings of a section that are not sections."""
    keys = []
    meanings = _docstrings(section)
    for name, annotation in fields_of(section).items():
        takes = _resolved(section, name, annotation)
        inner = section_of(takes)
        if inner is not None and not meanings.get(name):
            continue
        bounds = _bounds(section, name)
        keys.append(
            Key(
                name=name,
                takes=f"{_type_name(takes)}{bounds}" if inner is None else _sections_name(takes),
                default=(_default if inner is None else _section_default)(section, name),
                meaning=" ".join(meanings.get(name, "").split()),
            )
        )
    return keys


def _resolved(section: type[object], name: str, annotation: object) -> object:
    """A field's type; a dataclass has it as text."""
    if isinstance(annotation, str):
        return {"float": float, "int": int}.get(annotation, annotation)
    return annotation


def _type_name(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(argument) for argument in arguments)
    if annotation is type(None):
        return "`null`"
    if origin in (list, tuple):
        return f"list of {_type_name(arguments[0])}s"
    if origin is dict:
        return "mapping"
    named = {str: "text", int: "integer", float: "number", bool: "`true`, `false`"}
    assert isinstance(annotation, type)
    return named[annotation]


def _sections_name(annotation: object) -> str:
    return "list" if get_origin(annotation) is list else "a section"


def _bounds(section: type[object], name: str) -> str:
    if not issubclass(section, BaseModel):
        return ""
    said = []
    for rule in section.model_fields[name].metadata:
        match rule:
            case Ge(ge=bound):
                said.append(f"from {bound}")
            case Gt(gt=bound):
                said.append(f"above {bound}")
            case Le(le=bound):
                said.append(f"to {bound}")
            case Lt(lt=bound):
                said.append(f"below {bound}")
    return " " + " ".join(said) if said else ""


def _default(section: type[object], name: str) -> str:
    if issubclass(section, BaseModel):
        field = section.model_fields[name]
        if field.is_required():
            return "required"
        value = field.get_default(call_default_factory=True)
    else:
        value = getattr(section(), name)
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _section_default(section: type[object], name: str) -> str:
    if not issubclass(section, BaseModel):
        return ""
    value = section.model_fields[name].get_default(call_default_factory=True)
    return "`null`" if value is None else "`[]`" if value == [] else ""


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _docstrings(section: type[object]) -> dict[str, str]:
    """The text under each field of a class and of those that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(section.__mro__):
        if not one.__module__.startswith("eapo_agents"):
            continue
        tree = ast.parse(inspect.getsource(sys.modules[one.__module__]))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name == one.__name__:
                found |= _under_fields(node)
    return found


def _under_fields(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = text.value.value
    return found
