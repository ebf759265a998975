"""Training runs: the adapter, where groups come from, checkpoints, resuming."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import PrinterCallback

from eapo_agents.errors import RecipeError, TraceError
from eapo_agents.experts.reference import refuse_unknown_field
from eapo_agents.policy.models import POLICY_FILE, save_policy
from eapo_agents.policy.transformers_engine import TransformersEngine
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_help import HINTED
from eapo_agents.rewards import reward_of
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Role, RolloutGroup
from graphs.agent import Agent
from graphs.builders import find_function
from graphs.concurrency import Concurrency
from graphs.rollout import Rollouts
from graphs.state import role_of
from trainers.call_limit import call_limit_of
from trainers.callbacks import AfterStepCallback, WeightsChanged
from trainers.continuing import InterruptibleSource, Interrupts, train_on
from trainers.distillation import ExpertSolutions, SolutionsFirst
from trainers.doctor import Expectation, examined
from trainers.grpo import EapoTrainer
from trainers.likelihood import StandIn
from trainers.mixing import MixedSolutions
from trainers.objective import Objective
from trainers.sources import LiveRollouts, LoggedRollouts, ReplayedRollouts, RolloutSource
from trainers.teacher import teacher_of
from trainers.trl_arguments import grpo_config, processes
from trainers.weight_sync import Publisher

OnStep = Callable[[int, dict[str, float]], None]
AfterStep = Callable[[int], None]
POLICY_FOLDER = "policy"


def add_adapter(agent: Agent) -> None:
    """Put a fresh LoRA adapter on the agent's model, if it has none and the recipe wants one."""
    lora = agent.recipe.train.lora
    if lora is None or hasattr(agent.model, "peft_config"):
        return
    torch.manual_seed(agent.recipe.seed)
    agent.model = get_peft_model(
        agent.model,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            target_modules=lora.target_modules,
            lora_dropout=0.0,
            task_type="CAUSAL_LM",
        ),
    )
    if isinstance(agent.engine, TransformersEngine):
        agent.engine.weights_changed(agent.loaded.step)


def train_live(
    agent: Agent,
    problems: Sequence[Problem],
    store: TraceStore,
    folder: Path,
    run_id: str,
    on_step: OnStep | None = None,
    after_step: AfterStep | None = None,
    logged: Sequence[RolloutGroup] = (),
) -> Path:
    """Train on rollouts of the present weights, all of them logged, or on an expert's solutions.
    Return the trained policy's folder.

    Args:
        after_step: called with each training step whose weights are there to be looked at.
        logged: what the recipe's `replay` draws from, as `usable_groups` gives it.

    Raises:
        RecipeError: the problems do not fit the recipe.
    """
    recipe = agent.recipe
    refuse_unfit_problems(recipe, problems)
    source: RolloutSource
    if recipe.train.method == "distillation":
        source = _solutions(agent, problems, store, run_id)
    else:
        source = live = _live_rollouts(agent, problems, store, run_id)
        if recipe.train.distillation_steps:
            solutions = _solutions(agent, problems, store, run_id)
            source = SolutionsFirst(
                solutions=solutions, live=live, steps=recipe.train.distillation_steps
            )
        elif recipe.train.off_policy.solutions != "none":
            solutions = _solutions(agent, problems, store, run_id, key_prefix="solution/")
            source = MixedSolutions(live=live, solutions=solutions)
        elif (replay := recipe.train.replay) is not None:
            source = ReplayedRollouts(
                live=live, logged=logged, share=replay.share, max_staleness=replay.max_staleness
            )
    return _train(agent, source, folder, recipe.train.steps, on_step, after_step)


def _solutions(
    agent: Agent,
    problems: Sequence[Problem],
    store: TraceStore,
    run_id: str,
    key_prefix: str = "",
) -> ExpertSolutions:
    """Where an expert's solutions come from."""
    return ExpertSolutions(
        pool=agent.pool,
        renderer=agent.renderer,
        solo_prompt=agent.solo_prompt,
        version=agent.engine.policy_version,
        recipe=agent.recipe,
        problems=problems,
        store=store,
        run_id=run_id,
        engine=agent.engine,
        concurrency=_concurrency(agent),
        key_prefix=key_prefix,
    )


