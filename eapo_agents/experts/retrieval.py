"""Retrieval: finds passages by their words (BM25), in a folder of documents or the problem's own.

Needs `eapo-agents[retrieval]`. Source: rank-bm25's BM25Plus, with its defaults: Okapi's
weights are 0 or below in a handful of passages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError, TaskError, UsageError
from eapo_agents.experts.consulting import current_consulting
from eapo_agents.tasks.files import read_records

_WORD = re.compile(r"\w+")
_TEXTS = (".txt", ".md")


def retrieval_tool(
    name: str,
    *,
    folder: str | None = None,
    field: str | None = None,
    top: int = 3,
    description: str = "finds passages that have the words of the query",
) -> BaseTool:
    """Make a tool that replies with the passages that fit a query best, the best first.

    Args:
        folder: of .txt and .md files, whose paragraphs are the passages, and .jsonl files, whose
            lines have a `text` (and may have a `title`).
        field: instead, the key of the problem's metadata that lists its passages.
        top: most passages.

    Raises:
        UsageError: not one of both is given, the folder has no passages, or rank-bm25 is missing.
    """
    if (folder is None) == (field is None) or top < 1:
        raise UsageError(
            f"The expert '{name}' (retrieval) searches either a folder or a field of the problem, "
            "for at least one passage: give one of folder and field, and top from 1."
        )
    shared = Passages(read_folder(Path(folder), name), name) if folder is not None else None

    async def search(query: str) -> str:
        passages = shared or Passages(_of_problem(str(field), name), name)
        found = passages.best(query, top)
        if not found:
            raise ExpertError("No passage has a word of the query.")
        return "\n\n".join(found)

    return StructuredTool.from_function(coroutine=search, name=name, description=description)


class Passages:
    """Passages that can be searched."""

    def __init__(self, passages: Sequence[str], name: str) -> None:
        """Index them.

        Raises:
            UsageError: rank-bm25 is missing.
        """
        try:
            from rank_bm25 import BM25Plus
        except ImportError as error:
            raise UsageError(
                f"The expert '{name}' (retrieval) needs rank-bm25: pip install "
                "'eapo-agents[retrieval]'."
            ) from error
        self._passages = list(passages)
        self._words = [_words(passage) for passage in passages]
        self._index: Any = BM25Plus(self._words)

    def best(self, query: str, top: int) -> list[str]:
        """Return the passages that fit a query best, of those that have one of its words."""
        wanted = _words(query)
        scores = self._index.get_scores(wanted)
        some = set(wanted)
        having = [n for n, words in enumerate(self._words) if not some.isdisjoint(words)]
        having.sort(key=lambda n: (-scores[n], n))
        return [self._passages[n] for n in having[:top]]


def read_folder(folder: Path, name: str) -> list[str]:
    """Return the passages of a folder's files, in the order of their names.

    Raises:
        UsageError: there are none, or a file cannot be read.
    """
    found: list[str] = []
    try:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            if file.suffix in _TEXTS:
                paragraphs = re.split(r"\n\s*\n", file.read_text(encoding="utf-8-sig"))
                found += [text.strip() for text in paragraphs if text.strip()]
            elif file.suffix == ".jsonl":
                found += [_passage(where, record) for where, record in read_records(file)]
    except (OSError, UnicodeDecodeError, TaskError, ValueError) as error:
        raise UsageError(f"The documents of the expert '{name}' cannot be read: {error}") from error
    if not found:
        raise UsageError(
            f"The expert '{name}' needs documents, and '{folder}' has none: put .txt, .md or "
            ".jsonl files (with a 'text') into it."
        )
    return found


def _passage(where: str, record: Any) -> str:
    text, title = record.get("text"), record.get("title")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where} must have a 'text', got {text!r}.")
    return f"{title}: {text.strip()}" if title else text.strip()


def _of_problem(field: str, name: str) -> list[str]:
    rollout = current_consulting()
    if rollout is None or rollout.problem is None:
        raise ExpertError(f"{name} knows the problems of a task, and this is none of them.")
    known = rollout.problem.metadata.get(field)
    if not isinstance(known, list) or not known or not all(isinstance(p, str) for p in known):
        raise ExpertError(f"The problem '{rollout.problem.id}' has no list of texts '{field}'.")
    return known


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
