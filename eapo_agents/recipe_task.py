"""The task of a recipe: where problems come from, and how an answer is rewarded."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from eapo_agents.judge import JudgeSection
from eapo_agents.settings import Options, OwnFunction, Settings
from eapo_agents.types import Problem


class TaskSection(Settings):
    """Where the problems come from, and how an answer is rewarded."""

    name: str = "arithmetic"
    """`arithmetic`, `gsm8k`, `dapo-math`, `hotpotqa`, `humaneval`, `mbpp`, `mmlu`; a file (JSONL,
    JSON, CSV, TSV, Parquet) of id, question, answer, grader; `hub:owner/name`;
    `reasoning-gym:family`; `gymnasium:ID`; `openenv:URL`; `verifiers:NAME`; or
    `package.module:object`. See docs/tasks.md."""
    fields: dict[str, str] = Field(default_factory=dict)
    """Our key -> the source's, such as `question: problem`. A path leads into a record:
    `reward_model.ground_truth`."""
    form: str = "plain"
    """How records become problems: `plain`, `math`, `choice`, `hotpotqa`, `humaneval`, `mbpp`, or
    `package.module:function`: record -> record with our keys."""
    grader: str | None = None
    """Grader of records that name none. `exact:case+space+end` counts what `exact` puts aside."""
    options: Options = Field(default_factory=dict)
    """Options of a family of reasoning-gym or of an environment, and its `size` and `seed`."""
    held_out: Annotated[float, Field(gt=0, lt=1)] | str = 0.1
    """What is never trained on: the share of a source that says no `split`, drawn by a hash of the
    question; or a file of held-out problems."""
    allow_overlap: bool = False
    """Let problems be both trained on and evaluated."""
    system_prompt: str = 'Solve the problem. End with "Answer: " and the answer.'
    """System prompt of every rollout."""
    reward: str | list[str] = "paper"
    """`paper`, `judge`, `environment` (what a `verifiers:NAME` pays), or `package.module:function`:
    (answer or None, problem) -> reward, or (reward, whether right); or one of the other forms in
    docs/tasks.md, TRL's among them. A bare reward counts as right from 1 on. Of a list, which is
    added up, the first says what is right."""
    reward_weights: dict[str, float] = Field(default_factory=dict)
    """Weights of the rewards in a list, and of the parts that a reward returns by name. 1 where
    none is given."""
    reward_timeout_s: float = Field(60.0, gt=0)
    """Time limit of a reward of your own. A rollout on which it fails is unscored."""
    reward_of_turn: OwnFunction | None = None
    """`package.module:function`: (turn, trajectory) -> process reward of one turn, a number. It is
    asked when rows are made, and compared over all turns of a group."""
    judge: JudgeSection | None = None
    """The expert that the reward `judge` asks."""
    format_reward: float = Field(0.1, ge=0, le=1)
    """Reward of a wrong answer in the right format (`paper`)."""
    answer_form: str = "Answer: {answer}"
    """How an answer ends. An expert's solution that ends otherwise is completed with it."""

    def load(self, split: str, seed: int, name: str | None = None) -> list[Problem]:
        """Return the problems of a split, or those of another task read as this one's are."""
        from eapo_agents.tasks import HELD_OUT_SHARE, load_problems
        from eapo_agents.tasks.records import Reading

        own = name in (None, self.name)
        return load_problems(
            name or self.name,
            split=split,
            seed=seed,
            held_out=self.held_out if own else HELD_OUT_SHARE,
            allow_overlap=self.allow_overlap,
            reading=Reading(fields=self.fields, form=self.form, grader=self.grader)
            if own
            else Reading(grader=self.grader),
            options=self.options if own else {},
        )
