"""Sources of problems: tables, data sets, families, objects of a user's own, and what is wrong with
them."""

import gzip
import json
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eapo_agents.errors import TaskError
from eapo_agents.grading import grade
from eapo_agents.recipe_file import load_recipe
from eapo_agents.tasks import load_problems
from eapo_agents.tasks.records import AS_THEY_ARE, Reading

GOOD = {"id": "1", "question": "Q?", "answer": "A", "grader": "exact"}
NUMBERS = Reading(grader="number")


def one(file: Path, reading: Reading = AS_THEY_ARE):
    (problem,) = load_problems(str(file), split="all", reading=reading)
    return problem


def line(tmp_path: Path, record: object) -> Path:
    file = tmp_path / "mine.jsonl"
    file.write_text(record if isinstance(record, str) else json.dumps(record))
    return file


def test_each_kind_of_file_is_read(tmp_path):
    csv = tmp_path / "a.csv"
    csv.write_bytes('\ufeffquestion,answer\r\n"1 + 1, or\r\n2?",2\r\n'.encode())
    assert one(csv, NUMBERS).question == "1 + 1, or\r\n2?"
    assert one(csv, NUMBERS).id == "a/0"
    (tmp_path / "a.tsv").write_text("question\tanswer\nx\t2\n")
    assert one(tmp_path / "a.tsv", NUMBERS).answer == "2"
    (tmp_path / "a.json").write_text(json.dumps([GOOD], indent=1))
    assert one(tmp_path / "a.json").id == "1"
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps(GOOD))
    assert one(tmp_path / "a.jsonl.gz").id == "1"
    table = pa.table(
        {"id": [7], "question": ["x"], "answer": [2], "raw": [b"x"], "nested": [{"a": 1}]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    problem = one(tmp_path / "a.parquet", NUMBERS)
    assert (problem.id, problem.answer, problem.metadata) == ("7", "2", {"nested": {"a": 1}})


def test_other_names_of_fields_nested_answers_and_several_answers(tmp_path):
    reading = Reading(
        fields={"question": "prompt", "answer": "reward_model.ground_truth"}, grader="exact"
    )
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "Capital?"}]
    record = {"prompt": chat, "reward_model": {"ground_truth": ["Paris", "City of Light"]}}
    problem = one(line(tmp_path, record), reading)
    assert (problem.question, problem.answer) == ("Capital?", "Paris")
    right = [grade(f"Answer: {a}", problem).correct for a in ("paris", "City of Light", "Rome")]
    assert right == [True, True, False]
    with pytest.raises(TaskError, match=r"task\.fields names 'prompt', and it has question"):
        one(line(tmp_path, {"question": "x"}), reading)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({**GOOD, "id": True}, "'id' must be a text"),
        ({**GOOD, "answer": None}, "'answer' must be a text that is not empty, got None"),
        ({**GOOD, "answer": {"value": 1}}, "one text or number, got a dict.*task.fields"),
        ({**GOOD, "answer": ["a", None]}, "'answer' must be a text"),
        ({**GOOD, "question": 3}, "'question' must be a text"),
        ({"problem": "x", "answer": "y"}, "it has problem, answer: task.fields"),
        ({**GOOD, "grader": None}, r"task\.grader"),
        ('{"id": 1, "question": "q", "answer": 1e400, "grader": "number"}', "finite number"),
        (
            '{"id": 1, "id": 2, "question": "q", "answer": 1, "grader": "number"}',
            "'id' is there tw",
        ),
        ('{"id": 1, "question": "\\ud800", "answer": 1, "grader": "number"}', "half a character"),
        ("[" * 50_000, "recursion"),
    ],
)
def test_a_record_that_is_not_a_problem_is_named_with_what_it_lacks(tmp_path, record, says):
    with pytest.raises(TaskError, match=f"Line 1 of .*{says}"):
        one(line(tmp_path, record))


def test_files_that_cannot_be_read_say_why(tmp_path):
    cases = {
        "a.csv": (b"question,answer\nx\n", "Row 2 .* names 2 columns, and it has 1"),
        "b.csv": (b"question,question\nx,y\n", "different names"),
        "c.csv": (b"question,answer\n", "is empty"),
        "d.json": (b'{"data": []}', "must hold a JSON list"),
        "e.jsonl": ('{"question": "é"}'.encode("latin-1"), "must be UTF-8 text, and byte 14"),
        "f.parquet": (b"nothing", "cannot be read"),
        "g.jsonl.gz": (b"\x1f\x8b1", "cannot be read"),
    }
    for name, (data, says) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TaskError, match=says):
            load_problems(str(tmp_path / name), split="all")


