"""What the commands do. It, `evaluation` and `demo` alone import every package."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eapo_agents.cli.output import safe_text
from eapo_agents.cli.progress import IS_MAIN, console, progress_bar, read_history, training_bar
from eapo_agents.errors import RecipeError, UsageError
from eapo_agents.files import write_atomically
from eapo_agents.recipe import Recipe, fixed_part, load_recipe, to_yaml
from eapo_agents.types import ConsultationStatus, RolloutGroup, Trajectory

EXPERTS = "experts.db"


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Prints the resolved recipe and saves it with the run.

    Raises:
        RecipeError: the folder holds a run of another recipe; only its number of steps may change,
            and what experts may cost.
    """
    text = to_yaml(recipe)
    saved = folder / "recipe.yaml"
    if saved.exists() and fixed_part(load_recipe(saved)) != fixed_part(recipe):
        raise RecipeError(
            f"'{folder}' holds a run of another recipe (its recipe.yaml): "
            "give another --out, or delete the folder to start anew."
        )
    console.print(text.rstrip(), style="dim", markup=False)
    write_atomically(folder / "recipe.yaml", text)


def quiet_libraries() -> None:
    """Keeps the libraries' chatter off the screen; errors still show."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|trl|peft|accelerate)")


def load_agent(recipe: Recipe) -> Any:
    """Loads the recipe's agent, with a word on what is going on."""
    with console.status(f"Loading {recipe.policy.model} ..."):
        quiet_libraries()
        from graphs.agent import load_agent as load

        return load(recipe)


def expert_file(recipe: Recipe, folder: Path) -> Path:
    """Where ledger and stored replies of a run go: the recipe's file, or one in the folder."""
    return Path(recipe.consult.expert_store or folder / EXPERTS)


def store_folder(store_at: str) -> Path:
    """The folder of a trace store; `runs` for one on a server."""
    return Path("runs") if "://" in store_at else Path(store_at).parent


def refuse_people(pool: Any, command: str) -> None:
    """Raises RecipeError where an expert is a person: nobody is there to reply."""
    for expert in pool.experts:
        if expert.interactive:
            raise RecipeError(
                f"The expert '{expert.name}' is a person, and nobody can be asked during "
                f"`eapo {command}`: use `eapo chat` or `eapo run`, or take it out."
            )


@dataclass(slots=True)
class Tally:
    """What rollouts cost and gave."""

    rollouts: int = 0
    failed: int = 0
    correct: int = 0
    reward: float = 0.0
    calls: int = 0
    withheld: int = 0
    sampled_tokens: int = 0

    def add(self, trajectory: Trajectory) -> None:
        """Counts one trajectory."""
        self.rollouts += 1
        self.failed += trajectory.error is not None
        self.correct += bool(trajectory.correct)
        self.reward += trajectory.reward or 0.0
        self.sampled_tokens += sum(len(turn.completion_ids) for turn in trajectory.turns)
        for turn in trajectory.turns:
            for consultation in turn.consultations:
                self.withheld += consultation.status is ConsultationStatus.WITHHELD
                self.calls += consultation.status in (
                    ConsultationStatus.ACCEPTED,
                    ConsultationStatus.FAILED,
                    ConsultationStatus.TIMEOUT,
                )

    def summary(self) -> dict[str, Any]:
        """For people and programs."""
        scored = max(1, self.rollouts - self.failed)
        return {
            "rollouts": self.rollouts,
            "failed": self.failed,
            "accuracy": self.correct / scored,
            "reward": self.reward / scored,
            "expert_calls": self.calls,
            "expert_calls_withheld": self.withheld,
            "sampled_tokens": self.sampled_tokens,
        }


def warm_start(recipe: Recipe, out: Path, *, as_json: bool) -> None:
    """Scripted episodes, and a policy that has learned their form."""
    if recipe.warm_start is None:
        raise RecipeError("The recipe has no warm_start section, which says what to teach: add it.")
    started = time.perf_counter()
    problems = problems_of(recipe, "train", recipe.warm_start.problems)
    agent = load_agent(recipe)
    save_recipe(recipe, out)
    policy, num_episodes = warm_start_into(agent, problems, out)
    summary = {
        "policy": str(policy),
        "episodes": num_episodes,
        "steps": agent.engine.policy_version.step,
        "weights": agent.engine.policy_version.weights,
        "seconds": time.perf_counter() - started,
    }
    show(summary, as_json)