def _live_rollouts(
    agent: Agent, problems: Sequence[Problem], store: TraceStore, run_id: str
) -> LiveRollouts:
    """Where a live run's groups come from."""
    recipe, policy = agent.recipe, agent.policy(agent.sampling)
    state = processes(recipe)
    return LiveRollouts(
        rollouts=Rollouts(
            graph=agent.graph(policy),
            solo_graph=agent.solo_half(policy),
            inputs=agent.inputs,
            answer_of=agent.answer_of,
            policy=policy,
            system_prompt=recipe.task.system_prompt,
            seed=recipe.seed,
            reward=reward_of(recipe, agent.pool),
            assistance=agent.assistance,
            timeout_s=recipe.rollouts.rollout_timeout_s,
        ),
        concurrency=_concurrency(agent),
        problems=problems,
        num_rollouts=recipe.train.num_generations,
        store=store,
        run_id=run_id,
        has_spread=objective_of(agent).has_spread,
        dynamic_sampling_retries=recipe.train.dynamic_sampling_retries,
        skip_settled=recipe.train.skip_settled,
        process=state.process_index,
        num_processes=state.num_processes,
        limit=call_limit_of(recipe, state.num_processes),
    )


def _concurrency(agent: Agent) -> Concurrency:
    return Concurrency(agent.recipe.rollouts.concurrency, agent.engine, agent.pool.rate_limited)


def refuse_unfit_problems(recipe: Recipe, problems: Sequence[Problem]) -> None:
    """Raise RecipeError for problems that a reference knows nothing of, and for fewer than a step
    takes: TRL runs no step that is not full."""
    for name, expert in recipe.consult.experts.items():
        refuse_unknown_field(name, expert.kind, expert.options, problems)
    if len(problems) < recipe.train.problems_per_step:
        raise RecipeError(
            f"train.problems_per_step is {recipe.train.problems_per_step}, and the task has "
            f"{len(problems)} problems to train on: lower it, or add problems."
        )


def train_logged(
    agent: Agent,
    groups: Sequence[RolloutGroup],
    folder: Path,
    on_step: OnStep | None = None,
    after_step: AfterStep | None = None,
) -> Path:
    """Train on groups that `usable_groups` gave; return the trained policy's folder."""
    settings = agent.recipe.train
    source = LoggedRollouts(logged=groups, groups_per_step=settings.problems_per_step)
    steps = len(source) // settings.problems_per_step * settings.epochs
    return _train(agent, source, folder, steps, on_step, after_step)


def train_traced(agent: Agent, store: TraceStore, run_id: str, folder: Path) -> Path:
    """Train on one run of a store; return the trained policy's folder.

    Raises:
        TraceError: the traces must not be trained on, or there is nothing to learn from them.
    """
    return train_logged(agent, usable_groups(agent, list(store.groups(run_id))), folder)


def usable_groups(
    agent: Agent, groups: Sequence[RolloutGroup], warn: Callable[[str], None] = warnings.warn
) -> list[RolloutGroup]:
    """Return the groups that this agent's policy may train on and can learn from. Trajectories of
    another model, temperature or too old a version, or without logprobs, are left out of them.

    Args:
        warn: told what is left out.

    Raises:
        TraceError: nothing is left, or there is nothing to learn.
    """
    recipe = agent.recipe
    version = agent.engine.policy_version
    most_stale = recipe.train.max_staleness
    if recipe.train.replay is not None:
        bound = recipe.train.replay.max_staleness
        most_stale = version.step if bound is None else bound
    stale_allowed = most_stale > 0
    report, sound = examined(
        groups,
        expected=Expectation(
            temperature=recipe.sampling.temperature,
            top_p=recipe.sampling.top_p,
            base=version.base,
            weights=None if stale_allowed else version.weights,
            step=version.step,
            max_staleness_steps=most_stale,
        ),
    )
    _refuse_other_graphs(agent, sound)
    objective = objective_of(agent)
    usable = [group for group in sound if objective.learns_from(group)]
    if not usable:
        report.raise_if_blocking()
        raise TraceError(
            f"None of the {len(groups)} logged groups has anything to learn from: a group needs "
            "rewards that "
            "differ; collect more rollouts a problem, or easier or harder problems."
        )
    for finding in report.blocking:
        warn(
            f"{finding.count} of {report.num_trajectories} trajectories are left out "
            f"({finding.name}, the first is {finding.first}): {finding.message}"
        )
    return usable


