"""Distillation, the baseline: the first expert solves the training problems, and its right
solutions are imitated; perhaps only in a run's first steps, before it goes on with rollouts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.consulting import Consulting, consulting
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.engine import Engine
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.recipe import Recipe
from eapo_agents.rewards import Reward, reward_of, scored
from eapo_agents.schedules import counter_key
from eapo_agents.store import TraceStore
from eapo_agents.types import (
    Consultation,
    ConsultationStatus,
    PolicyVersion,
    Problem,
    Role,
    RolloutGroup,
    Sampling,
    StopReason,
    Trajectory,
    Turn,
)
from graphs.concurrency import Concurrency
from graphs.fill import RolloutPlan, fill
from graphs.rollout import group_key
from trainers.likelihood import completed, in_form
from trainers.sources import LiveRollouts


@dataclass(slots=True, kw_only=True)
class ExpertSolutions:
    """A `RolloutSource` whose groups have one member: what the expert wrote, as if the policy had.

    Solutions that are wrong are logged and not imitated.
    """

    pool: ExpertPool
    renderer: ChatRenderer
    solo_prompt: Callable[[Problem], Sequence[int]]
    version: PolicyVersion
    """The weights at the start, for the record."""
    recipe: Recipe
    problems: Sequence[Problem]
    store: TraceStore
    run_id: str
    engine: Engine
    """The policy's: it samples nothing here."""
    concurrency: Concurrency
    key_prefix: str = ""
    """Before the names of its groups in the store, where the run has rollouts of the same steps."""
    _had: dict[str, RolloutGroup] | None = field(default=None)
    """Group key (a problem at a step) -> its solution, those of an interrupted run too."""

    def __len__(self) -> int:
        return len(self.problems)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        had = self._read()
        most = self.recipe.train.expert_calls
        # steps that are repeated after an interruption must not count, or draw, what came later
        before = sorted(key for key, group in had.items() if _step(group) < step)
        left = len(items) if most is None else max(0, most - len(before))
        problems = [self.problems[item] for item in items[:left]]
        self._solve_missing(problems, step)
        new = [group_key(problem, step) for problem in problems]
        at_hand, seed = [*before, *new], self.recipe.seed
        drawn = [counter_key("again", seed, step, item) % len(at_hand) for item in items[left:]]
        return [
            *(had[key] for key in new),
            *(_used_again(had[at_hand[index]]) for index in drawn),
        ]

    def once(self, problems: Sequence[Problem], step: int) -> dict[str, Trajectory]:
        """Return solutions by problem id: those of earlier steps, and of the other problems those
        that are asked for now, as far as `train.expert_calls` allows."""
        had = self._read()
        earlier = {
            group.problem.id: _used_again(group).trajectories_G[0]
            for group in had.values()
            if _step(group) < step
        }
        new = [problem for problem in problems if problem.id not in earlier]
        most = self.recipe.train.expert_calls
        if most is not None:
            new = new[: max(0, most - len(earlier))]
        self._solve_missing(new, step)
        now = {p.id: had[group_key(p, step)].trajectories_G[0] for p in new}
        return earlier | now

    def _read(self) -> dict[str, RolloutGroup]:
        """Return the solutions at hand, which a run that continues has in its store."""
        if self._had is None:
            self._had = {
                group_key(group.problem, group.trajectories_G[0].global_step): group
                for group in self.store.groups(self.run_id)
                if group.trajectories_G[0].role is Role.EXPERT
            }
        return self._had

    def _solve_missing(self, problems: Sequence[Problem], step: int) -> None:
        """Ask for the solutions of a step that are not at hand."""
        had = self._read()
        fill(
            self.store,
            [
                RolloutPlan(
                    problem=problem,
                    rollouts=(0,),
                    run_id=self.run_id,
                    key=self.key_prefix + group_key(problem, step),
                )
                for problem in problems
                if group_key(problem, step) not in had
            ],
            lambda plan, rollout, ended: self._solve(plan.problem, step),
            engine=self.engine,
            concurrency=self.concurrency,
            on_group=lambda plan, group: had.__setitem__(group_key(plan.problem, step), group),
        )

    def _solution(self, reply: str, problem: Problem, rewarded: Reward) -> str:
        """Return what is imitated where it is right."""
        form, by = self.recipe.task.answer_form, self.recipe.train.complete_replies
        if by == "none":
            return in_form(reply, problem, form, rewarded)
        return completed(reply, problem, form, rewarded, by=by)

    async def _solve(self, problem: Problem, step: int) -> Trajectory:
        name = self.pool.tools[0].name
        # what a solver can read, where the task has it; an LLM gets the question
        query = str(problem.metadata.get("expression", problem.question))
        site = CallSite(problem_id=problem.id, global_step=step)
        who = Consulting(problem_id=problem.id, problem=problem, global_step=step)
        with consulting(who):
            answer = await self.pool.ask(name, {"query": query}, site)
        rewarded = reward_of(self.recipe, self.pool)
        text = self._solution(answer.text, problem, rewarded) if answer.accepted else ""
        reward, correct = scored(rewarded, text, problem)  # without parts: the expert's own
        consultation = Consultation(
            slot=0,
            expert=name,
            query=query,
            reply=answer.text,
            status=ConsultationStatus.ACCEPTED if answer.accepted else answer.status,
            rho=1.0,
            u=0.0,
            latency_s=answer.latency_s,
            tokens=answer.usage.prompt_tokens + answer.usage.completion_tokens,
            cost_usd=answer.cost_usd or 0.0,
            error=answer.error,
        )
        turn = Turn(
            context_ids=tuple(self.solo_prompt(problem)),
            completion_ids=tuple(self.renderer.encode_answer(text)),
            logprobs=None,
            parent=None,
            text=text,
            finish_reason="stop",
            consultations=(consultation,),
        )
        facts: dict[str, Any] = {
            "problem": problem,
            "graph": Role.EXPERT.value,
            "role": Role.EXPERT,
            "policy": self.version,
            "sampling": Sampling(temperature=0.0),
            "seed": self.recipe.seed,
            "rollout": 0,
            "global_step": step,
        }
        return Trajectory(
            **facts,
            turns=(turn,),
            stop_reason=StopReason.ANSWERED,
            answer=text,
            reward=reward,
            correct=correct,
            error=None,
            duration_s=answer.latency_s,
        )


def _used_again(group: RolloutGroup) -> RolloutGroup:
    """Return a group without its call: it was paid for, and counted, in its own step."""
    (solved,) = group.trajectories_G
    turns = tuple(replace(turn, consultations=()) for turn in solved.turns)
    return replace(group, trajectories_G=(replace(solved, turns=turns),))


def _step(group: RolloutGroup) -> int:
    return group.trajectories_G[0].global_step


@dataclass(slots=True, kw_only=True)
class SolutionsFirst:
    """A `RolloutSource` of supervised training, then RL: an expert's solutions in the first steps,
    rollouts of the present weights in the others.

    It is one run: one optimizer, one schedule of the learning rate, one ledger.
    """

    solutions: ExpertSolutions
    live: LiveRollouts
    steps: int
    """So many training steps learn from solutions."""

    def __len__(self) -> int:
        return len(self.live)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        now = self.solutions if step <= self.steps else self.live
        return now.groups(items, step, elsewhere)