def warm_start_into(agent: Any, problems: Any, folder: Path) -> tuple[Path, int]:
    """Returns the warm-started policy's folder and the number of episodes."""
    from eapo_agents.policy.models import save_policy
    from trainers.run import POLICY_FOLDER, add_adapter
    from trainers.warm_start import scripted_episodes
    from trainers.warm_start import warm_start as teach

    episodes = scripted_episodes(agent, problems)
    add_adapter(agent)
    with progress_bar("Warm start (steps)", None) as bar:
        teach(agent, episodes, folder, bar.at)
    version = agent.engine.policy_version
    policy = folder / POLICY_FOLDER
    save_policy(agent.model, policy, base=version.base, step=version.step)
    return policy, len(episodes)


def problems_of(recipe: Recipe, split: str, limit: int | None) -> Any:
    """The recipe's problems of one split."""
    from eapo_agents.tasks import load_problems

    return load_problems(recipe.task.name, split=split, limit=limit, seed=recipe.seed)


def collect_into(
    agent: Any, store: Any, run_id: str, step: int, problems: Any, experts: Path
) -> tuple[int, Tally]:
    """Collects with a progress bar; returns rollouts run now, and the tally of the whole
    collection."""
    from graphs.collect import Collection
    from graphs.collect import collect as collect_groups
    from graphs.rollout import group_key

    recipe = agent.recipe
    policy = agent.policy(agent.sampling)
    agent_version = agent.engine.policy_version
    store.start_run(
        run_id,
        kind="collect",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent_version,
    )
    agent.pool.open(experts, run_id)
    wanted = Collection(
        run_id=run_id,
        problems=problems,
        num_rollouts=recipe.collect.rollouts,
        concurrency=recipe.collect.concurrency,
        seed=recipe.seed,
        system_prompt=recipe.task.system_prompt,
        format_reward=recipe.task.format_reward,
        global_step=step,
    )
    with progress_bar("Collect (groups)", len(problems)) as bar:
        have = store.have(run_id)
        bar.at(
            sum(len(have.get(group_key(p, step), ())) >= recipe.collect.rollouts for p in problems)
        )

        def on_group(group: RolloutGroup) -> None:
            bar.step()

        num_run = collect_groups(agent.consult_graph(policy), policy, store, wanted, on_group)
    tally = Tally()
    for stored in store.trajectories(run_id=run_id):
        tally.add(stored.trajectory)
    return num_run, tally


def shard_of(problems: Sequence[Any], shard: str | None) -> Sequence[Any]:
    """The i-th of n equal parts, for `i/n` (from 1); all of them for None.

    Raises:
        UsageError: not of that form, or i is not in 1 to n.
    """
    if shard is None:
        return problems
    number, _, total = shard.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise UsageError(f"--shard must be i/n with 1 <= i <= n, such as 1/4, got '{shard}'.")
    return problems[int(number) - 1 :: int(total)]


def collect(
    recipe: Recipe, store_at: str, run_id: str, step: int, shard: str | None, *, as_json: bool
) -> None:
    """Problems x G rollouts into the store; with a shard, only those of its problems."""
    from eapo_agents.errors import ErrorBudgetError
    from eapo_agents.store import TraceStore

    problems = shard_of(problems_of(recipe, "train", recipe.collect.problems), shard)
    started = time.perf_counter()
    console.print(to_yaml(recipe).rstrip(), style="dim", markup=False)
    agent = load_agent(recipe)
    refuse_people(agent.pool, "collect")
    experts = expert_file(recipe, store_folder(store_at))
    with TraceStore.open(store_at, create=True) as store:
        num_run, tally = collect_into(agent, store, run_id, step, problems, experts)
    summary = {
        "run_id": run_id,
        "store": store_at,
        "run_now": num_run,
        **tally.summary(),
        "seconds": time.perf_counter() - started,
    }
    show(summary, as_json)
    if tally.failed > recipe.collect.max_error_share * max(1, tally.rollouts):
        raise ErrorBudgetError(
            f"{tally.failed} of {tally.rollouts} rollouts failed, and at most "
            f"{recipe.collect.max_error_share:.0%} may: see `eapo traces stats {store_at}`."
        )


