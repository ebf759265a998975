"""Retrieval: passages of a folder or of the problem, by their words."""

import json

import pytest

from eapo_agents.errors import UsageError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.consulting import Consulting, consulting
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.types import ConsultationStatus, Problem

pytest.importorskip("rank_bm25")


def pool_of(**options) -> ExpertPool:
    return ExpertPool([make_expert("retrieval", name="search", options=options)])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.md").write_text("The Seine flows through Paris.\n\nThe Thames is in London.")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("\ufeffParis has a tower. Paris is large.")
    lines = [{"text": "Bamako lies on the Niger.", "title": "Mali"}, {"text": "Nothing here."}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "d.png").write_bytes(b"\x89PNG")
    return tmp_path


async def test_the_best_passages_of_a_folder_come_first(folder):
    pool = pool_of(folder=str(folder), top=2)
    answer = await pool.ask("search", {"query": "Which river flows through PARIS?"}, CallSite())
    first, second = answer.text.split("\n\n")
    assert first == "The Seine flows through Paris."
    assert second == "Paris has a tower. Paris is large."
    answer = await pool.ask("search", {"query": "Bamako"}, CallSite())
    assert answer.text == "Mali: Bamako lies on the Niger."
    answer = await pool.ask("search", {"query": "zebra?"}, CallSite())
    assert answer.status is ConsultationStatus.FAILED


async def test_a_problems_own_documents_are_searched_and_the_gold_answer_is_not(folder):
    documents = ["Ann: Ann was born in Rome.", "Bob: Bob was born in Oslo."]
    problem = Problem(
        id="p", question="Q?", answer="zebra", grader="f1", metadata={"documents": documents}
    )
    pool = pool_of(field="documents", top=1)
    with consulting(Consulting(problem_id="p", problem=problem)):
        found = await pool.ask("search", {"query": "Where was Bob born?"}, CallSite())
        none = await pool.ask("search", {"query": "zebra"}, CallSite())
    assert found.text == documents[1]
    assert none.status is ConsultationStatus.FAILED
    without = await pool.ask("search", {"query": "Bob"}, CallSite())
    assert "none of them" in (without.error or "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "one of folder and field"),
        ({"folder": "x", "field": "y"}, "one of folder and field"),
        ({"field": "y", "top": 0}, "top from 1"),
        ({"folder": "/nowhere"}, "has none"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, says):
    with pytest.raises(UsageError, match=says):
        pool_of(**options)


def test_documents_that_cannot_be_read_are_named(folder):
    (folder / "e.jsonl").write_text('{"title": "no text"}')
    with pytest.raises(UsageError, match=r"Line 1 of .*e\.jsonl.* must have a 'text'"):
        pool_of(folder=str(folder))
    with pytest.raises(UsageError, match="depend on the problem"):
        make_expert("retrieval", name="s", options={"field": "documents"}, stored=True)
