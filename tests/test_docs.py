"""What README.md and docs/ show works: code runs, recipes load, the command lines exist.

A block that cannot run has `<!-- not run: REASON -->` on the line before it. Of its code the
imports run all the same. In a block of commands each line is one; `$NAME` is what the block sets it
to, else a placeholder.
"""

import ast
import importlib.util
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from eapo_agents.cli.main import _of_all_first, app
from eapo_agents.errors import UsageError
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.table_file import read_table
from eapo_agents.runs.tables import TableStudy

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_MARKER = re.compile(r"<!-- not run: (\S.*\S) -->\s*")
_NAME = re.compile(r"\$(\w+)")
_COMMANDS = ("eapo", "make", "python", "pip", "trl", "accelerate", "cd", "export", "source", ".")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced or indented block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    """Why it cannot run: `<!-- not run: REASON -->` on the line before it."""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def blocks(page: Path) -> list[Block]:
    tokens = [t for t in MarkdownIt().parse(page.read_text(encoding="utf-8")) if t.map]
    return [
        Block(
            page=page,
            line=token.map[0] + 1,
            language=token.info.strip(),
            text=token.content,
            not_run=_reason(tokens[place - 1]) if place else None,
        )
        for place, token in enumerate(tokens)
        if token.type in ("fence", "code_block")
    ]


def _reason(before: Token) -> str | None:
    marker = _MARKER.fullmatch(before.content) if before.type == "html_block" else None
    return marker[1] if marker else None


def command_lines(block: Block) -> Iterator[list[str]]:
    """Yield the words of each command. In a block with a command every line has to be one.

    `NAME=value` lines set what `$NAME` is. Another `$NAME` is a placeholder: 1 within a word, any
    options as a word of its own.
    """
    values: dict[str, str] = {}
    lines = block.text.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                name, _, value = words.pop(0).partition("=")
                values[name] = value
            words = list(_filled(words, values))
            if not words:
                continue
            words[0] = words[0].removeprefix("$ ").removeprefix(".venv/bin/")
            assert words[0] in _COMMANDS, f"{block.place}: '{part}' begins with no known command"
            yield words


def _filled(words: list[str], values: dict[str, str]) -> Iterator[str]:
    for place, word in enumerate(words):
        bare = _NAME.fullmatch(word)
        if bare and bare[1] not in values and not words[place - 1].startswith("-"):
            continue
        yield _NAME.sub(lambda name: values.get(name[1], "1"), word)


def has_commands(block: Block) -> bool:
    if block.language not in ("", "bash", "sh", "console"):
        return False
    first = re.compile(rf"\$ |(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:{'|'.join(_COMMANDS[:-1])})\b")
    return any(map(first.match, block.text.splitlines()))


