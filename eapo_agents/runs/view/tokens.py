"""A rollout's tokens as training sees them: its rows, with mask, logprob, advantage and weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_agents.errors import EapoError
from eapo_agents.types import (
    Problem,
    Role,
    RolloutGroup,
    Trajectory,
    has_no_tokens,
)

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from eapo_agents.runs.view.groups import Earned
    from eapo_agents.runs.view.tokenizers import TokenTexts
    from trainers.rows import TrainingRow

TOKENS_OF_A_PAGE = 5_000
LEVELS = 8
"""Shades of a colour scale."""
_LOGPROBS = (-0.05, -0.2, -0.5, -1.0, -2.0, -3.5, -5.0)
"""Where the next shade begins: most tokens are nearly certain."""
_KINDS = {
    "hint_stripped_weight": "Hint-stripped row",
    "rehearsal_weight": "Rehearsal row",
    "solo_answer_weight": "Solo-answer row",
    "self_distillation_weight": "Self-distillation row",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token of a row."""

    place: int
    """From the beginning of the row."""
    id: int
    text: str | None
    """None where the tokenizer is not at hand."""
    trained: bool
    prompt: bool
    logprob: float | None
    advantage: float | None

    @property
    def logprob_shade(self) -> int:
        """Return 0 (certain) to LEVELS - 1 (least likely)."""
        return 0 if self.logprob is None else sum(self.logprob < least for least in _LOGPROBS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowView:
    """A row for a page."""

    label: str
    told: str
    """What the row teaches, or why it is not trained."""
    row: TrainingRow
    is_trained: bool
    tokens: Sequence[TokenView]
    """Those of one page."""
    num_tokens: int
    start: int
    strongest: float
    """The largest size of an advantage in the group, which has the darkest shade."""

    def advantage_shade(self, token: TokenView) -> int:
        """Return -(LEVELS - 1) to LEVELS - 1."""
        if not token.advantage or not self.strongest:
            return 0
        return round((LEVELS - 1) * max(-1.0, min(1.0, token.advantage / self.strongest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """All rows of a rollout."""

    rows: Sequence[RowView]
    told: Sequence[str]
    """What is missing, and why."""
    is_whole: bool = True
    """Whether nothing more comes when it is asked for again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Of which rollout, and how."""

    trajectory: Trajectory
    group: RolloutGroup
    """Its group; the trajectory is one of it."""
    earned: Earned | None
    recipe: Recipe | None
    is_training: bool
    """Whether its run is one that is trained on, not an evaluation."""
    texts: TokenTexts | None
    strongest: float = 0.0
    start: int = 0
    """First token that is shown of each row."""
    patience_s: float | None = None
    """How long to wait for what renders prompts, which takes seconds to load; None: as it takes."""


def rows_of(asked: Asked) -> Rows:
    """Return a rollout's training rows: the policy gradient's, and the likelihood rows that the
    recipe makes of it."""
    told: list[str] = []
    if asked.texts is None:
        told.append(
            "The tokenizer of the run's model is not on this machine: token ids are shown in place "
            "of texts."
        )
    if has_no_tokens(asked.trajectory.turns):
        found = "The rollout has no tokens: " + (
            "an API model wrote its turns." if asked.trajectory.turns else "it has no turns."
        )
        return Rows(rows=[], told=[found])
    rows = list(_relative(asked, told))
    is_whole = _can_render(asked)
    if not is_whole:
        told.append("More rows are on their way: the model's chat template is being read.")
    elif asked.is_training and asked.recipe is not None:
        rows += _likelihood(asked, asked.recipe, told)
    return Rows(rows=rows, told=told, is_whole=is_whole)


def _can_render(asked: Asked) -> bool:
    """Return whether the likelihood rows can be made now, if the recipe makes any."""
    recipe, texts = asked.recipe, asked.texts
    if asked.patience_s is None or not asked.is_training or recipe is None or texts is None:
        return True
    weights = (getattr(recipe.train.internalise, name) for name in _KINDS)
    is_expert = asked.trajectory.role is Role.EXPERT
    return not (is_expert or any(weights)) or texts.is_warm(asked.patience_s)


def _relative(asked: Asked, told: list[str]) -> Iterator[RowView]:
    from trainers.rows import trajectory_rows

    trajectory, earned = asked.trajectory, asked.earned
    advantage = None if earned is None else earned.advantage
    of_turns = earned.of_turns or None if earned is not None else None
    scripted = trajectory.role is Role.EXPERT or any(t.logprobs is None for t in trajectory.turns)
    try:
        rows = trajectory_rows(
            trajectory, advantage=advantage or 0.0, scripted=scripted, of_turns=of_turns
        )
    except EapoError as error:
        told.append(str(error))
        return
    if _hint_is_taken_away(asked):
        told.append(
            "Its last turn is trained behind the tool-free prompt (train.off_policy.hints). It is "
            "shown as it was sampled."
        )
    if not rows:
        told.append("No token of this rollout is the policy's own: there is nothing to train.")
    if scripted and trajectory.role is not Role.EXPERT:
        told.append("The trace has no logprobs: no policy gradient can be taken on it.")
    is_trained = asked.is_training and not scripted and any((advantage, *(of_turns or ())))
    why = (
        "Policy gradient: each token is pushed by its advantage."
        if is_trained
        else _untrained(asked, scripted)
    )
    for number, row in enumerate(rows):
        label = f"Row {number + 1} of {len(rows)}" if len(rows) > 1 else "Row"
        yield _view(asked, row, label=label, told=why, is_trained=is_trained)


def _hint_is_taken_away(asked: Asked) -> bool:
    from trainers.off_policy import was_hinted

    recipe = asked.recipe
    if recipe is None or not asked.is_training or recipe.train.off_policy.hints == "kept":
        return False
    return was_hinted(asked.trajectory)


def _untrained(asked: Asked, scripted: bool) -> str:
    if not asked.is_training:
        return "Not trained: the rollout is an evaluation's."
    if asked.trajectory.role is Role.EXPERT:
        mixed = asked.recipe is not None and asked.recipe.train.off_policy.solutions == "rollout"
        joins = " It joins the group of its problem at each step." if mixed else ""
        return f"An expert's solution: the policy sampled none of it.{joins}"
    if scripted:
        return "Not trained: it has no logprobs."
    if asked.trajectory.reward is None:
        return "Not trained by the policy gradient: the rollout has no reward."
    return (
        "Not trained by the policy gradient: its advantage is 0, as where all rewards that it is "
        "compared with are equal."
    )


def _likelihood(asked: Asked, recipe: Recipe, told: list[str]) -> list[RowView]:
    """Return the likelihood rows that are made of this rollout. A row of equal answers is shown at
    the first of them."""
    internalise = recipe.train.internalise
    wanted = [name for name in _KINDS if getattr(internalise, name)]
    is_expert = asked.trajectory.role is Role.EXPERT
    if not wanted and not is_expert:
        return []
    found = []
    for name in wanted or [""]:
        label = _KINDS.get(name, "Solution row")
        only = {kind: 0.0 for kind in _KINDS if kind != name}
        settings = recipe.train.model_copy(
            update={"internalise": internalise.model_copy(update=only)}
        )
        try:
            rows = _objective_rows(asked, recipe.model_copy(update={"train": settings}), told)
        except EapoError as error:
            told.append(f"{label}s are left out: {error}")
            continue
        found += [
            _view(
                asked,
                row,
                label="Solution row" if is_expert else label,
                told=_taught(row),
                is_trained=True,
            )
            for row in rows
            if row.trajectory is asked.trajectory
        ]
        if is_expert:
            break
    return found


def _taught(row: TrainingRow) -> str:
    alike = f" {row.weight:g} equal answers share it." if row.weight > 1 else ""
    ratio = " It keeps its logprobs, for the ratio." if row.logprobs_T is not None else ""
    teacher = " A teacher with the reply in its context judges it." if row.teacher_ids else ""
    return f"Likelihood of weight {row.advantage:g}.{alike}{ratio}{teacher}"


def _objective_rows(asked: Asked, recipe: Recipe, told: list[str]) -> list[TrainingRow]:
    from eapo_agents.rewards import reward_of
    from trainers.likelihood import StandIn
    from trainers.objective import Objective

    if asked.texts is None:
        raise EapoError("they need the model's tokenizer, which is not on this machine.")
    renderer = asked.texts.renderer
    stand_in: Callable[[Trajectory], Sequence[int] | None] = lambda trajectory: None  # noqa: E731
    if recipe.train.internalise.min_answer_to_reply_ratio:
        if _grades_without_programs(recipe, asked.trajectory.problem):
            stand_in = StandIn(
                renderer=renderer,
                reward=reward_of(recipe),
                answer_form=recipe.task.answer_form,
                min_answer_to_reply_ratio=recipe.train.internalise.min_answer_to_reply_ratio,
            )
        else:
            told.append(
                "Where a reply takes a short answer's place, the answer is shown: finding that out "
                "takes a reward that runs programs, a judge or your code."
            )
    objective = Objective(
        solo_prompt=_solo_prompt(asked.texts, recipe),
        settings=recipe.train,
        stand_in=stand_in,
        calls_of=lambda text: renderer.format.parse(text).calls,
    )
    return objective.likelihood_rows([asked.group])


def _grades_without_programs(recipe: Recipe, problem: Problem) -> bool:
    from eapo_agents.grading import LENIENT, SLOW
    from eapo_agents.recipe_conditions import rewards_of
    from eapo_agents.rewards import PAPER

    grader = problem.grader.removesuffix(LENIENT)
    return tuple(rewards_of(recipe)) == (PAPER,) and grader not in SLOW and ":" not in grader


def _solo_prompt(texts: TokenTexts, recipe: Recipe) -> Callable[[Problem], Sequence[int]]:
    from langchain_core.utils.function_calling import convert_to_openai_tool

    from eapo_agents.recipe_rules import is_own
    from eapo_agents.tools import is_outside, make_tools
    from graphs.rollout import first_messages

    def prompt(problem: Problem) -> Sequence[int]:
        if is_own(recipe.graph) or any(is_outside(one) for one in recipe.tools):
            raise EapoError(
                "the prompt comes from code or a server of yours, which a page does not run."
            )
        tools = [convert_to_openai_tool(tool) for tool in make_tools(recipe.tools)]
        messages = first_messages(recipe.task.system_prompt, problem.question)
        return texts.renderer.prompt(messages, tools)

    return prompt


def _view(asked: Asked, row: TrainingRow, *, label: str, told: str, is_trained: bool) -> RowView:
    ids = (*row.prompt_ids, *row.completion_ids_T)
    first, num_prompt = asked.start, len(row.prompt_ids)
    last = min(len(ids), first + TOKENS_OF_A_PAGE)
    texts: Sequence[str | None] = [None] * (last - first)
    if asked.texts is not None:
        texts = asked.texts.pieces(ids[first:last])
    tokens = []
    for place, text in zip(range(first, last), texts, strict=True):
        within = place - num_prompt
        trained = within >= 0 and bool(row.mask_T[within])
        logprob = row.logprobs_T[within] if trained and row.logprobs_T is not None else None
        advantage = row.advantage
        if row.advantages_T is not None and within >= 0:
            advantage = row.advantages_T[within]
        tokens.append(
            TokenView(
                place=place,
                id=ids[place],
                text=text,
                trained=trained,
                prompt=within < 0,
                logprob=logprob,
                advantage=advantage if trained else None,
            )
        )
    return RowView(
        label=label,
        told=told,
        row=row,
        is_trained=is_trained,
        tokens=tokens,
        num_tokens=len(ids),
        start=first,
        strongest=max(asked.strongest, abs(row.advantage)),
    )
