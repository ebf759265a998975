"""Forms of records: how those of well-known data sets become id, question, answer and grader.

A form is a function from a record to a record with our keys; what else it returns is metadata. A
user's own is named `package.module:function`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from eapo_agents.errors import TaskError
from eapo_agents.registry import Registry, describe

Form = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_CODE = "Write the Python function {name}. Reply with the whole function in one code block.\n\n"


def plain(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a record that has our keys already."""
    return record


def math(record: Mapping[str, Any]) -> Mapping[str, Any]:
    r"""Take a problem of mathematics: its answer is a field, or stands in its solution after
    `####` (GSM8K) or in the last `\boxed{}` (MATH)."""
    found = dict(record)
    question = _first(found, "question", "problem", "prompt")
    given = _first(found, "answer", "expected_answer", "final_answer", "solution")
    answer = _final(str(given)) if isinstance(given, str) else given
    if isinstance(given, str) and answer != given.strip():
        found.setdefault("solution", _worked(given))
    for key in ("problem", "prompt", "expected_answer", "final_answer"):
        found.pop(key, None)
    if found.get("solution") == answer:  # it is the bare answer, as in DAPO-math
        found.pop("solution")
    return {"grader": "math", **found, "question": question, "answer": answer}


def choice(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a multiple-choice question: `choices` is a list, or a mapping of `text` and `label`, or
    the columns A, B, C, ...; `answer` is a letter, a label, an index from 0, or the right text."""
    found = dict(record)
    choices, labels = _choices(found)
    given = _first(found, "answer", "answerKey", "label")
    letter = _letter(given, choices, labels)
    options = "\n".join(f"{a}) {b}" for a, b in zip(string.ascii_uppercase, choices))  # noqa: B905
    for key in ("answerKey", "label"):
        found.pop(key, None)
    return {
        "grader": "choice",
        **found,
        "question": f"{found.get('question', '')}\n\n{options}",
        "answer": letter,
        "choices": choices,
    }


def hotpotqa(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a question over paragraphs, which become `documents` ("Title: text") of the metadata:
    the policy does not see them, and an expert of kind `retrieval` finds them."""
    found = dict(record)
    context = found.pop("context", None) or []
    pairs = (
        zip(context["title"], context["sentences"], strict=True)
        if isinstance(context, Mapping)
        else context
    )
    documents = [f"{title}: {''.join(sentences).strip()}" for title, sentences in pairs]
    if "_id" in found:
        found["id"] = found.pop("_id")
    return {"grader": "f1", **found, "documents": documents}


def humaneval(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a function to complete: `prompt`, `canonical_solution`, `test` and `entry_point`."""
    prompt, name = str(_first(record, "prompt")), str(_first(record, "entry_point"))
    solution = f"{prompt}{_first(record, 'canonical_solution')}"
    return {
        "id": _first(record, "task_id", "id"),
        "question": f"{_CODE.format(name=name)}```python\n{prompt.rstrip()}\n```",
        "answer": _block(solution),
        "grader": "code",
        "prompt": prompt,
        "test": str(_first(record, "test")),
        "entry_point": name,
        "solution": _block(solution),
    }


def mbpp(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take a function that a sentence describes: `text` or `prompt`, `code`, and its `test_list`,
    whose first line is shown, as upstream does."""
    text, tests = str(_first(record, "text", "prompt")), list(_first(record, "test_list"))
    code = str(_first(record, "code"))
    names = re.findall(r"^(?:def\s+)?(\w+)\s*(?:\(|=\s*lambda)", code, re.MULTILINE)
    name = next((n for n in names if re.search(rf"\b{n}\s*\(", str(tests[:1]))), None)
    if name is None:
        raise ValueError("its 'test_list' must call a function that its 'code' defines")
    setup = record.get("test_imports") or record.get("test_setup_code") or ""
    lines = [*([setup] if isinstance(setup, str) else setup), f"{name} = candidate", *tests]
    body = "\n".join(f"    {line}" for one in lines for line in str(one).splitlines())
    return {
        "id": f"Mbpp/{_first(record, 'task_id', 'id')}",
        "question": f"{_CODE.format(name=name)}{text.strip()}\nIt must pass: {tests[0]}",
        "answer": _block(code),
        "grader": "code",
        "test": f"def check(candidate):\n{body}\n",
        "entry_point": name,
        "solution": _block(code),
    }


def _block(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _first(record: Mapping[str, Any], *keys: str) -> Any:
    for key in keys:
        if record.get(key) is not None:
            return record[key]
    raise ValueError(f"it needs {' or '.join(map(repr, keys))}, and has {', '.join(record)}")


def _final(text: str) -> str:
    """Return the answer at the end of a solution; the text where it marks none."""
    _, mark, after = text.rpartition("####")
    if mark:
        return after.strip().replace(",", "")
    start = text.rfind("\\boxed{")
    if start < 0:
        return text.strip()
    depth, begin = 0, start + len("\\boxed{")
    for index in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[begin:index].strip()
    return text.strip()


def _worked(text: str) -> str:
    return text.rpartition("####")[0].strip() or text.strip()


def _choices(found: dict[str, Any]) -> tuple[list[str], Sequence[str]]:
    given = found.pop("choices", None) or found.pop("options", None)
    if isinstance(given, Mapping):
        return [str(one) for one in given["text"]], [str(one) for one in given["label"]]
    if given is None:
        letters = [letter for letter in string.ascii_uppercase if found.get(letter) is not None]
        given = [found.pop(letter) for letter in letters]
    if not isinstance(given, list | tuple) or not 2 <= len(given) <= len(string.ascii_uppercase):
        raise ValueError("it needs from 2 to 26 'choices', or the columns A, B, ...")
    return [str(one) for one in given], string.ascii_uppercase[: len(given)]


def _letter(given: object, choices: Sequence[str], labels: Sequence[str]) -> str:
    """Return the letter of the right choice."""
    text = str(given).strip()
    index: int | None = None
    if isinstance(given, int) and not isinstance(given, bool):
        index = given
    elif text in labels:
        index = list(labels).index(text)
    elif text.upper() in labels:
        index = list(labels).index(text.upper())
    elif choices.count(text) == 1:
        index = list(choices).index(text)
    elif text.isdigit():
        index = int(text)
    if index is None or not 0 <= index < len(choices):
        raise ValueError(
            f"'answer' must be the letter, the index from 0 or the text of one of its "
            f"{len(choices)} choices, got {given!r}"
        )
    return string.ascii_uppercase[index]


def _guarded(form: Form) -> Form:
    def apply(record: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            found: object = form(record)
        except ValueError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise ValueError(f"task.form failed on it: {type(error).__name__}: {error}") from error
        if not isinstance(found, Mapping):
            raise ValueError(f"task.form must return a mapping, and returned {describe(found)}")
        return found

    return apply


FORMS = Registry[Form](
    "form",
    {
        "plain": plain,
        "math": math,
        "choice": choice,
        "hotpotqa": hotpotqa,
        "humaneval": humaneval,
        "mbpp": mbpp,
    },
    accept=lambda found: _guarded(cast(Form, found)) if callable(found) else None,
    rule="a function from a record to a record with question, answer and grader",
    error=TaskError,
)
