"""A new project: a recipe, problems, a reward and a short README, which run as they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from eapo_agents.errors import UsageError
from eapo_agents.files import write_atomically
from eapo_agents.tasks.files import ENDINGS, is_file
from eapo_agents.tasks.records import read_problems

_WORDS = (
    "planet garden window silver candle bridge pepper rocket summer walnut castle mirror "
    "pencil button island lemon tiger cloud piano river stone table apple chair bread train "
    "plant house snow wolf moon lamp rain ship door fish tree bird milk gold violin elephant "
    "umbrella mountain keyboard dolphin balcony lantern harvest thunder journey painter "
    "blanket compass"
)
_EXPERTS = {
    "reference": "{kind: reference, options: {field: solution}}",
    "openai-chat": "{kind: openai-chat, options: {model: gpt-5-mini, api_key_env: OPENAI_API_KEY}}",
}
"""Kind -> the expert as a recipe writes it."""
_RECIPE = """\
# A project of yours. `eapo doctor -r recipe.yaml` checks it; the README has the commands.
name: {name}
policy: {{model: {model}}}
sampling: {{temperature: 1.0, max_new_tokens: 128}}
task:
  name: {problems}
  held_out: 0.3
  system_prompt: 'Solve the problem. End with "Answer: " and the answer.'
  reward: rewards:right
consult:
  experts:
    helper: {expert}
  turns: {{start: 2, end: 2}}
  max_queries: 1
  solo_share: 0.5
  acceptance: {{kind: adaptive, start: 1.0, target: 0.7}}
warm_start: {{script: asking, problems: 32, rows_per_step: 4}}
collect: {{problems: 16, num_generations: 4}}
train:
  steps: 5
  problems_per_step: 8
  num_generations: 4
  advantage: dr_grpo
  baseline: condition
  internalise: {{hint_stripped_weight: 2.0, rehearsal_weight: 1.0, min_answer_to_reply_ratio: 1.0}}
  learning_rate: 1.0e-3
  minibatches_per_step: 2
  gradient_accumulation_steps: 4
eval: {{problems: 300, temperature: 0.6, max_new_tokens: 128}}
"""
_REWARDS = '''\
"""The reward of this project: a function of an answer and its problem."""

from eapo_agents.grading import grade


def right(answer, problem):
    """Return (reward, whether right): 1 for a right answer, 0.1 for one in the right form.

    `answer` is the policy's whole last message, None where there is none; `problem` has `question`,
    `answer` (gold), `grader` and `metadata`.
    """
    found = grade(answer or "", problem)
    return 1.0 if found.correct else 0.1 if found.formatted else 0.0, found.correct
'''
_README = """\
# {name}

`{problems}` has the problems, `rewards.py` the reward, `recipe.yaml` the rest. In this folder:

    eapo doctor -r recipe.yaml --ask                                        # is anything wrong?
    eapo warm-start -r recipe.yaml --out runs/warm                          # teach it to ask
    eapo eval -r recipe.yaml --policy runs/warm/policy --out runs/before
    eapo train -r recipe.yaml --policy runs/warm/policy --out runs/train
    eapo eval -r recipe.yaml --policy runs/train/policy --out runs/after --baseline runs/before
"""


def new_project(
    folder: Path, *, problems: Path | None, model: str, expert: str | None
) -> list[Path]:
    """Write a project into a new folder; return its files.

    Args:
        problems: a file of problems to copy; by default small ones that count letters.
        expert: `reference` or `openai-chat`; by default the former where problems have solutions.

    Raises:
        UsageError: the folder is not empty, there is no such expert, or it does not fit.
        TaskError: the problems cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"A project begins in a new folder, and '{folder}' has files: name another."
        )
    if problems is not None and not (is_file(str(problems)) or problems.exists()):
        raise UsageError(
            f"A project begins with a file of problems ({', '.join(ENDINGS)}), got '{problems}': "
            "leave --problems out, and set task.name in recipe.yaml afterwards (docs/tasks.md)."
        )
    known = read_problems(problems) if problems is not None else None
    have_solutions = known is None or all(p.metadata.get("solution") for p in known)
    kind = expert or ("reference" if have_solutions else "openai-chat")
    if kind not in _EXPERTS:
        raise UsageError(
            f"A project begins with one of the experts {', '.join(_EXPERTS)}, got '{kind}': take "
            "one, and change recipe.yaml afterwards (docs/experts.md)."
        )
    if kind == "reference" and not have_solutions:
        raise UsageError(
            f"The expert 'reference' gives each problem's 'solution', and some in '{problems}' "
            "have none: add them, or take --expert openai-chat."
        )
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in folder.resolve().name)[:64]
    ending = "".join(problems.suffixes[-2:]) if problems is not None else ".jsonl"
    file = f"problems{ending}" if is_file(f"problems{ending}") else "problems.jsonl"
    texts = {
        "recipe.yaml": _RECIPE.format(
            name=name, model=json.dumps(model), expert=_EXPERTS[kind], problems=file
        ),
        "rewards.py": _REWARDS,
        "README.md": _README.format(name=name, problems=file),
    }
    if problems is None:
        texts[file] = "".join(map(_letters, _WORDS.split()))
    else:
        shutil.copyfile(problems, folder / file)
    for written, text in texts.items():
        write_atomically(folder / written, text)
    return sorted(folder.iterdir())


def _letters(word: str) -> str:
    """Return a problem as a line: count a word's letters."""
    counted = " ".join(f"{letter}({number})" for number, letter in enumerate(word, start=1))
    problem = {
        "id": f"letters/{word}",
        "question": f"How many letters has the word '{word}'?",
        "answer": str(len(word)),
        "grader": "number",
        "solution": f"Count them: {counted}. So {len(word)}.",
    }
    return json.dumps(problem) + "\n"