@pytest.mark.parametrize("other", ["cafe\u0301 \uff11?", "CAFÉ\u00a01?", "ca\u200bfé 1?"])
def test_a_question_is_the_same_however_it_is_written(tmp_path, other):
    file = tmp_path / "both.jsonl"
    records = [
        {**GOOD, "question": "café 1?", "split": "Train"},
        {**GOOD, "id": 2, "question": other, "split": "dev"},
    ]
    file.write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(TaskError, match="both trained on and evaluated"):
        load_problems(str(file), split="train")


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        return name

    return write


def test_a_task_may_be_any_object_that_gives_problems(own):
    name = own(
        "own_objects",
        """
        from eapo_agents.types import Problem
        ALL = [Problem(id=f"{n}", question=f"{n}?", answer="a", grader="exact") for n in range(60)]
        DICTS = [{"question": f"{n}?", "answer": n, "grader": "number"} for n in range(60)]
        SIDES = {"train": ALL[:50], "test": ALL[50:]}
        def nothing(): return ALL
        def generator(split): yield from SIDES["train" if split == "train" else "test"]
        class Methods:
            def problems(self, split): return SIDES["train" if split == "train" else "test"]
        class Called:
            def __call__(self, split): return SIDES["train" if split == "train" else "test"]
        instance = Called()
        """,
    )
    for whole in ("ALL", "DICTS", "nothing"):
        parts = [load_problems(f"{name}:{whole}", split=s) for s in ("train", "heldout")]
        assert sum(map(len, parts)) == 60
        assert len(parts[1]) >= 2
    for split in ("SIDES", "generator", "Methods", "Called", "instance"):
        assert len(load_problems(f"{name}:{split}", split="heldout")) == 10


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def x(split): return None", "gave a NoneType"),
        ("async def x(split): return []", "gave a coroutine"),
        ("def x(split): return [P(), 3]", "a list with a int"),
        ("def x(split): return [P(id=1)]", "'id' must be a text"),
        ("def x(split): return [P(answer='')]", "'answer' must be a text"),
        ("def x(split): return [P(metadata={'a': {1}})]", "set is not JSON"),
        ("def x(split): return [P(), {'question': 'q'}]", "gives both"),
        ("def x(split): return []", "no problems in its split"),
        ("def x(split): raise KeyError('k')", "failed for its split 'train': KeyError"),
        ("x = {'later': []}", "keys 'train' and 'heldout', got 'later'"),
        ("class x:\n    def __init__(self, a): pass", "TypeError"),
    ],
)
def test_an_object_that_gives_something_else_is_refused(own, text, says):
    begin = (
        "from eapo_agents.types import Problem\n"
        "def P(**m): return Problem(**{'id': 'p', 'question': 'q', 'answer': 'a', "
        "'grader': 'exact', **m})\n"
    )
    module = own(f"own_bad_{abs(hash(text))}", begin + text)
    with pytest.raises(TaskError, match=says):
        load_problems(f"{module}:x", split="train", allow_overlap=True)


CHOICES = {"question": "Which?", "choices": ["x", "y", "z"]}
HOTPOT = {"_id": "h", "question": "Who?", "answer": "Ann", "context": [["T", ["a.", " b."]]]}


@pytest.mark.parametrize(
    ("form", "record", "answer", "grader"),
    [
        ("math", {"question": "q", "answer": "2 + 2 = 4\n#### 1,004"}, "1004", "math"),
        ("math", {"problem": "q", "solution": r"so \boxed{\frac{1}{2}}."}, r"\frac{1}{2}", "math"),
        ("math", {"prompt": "q", "solution": "34"}, "34", "math"),
        ("choice", {**CHOICES, "answer": 1}, "B", "choice"),
        ("choice", {**CHOICES, "answer": "b"}, "B", "choice"),
        ("choice", {**CHOICES, "answer": "y"}, "B", "choice"),
        (
            "choice",
            {
                "question": "q",
                "choices": {"text": ["x", "y"], "label": ["1", "2"]},
                "answerKey": "2",
            },
            "B",
            "choice",
        ),
        ("choice", {"question": "q", "A": "x", "B": "y", "answer": "B"}, "B", "choice"),
        ("hotpotqa", HOTPOT, "Ann", "f1"),
    ],
)
def test_records_of_known_data_sets_become_problems(tmp_path, form, record, answer, grader):
    problem = one(line(tmp_path, record), Reading(form=form))
    assert (problem.answer, problem.grader) == (answer, grader)
    assert grade(f"Answer: {problem.answer}", problem).correct
    if form == "choice":
        assert "\nB) y" in problem.question
    if form == "hotpotqa":
        assert problem.metadata["documents"] == ["T: a. b."]