def train(
    recipe: Recipe, out: Path, from_traces: str | None, run_id: str | None, *, as_json: bool
) -> None:
    """Live, or from logged traces."""
    from eapo_agents.store import TraceStore

    started = time.perf_counter()
    if from_traces is not None:
        with TraceStore.open(from_traces) as store:
            groups = logged_groups(store, run_id)
        agent = load_agent(recipe)
        from trainers.run import usable_groups

        usable = usable_groups(agent, groups)
        save_recipe(recipe, out)
        folder = train_logged_into(agent, usable, out)
    else:
        problems = problems_of(recipe, "train", None)
        agent = load_agent(recipe)
        from trainers.run import refuse_few_problems

        refuse_few_problems(recipe, problems)
        refuse_people(agent.pool, "train")
        save_recipe(recipe, out)
        with TraceStore.open(str(out / "traces.db"), create=True) as store:
            experts = expert_file(recipe, out)
            folder = train_live_into(agent, problems, store, "train", out, experts)
    history = read_history(out)
    summary = {
        "policy": str(folder),
        "steps": agent.engine.policy_version.step,
        "weights": agent.engine.policy_version.weights,
        "rollouts": round(sum(step["rollouts"] for step in history)),
        "expert_calls": round(sum(step["experts/calls"] for step in history)),
        "expert_calls_withheld": round(sum(step["experts/withheld"] for step in history)),
        "sampled_tokens": round(sum(step["sampled_tokens"] for step in history)),
        "history": history,
        "seconds": time.perf_counter() - started,
    }
    write_atomically(out / "train.json", json.dumps(summary, indent=1) + "\n")
    show({k: v for k, v in summary.items() if as_json or k != "history"}, as_json)


def dry_run(recipe: Recipe, num_processes: int, *, as_json: bool) -> None:
    """What a live run will take at most."""
    quiet_libraries()
    from trainers.plan import plan

    show(asdict(plan(recipe, num_processes)), as_json)


def train_live_into(
    agent: Any, problems: Any, store: Any, run_id: str, out: Path, experts: Path
) -> Path:
    """Live training with progress, its rollouts in `store`; returns the trained policy's folder."""
    from trainers.run import train_live

    recipe = agent.recipe
    store.start_run(
        run_id,
        kind="train",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    agent.pool.open(experts, run_id)
    with training_bar(recipe.train.steps, out) as on_step:
        return train_live(agent, problems, store, out, run_id, on_step)


def train_logged_into(agent: Any, usable: list[RolloutGroup], out: Path) -> Path:
    """Training on logged groups with progress; returns the trained policy's folder."""
    from trainers.run import train_logged

    with training_bar(None, out) as on_step:
        return train_logged(agent, usable, out, on_step)


def logged_groups(store: Any, run_id: str | None) -> list[RolloutGroup]:
    """The collections of a store, else its rated conversations, or one run of it, as groups."""
    from eapo_agents.errors import TraceError

    runs = list(store.runs())
    known = [run.run_id for run in runs if run.kind in ("collect", "train", "chat")]
    of_kind = {kind: [r.run_id for r in runs if r.kind == kind] for kind in ("collect", "chat")}
    wanted = [run_id] if run_id else of_kind["collect"] or of_kind["chat"]
    if run_id is not None and run_id not in known:
        raise TraceError(
            f"The store has no collection '{run_id}': it has {', '.join(known) or 'none'}."
        )
    groups = [group for name in wanted for group in store.groups(run_id=name)]
    if not groups:
        raise TraceError(
            "The store has no collected trajectories to train on: run `eapo collect` into it first."
        )
    return groups


def show(summary: dict[str, Any], as_json: bool) -> None:
    """A command's result: one JSON object, or a line for each of its facts."""
    if not IS_MAIN:
        return
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
        return
    for key, value in summary.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{key:24} {safe_text(text)}")