def inline_commands(page: Path) -> Iterator[str]:
    """Yield the `eapo ...` that stand in the text."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("eapo "):
                yield child.content


EVERY = [block for page in PAGES for block in blocks(page)]
KNOWN = {"", "bash", "sh", "console", "text", "python", "yaml", "json", "jsonl"}
EAPO = typer.main.get_command(app)
IN_ORDER = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def fresh_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@IN_ORDER
def test_the_python_blocks_of_a_page_run_one_after_another(page, fresh_folder, monkeypatch):
    module = ModuleType("page")  # what a page defines can be named in a recipe: page:build
    monkeypatch.setitem(sys.modules, "page", module)
    for block in (b for b in blocks(page) if b.language == "python"):
        code = ast.parse(block.text, block.place)
        if block.not_run:  # what it imports must be there all the same
            code.body = [s for s in code.body if isinstance(s, (ast.Import, ast.ImportFrom))]
        exec(compile(code, block.place, "exec"), vars(module))


@pytest.mark.parametrize(
    "block", [b for b in EVERY if b.language == "yaml"], ids=lambda block: block.place
)
def test_a_recipe_or_a_part_of_one_loads(block, fresh_folder):
    said = yaml.safe_load(block.text)
    if "table" in said:
        (fresh_folder / "table.yaml").write_text(block.text)
        table = read_table("table.yaml")
        assert TableStudy(table=table, seeds=1, folder=fresh_folder).recipes
        return
    if "name" in said:
        (fresh_folder / "whole.yaml").write_text(block.text)
        assert load_recipe("whole.yaml").name == said["name"]
        return
    arms = fresh_folder / "recipes" / "arms"
    arms.mkdir(parents=True)
    (arms / "part.yaml").write_text(block.text)
    load_recipe("cpu-smol+part")


def test_json_is_json():
    for block in EVERY:
        if block.language == "json":
            json.loads(block.text)
        if block.language == "jsonl":
            assert [json.loads(line) for line in block.text.splitlines()]


def test_each_block_says_what_it_is_and_a_marker_stands_before_one():
    assert {block.language for block in EVERY} <= KNOWN
    for page in PAGES:
        marked = sum(block.not_run is not None for block in blocks(page))
        assert marked == page.read_text(encoding="utf-8").count("<!-- not run"), page


def test_the_command_lines_of_the_blocks_fit_the_commands():
    checked = [
        check(words, block)
        for block in EVERY
        if has_commands(block) and not block.not_run
        for words in command_lines(block)
    ]
    assert checked.count("eapo") > 60


def check(words: list[str], block: Block) -> str:
    """Checks one command line, and tells whose it is."""
    program, *rest = words
    if program == "accelerate":
        program, rest = "eapo", rest[rest.index("eapo_agents.cli.main") + 1 :]
    if rest[:2] == ["-m", "pip"]:
        program, rest = "pip", rest[2:]
    if program == "eapo":
        fits(rest, block)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        wanted = [word for word in rest if "=" not in word]
        assert set(wanted) <= set(targets), f"{block.place}: make {rest}"
    elif program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"eapo-agents\[([\w,-]+)\]", " ".join(rest)):
            assert set(extra.split(",")) <= set(known["optional-dependencies"]), block.place
    elif program in ("python", "trl"):
        for file in (word for word in rest if re.search(r"^(benchmarks|eapo_agents)/", word)):
            assert (ROOT / file).exists(), f"{block.place}: {file}"
    return program


def fits(words: list[str], block: Block) -> None:
    """Parses a command line as the command itself does, without running it; `--set` is put on the
    recipe that is named, or on the default one where that is a reader's own."""
    context = parsed(words, block)
    overrides = context.params.get("overrides")
    if overrides:
        name = context.params["recipe"]
        try:
            load_recipe(name)
        except UsageError:
            name = "cpu-smol"
        try:
            load_recipe(name, overrides)
        except UsageError as error:
            pytest.fail(f"{block.place}: eapo {' '.join(words)}: {error}")


def parsed(words, block):
    command, name, rest, context = EAPO, "eapo", _of_all_first(words), None
    try:
        while True:
            context = command.make_context(name, list(rest), parent=context)
            if not hasattr(command, "resolve_command"):
                return context
            given = [*context._protected_args, *context.args]
            name, command, rest = command.resolve_command(context, given)
    except Exception as error:  # click's, or one that Typer has of its own
        pytest.fail(f"{block.place}: eapo {' '.join(words)}: {error or type(error)}")


@IN_ORDER
def test_commands_in_the_text_and_their_options_exist(page):
    if page.name == "log.md":
        pytest.skip("dated: what was run then")
    for text in inline_commands(page):
        words = text.split()[1:]
        command = EAPO
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        leaf = not hasattr(command, "commands")
        assert leaf or not words or words[0].isupper() or words[0].startswith("-"), (page, text)
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        known |= {"--help", "-h", "--quiet", "--events", "--version", "--install-completion", "--"}
        for word in words[: words.index("--")] if "--" in words else words:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"{page}: `{text}` has no {word}"


def test_links_of_the_pages_outside_docs_lead_to_files():
    found = [
        (page.name, link)
        for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "AGENTS.md")
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
    ]
    assert len(found) > 15
    assert [link for link in found if not (ROOT / link[1]).exists()] == []


def test_the_site_refuses_pages_that_load_something_from_elsewhere():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = (
        '<a href="https://a.example/"></a><link rel="canonical" href="https://a.example/">'
        '<link rel="stylesheet" href="https://b.example/c.css"><img src="d.png">'
        '<script src="//e.example/f.js"></script>'
    )
    found = hooks.loaded_from_elsewhere(page, ".html")
    assert found == ["https://b.example/c.css", "//e.example/f.js"]
    style = (
        "@import 'https://a.example/b.css'; a { background: url(c.png), url('data:image/png,') }"
    )
    assert hooks.loaded_from_elsewhere(style, ".css") == ["https://a.example/b.css"]


def test_the_page_of_expectations_counts_its_own_rows():
    page = (ROOT / "docs" / "expectations.md").read_text()
    states = re.findall(r"^\| \d+ \| [^|]+ \| (\w+) \|", page, re.MULTILINE)
    count = {state: states.count(state) for state in ("works", "partly", "not")}
    assert sum(count.values()) == len(states) == 73
    told = f"of 73, {count['works']} work, {count['partly']} partly"
    assert told in page
    assert count["not"] == 0 or f", {count['not']} not" in page