def test_programs_are_problems_whose_solutions_pass_their_tests(tmp_path):
    made = {
        "humaneval": {
            "task_id": "T/0",
            "prompt": "def one():\n",
            "canonical_solution": "    return 1\n",
            "test": "def check(candidate):\n    assert candidate() == 1\n",
            "entry_point": "one",
        },
        "mbpp": {
            "task_id": 3,
            "text": "Write a function that doubles.",
            "code": "def helper(x):\r\n  return 2 * x\r\ndef double (x):\r\n  return helper(x)",
            "test_list": ["assert double (2) == 4", "assert double(0) == 0"],
        },
    }
    for form, record in made.items():
        problem = one(line(tmp_path, record), Reading(form=form))
        assert grade(problem.answer, problem).correct
        assert not grade(
            "```python\ndef one(): return 2\ndef double(x): return 4\n```", problem
        ).correct


@pytest.mark.parametrize(
    ("form", "record", "says"),
    [
        ("choice", {**CHOICES, "answer": 3}, "one of its 3 choices, got 3"),
        ("choice", {"question": "q", "answer": "A"}, "needs from 2 to 26 'choices'"),
        (
            "mbpp",
            {"task_id": 1, "text": "t", "code": "x", "test_list": []},
            "'test_list' must call",
        ),
        ("math", {"question": "q"}, "it needs 'answer' or"),
        ("json:loads", {"question": "q"}, r"task\.form failed on it: TypeError"),
        ("builtins:id", {"question": "q"}, r"task\.form must return a mapping"),
        ("maths", {}, "Unknown form 'maths'. Did you mean 'math'"),
    ],
)
def test_a_record_of_another_form_is_refused(tmp_path, form, record, says):
    with pytest.raises(TaskError, match=says):
        one(line(tmp_path, record), Reading(form=form))


def test_a_data_set_of_a_folder_keeps_its_splits(tmp_path, monkeypatch):
    for library in ("huggingface_hub.constants", "datasets.config"):  # each asks by itself
        monkeypatch.setattr(f"{library}.HF_HUB_OFFLINE", True)
    for split, count in (("train", 5), ("test", 3)):
        records = [{"question": f"{split} {n}", "answer": n} for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = load_problems(f"hub:{tmp_path}", split="heldout", reading=NUMBERS)
    assert {p.question for p in found} == {"test 0", "test 1", "test 2"}
    assert len(load_problems(f"hub:{tmp_path}", split="train", reading=NUMBERS)) == 5
    for missing in (f"{tmp_path}/missing/x/y", "./missing/x", "~/missing"):
        with pytest.raises(TaskError, match=f"cannot be loaded: there is no folder '{missing}'"):
            load_problems(f"hub:{missing}", split="train")
    with pytest.raises(TaskError, match=r"cannot be loaded .*hub:owner/name"):
        load_problems("hub:owner/missing", split="train")


def test_a_family_of_reasoning_gym_is_graded_by_its_own_rule():
    pytest.importorskip("reasoning_gym")
    options = {"size": 40, "seed": 1}
    found = load_problems("reasoning-gym:leg_counting", split="all", options=options)
    assert all(grade(f"Answer: {p.answer}", p).correct for p in found)
    assert not grade("Answer: none", found[0]).correct
    parts = [
        {p.id for p in load_problems("reasoning-gym:leg_counting", split=s, options=options)}
        for s in ("train", "heldout")
    ]
    assert not parts[0] & parts[1]
    with pytest.raises(TaskError, match=r"no family 'leg_count'.*leg_counting"):
        load_problems("reasoning-gym:leg_count", split="all")
    with pytest.raises(TaskError, match=r"refuses task\.options"):
        load_problems("reasoning-gym:leg_counting", split="all", options={"legs": 1})


def test_the_settings_of_a_task_reach_its_problems(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("problem,answer\n" + "".join(f"q{n},{n}\n" for n in range(40)))
    recipe = load_recipe(
        "cpu-smol",
        [f"task.name={file}", "task.fields={question: problem}", "task.grader=number"],
    )
    found = recipe.task.load("train", 0)
    assert {p.grader for p in found} == {"number"}
    assert len(found) + len(recipe.task.load("heldout", 0)) == 40


def test_many_problems_take_little_more_memory_than_their_text(tmp_path):
    import tracemalloc

    file = tmp_path / "many.jsonl"
    count = 4000
    with file.open("w") as lines:
        for n in range(count):
            lines.write(json.dumps({**GOOD, "id": n, "question": f"Which has number {n}?"}) + "\n")
    load_problems(str(file), split="all")  # what is imported and compiled once
    tracemalloc.start()
    try:
        assert len(load_problems(str(file), split="train")) > count * 0.85
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most / count < 3000