def _refuse_other_graphs(agent: Agent, groups: Sequence[RolloutGroup]) -> None:
    """Raise TraceError where answers would stand behind a prompt that their graph never showed."""
    found = agent.recipe.train.internalise
    if not any(
        (found.hint_stripped_weight, found.self_distillation_weight, found.solo_answer_weight)
    ):
        return
    graph = agent.graph(agent.policy(agent.sampling))
    own = _shown_by(graph.name, role_of(graph))
    for trajectory in (t for group in groups for t in group.trajectories_G):
        theirs = _shown_by(trajectory.graph, trajectory.role)
        if theirs != own and trajectory.role in (Role.OWN, Role.CONSULT):
            raise TraceError(
                f"The traces are of the graph '{trajectory.graph}', and the recipe's is "
                f"'{agent.recipe.graph}': train.internalise puts answers behind the prompt of the "
                "recipe's graph, so name that graph (graph: package.module:function), or set "
                "those weights to 0."
            )


def _shown_by(graph: str, role: Role) -> str | None:
    """Return the name of a graph whose first prompt is not the consult graph's; None for that."""
    return graph if role is Role.OWN or graph in HINTED else None


def objective_of(agent: Agent) -> Objective:
    """What the agent's recipe learns from groups."""
    settings = agent.recipe.train
    stand_in = StandIn(
        renderer=agent.renderer,
        reward=reward_of(agent.recipe, agent.pool),
        answer_form=agent.recipe.task.answer_form,
        min_answer_to_reply_ratio=settings.internalise.min_answer_to_reply_ratio,
    )
    return Objective(
        solo_prompt=agent.solo_prompt,
        settings=settings,
        stand_in=stand_in,
        calls_of=lambda text: agent.renderer.format.parse(text).calls,
        reward_of_turn=find_function(agent.recipe.task.reward_of_turn, "reward_of_turn"),
    )


def _train(
    agent: Agent,
    source: RolloutSource,
    folder: Path,
    steps: int,
    on_step: OnStep | None,
    after_step: AfterStep | None,
) -> Path:
    recipe = agent.recipe
    add_adapter(agent)
    engine = agent.engine
    start = engine.policy_version.step
    interrupts = Interrupts()
    trainer = EapoTrainer(
        model=agent.model,
        tokenizer=agent.loaded.tokenizer,
        args=grpo_config(recipe, folder, steps, logged=isinstance(source, LoggedRollouts)),
        source=InterruptibleSource(source, interrupts),
        objective=objective_of(agent),
        # several passes over a log are one update's minibatches: the clip is around its own policy
        fresh_from=(lambda: start)
        if isinstance(source, LoggedRollouts)
        else (lambda: engine.policy_version.step),
        importance_ratio_cap=recipe.train.importance_ratio_cap,
        teacher=teacher_of(agent),
        on_step=on_step,
    )
    trainer.remove_callback(PrinterCallback)
    publisher = Publisher(agent, folder, trainer.accelerator, trainer.save_model)
    trainer.add_callback(
        WeightsChanged(
            lambda step: publisher.publish(start + step), _publish_every(agent, source, steps)
        )
    )
    trainer.add_callback(interrupts)
    if after_step is not None:
        told = interrupts.interruptible(after_step)
        trainer.add_callback(AfterStepCallback(told, recipe.train.minibatches_per_step))
    finished = train_on(trainer, interrupts, folder)
    policy_folder = folder / POLICY_FOLDER
    there = finished and (policy_folder / POLICY_FILE).exists()
    if trainer.accelerator.is_main_process and not there:
        step = start + trainer.state.global_step
        save_policy(agent.model, policy_folder, base=agent.loaded.base, step=step)
    trainer.accelerator.wait_for_everyone()
    return policy_folder


def _publish_every(agent: Agent, source: RolloutSource, steps: int) -> int:
    """Optimizer steps between publications: servers need the weights of the next rollouts only."""
    if not agent.samples_from_servers:
        return 1
    updates = agent.recipe.train.minibatches_per_step
    return steps * updates if isinstance(source, LoggedRollouts) else updates
