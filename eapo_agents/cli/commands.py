"""What the commands do. The only module, with `demo`, that imports all the packages."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eapo_agents.cli.output import safe_text
from eapo_agents.errors import RecipeError
from eapo_agents.recipe import Recipe, load_recipe, to_yaml
from eapo_agents.types import Consultation, ConsultationStatus, RolloutGroup, Trajectory

console = Console(stderr=True, highlight=False)
STEPS = "steps.jsonl"


def write_atomically(file: Path, text: str) -> None:
    """Either the old file or the whole new one, whatever happens in between."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Prints the resolved recipe and saves it with the run.

    Raises:
        RecipeError: the folder holds a run of another recipe; only its number of steps may change.
    """
    text = to_yaml(recipe)
    saved = folder / "recipe.yaml"
    if saved.exists():
        before = load_recipe(saved)
        train = before.train.model_copy(update={"steps": recipe.train.steps})
        if before.model_copy(update={"train": train}) != recipe:
            raise RecipeError(
                f"'{folder}' holds a run of another recipe (its recipe.yaml): "
                "give another --out, or delete the folder to start anew."
            )
    console.print(text.rstrip(), style="dim", markup=False)
    write_atomically(folder / "recipe.yaml", text)


@dataclass(slots=True)
class Bar:
    """A line of progress."""

    progress: Progress
    task: TaskID

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """Moves to `done`."""
        self.progress.update(self.task, completed=done, total=total, note=note)

    def step(self, note: str = "") -> None:
        """Moves on by one."""
        self.progress.update(self.task, advance=1, note=note)


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Bar]:
    """A progress bar on stderr; where that is no terminal, one line at the end."""
    started = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(what, total=total, note=""))
    if not console.is_terminal:
        console.print(f"{what}: {time.perf_counter() - started:.1f} s", markup=False)


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


def run(recipe: Recipe, question: str, *, solo: bool, as_json: bool) -> None:
    """One question."""
    import asyncio

    agent = load_agent(recipe)
    policy = agent.policy(agent.sampling)
    from eapo_agents.schedules import AcceptanceSchedule

    # outside training every reply is let in
    experts_answer = AcceptanceSchedule(kind="constant")
    graph = (
        agent.solo_graph(policy) if solo else agent.consult_graph(policy, acceptance=experts_answer)
    )
    from graphs.rollout import first_messages, turns_of
    from graphs.state import RolloutContext

    messages = first_messages(recipe.task.system_prompt, question)
    context = RolloutContext(problem_id=question, seed=recipe.seed)
    state = asyncio.run(graph.ainvoke({"messages": messages}, context=context))
    turns = turns_of(state["messages"])
    answer = state["messages"][-1].text
    if as_json:
        facts = {
            "question": question,
            "answer": answer,
            "stop_reason": state["stop_reason"],
            "turns": [
                {
                    "text": turn.text,
                    "tokens": len(turn.completion_ids),
                    "consultations": [asdict(c) for c in turn.consultations],
                }
                for turn in turns
            ],
        }
        print(json.dumps(facts, ensure_ascii=False))
        return
    for turn in turns[:-1]:
        console.print(f"policy  {safe_text(turn.text)}", markup=False, style="dim")
        for consultation in turn.consultations:
            console.print(_line(consultation), markup=False)
    console.print(f"({state['stop_reason']}, {len(turns)} turns)", style="dim")
    print(safe_text(answer))


def _line(consultation: Consultation) -> str:
    facts = f"u {consultation.u:.2f}, rho {consultation.rho:.2f}, {consultation.latency_s:.2f} s"
    reply = safe_text(consultation.error or consultation.reply)
    return f"{consultation.expert or '?'}  {consultation.status.value} ({facts})  {reply}"


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
    _show(summary, as_json)


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
    save_policy(agent.engine.model, policy, base=version.base, step=version.step)
    return policy, len(episodes)


def problems_of(recipe: Recipe, split: str, limit: int | None) -> Any:
    """The recipe's problems of one split."""
    from eapo_agents.tasks import load_problems

    return load_problems(recipe.task.name, split=split, limit=limit, seed=recipe.seed)


def collect_into(
    agent: Any, store: Any, run_id: str, step: int, problems: Any
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


def collect(recipe: Recipe, store_at: str, run_id: str, step: int, *, as_json: bool) -> None:
    """Problems x G rollouts into the store."""
    from eapo_agents.errors import ErrorBudgetError
    from eapo_agents.store import TraceStore

    problems = problems_of(recipe, "train", recipe.collect.problems)
    started = time.perf_counter()
    console.print(to_yaml(recipe).rstrip(), style="dim", markup=False)
    agent = load_agent(recipe)
    with TraceStore.open(store_at, create=True) as store:
        num_run, tally = collect_into(agent, store, run_id, step, problems)
    summary = {
        "run_id": run_id,
        "store": store_at,
        "run_now": num_run,
        **tally.summary(),
        "seconds": time.perf_counter() - started,
    }
    _show(summary, as_json)
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
        from trainers.run import train_logged, usable_groups

        usable = usable_groups(agent, groups)
        save_recipe(recipe, out)
        with training_bar(None, out) as on_step:
            folder = train_logged(agent, usable, out, on_step)
    else:
        problems = problems_of(recipe, "train", None)
        agent = load_agent(recipe)
        from trainers.run import refuse_few_problems, train_live

        refuse_few_problems(recipe, problems)

        save_recipe(recipe, out)
        with TraceStore.open(str(out / "traces.db"), create=True) as store:
            store.start_run(
                "train",
                kind="train",
                recipe=recipe.model_dump(mode="json"),
                sampling=agent.sampling,
                policy=agent.engine.policy_version,
            )
            with training_bar(recipe.train.steps, out) as on_step:
                folder = train_live(agent, problems, store, out, "train", on_step)
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
    _show({k: v for k, v in summary.items() if as_json or k != "history"}, as_json)


def logged_groups(store: Any, run_id: str | None) -> list[RolloutGroup]:
    """The collections of a store, or one of them, as groups."""
    from eapo_agents.errors import TraceError

    known = [run.run_id for run in store.runs() if run.kind in ("collect", "train")]
    wanted = [run_id] if run_id else [r.run_id for r in store.runs() if r.kind == "collect"]
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


@contextmanager
def training_bar(total: int | None, folder: Path) -> Iterator[Any]:
    """Shows each step's reward and consultations, and keeps them in the folder's steps.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar("Train (steps)", total) as bar, (folder / STEPS).open("a") as steps:
        steps.write("\n" if steps.tell() else "")  # a line may have been cut off

        def on_step(step: int, metrics: dict[str, float]) -> None:
            steps.write(json.dumps({"step": step, **metrics}) + "\n")
            steps.flush()
            note = (
                f"reward {metrics.get('reward', float('nan')):.2f} "
                f"asking {metrics['consultation_rate']:.0%} rho {metrics.get('rho', 0):.2f}"
            )
            bar.at(step, total, note)
            if not console.is_terminal:
                console.print(f"  step {step}: {note}", markup=False)

        yield on_step


def read_history(folder: Path) -> list[dict[str, float]]:
    """All steps, those before an interruption too; one that was run again counts as last seen."""
    by_step: dict[int, dict[str, float]] = {}
    for line in (folder / STEPS).read_text().splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue  # cut off by an interruption; the step was run again
        by_step[int(step["step"])] = step
    return [by_step[number] for number in sorted(by_step)]


def evaluate(recipe: Recipe, out: Path, baseline: str | None, *, as_json: bool) -> None:
    """Tool-free accuracy, and the paired difference to an earlier evaluation."""
    from eapo_agents.store import TraceStore

    before = _read_baseline(baseline) if baseline else None
    split = "all" if recipe.task.name.endswith(".jsonl") else "heldout"
    problems = problems_of(recipe, split, recipe.eval.problems)
    if before is not None:
        _refuse_other_problems(before, problems)
    agent = load_agent(recipe)
    from evals.runner import evaluate as score

    save_recipe(recipe, out)

    started = time.perf_counter()
    weights = agent.engine.policy_version.weights
    with (
        TraceStore.open(str(out / "traces.db"), create=True) as store,
        progress_bar("Evaluate (problems)", len(problems)) as bar,
    ):
        scores = score(agent, problems, store, f"eval-{weights}", bar.at)
    result: dict[str, Any] = {
        "model": recipe.policy.model,
        "weights": weights,
        **{mode: s.summary() for mode, s in scores.items()},
        "seconds": time.perf_counter() - started,
    }
    if before is not None:
        result["paired"] = _compare(before, scores)
    per_problem = {mode: s.per_problem for mode, s in scores.items()}
    write_atomically(
        out / "eval.json", json.dumps({**result, "per_problem": per_problem}, indent=1) + "\n"
    )
    _show(result if as_json else _readable(result), as_json)


def _readable(result: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's scores and differences as lines for people."""
    from evals.report import points, share

    lines = dict(result)
    for mode in ("sampled", "greedy"):
        if mode in result:
            score = result[mode]
            how = f"{score['n']} problems, {score['samples']} each, T {score['temperature']:g}"
            form = f"{score['formatted']:.0%} in the asked form"
            lines[mode] = f"{share(score)}  ({how}, {form})"
    for mode, difference in lines.pop("paired", {}).items():
        lines[f"{mode}, difference"] = points(difference)
    return lines


def _read_baseline(file: str) -> dict[str, dict[str, float]]:
    from eapo_agents.errors import UsageError

    path = Path(file)
    path = path / "eval.json" if path.is_dir() else path
    try:
        per_problem: dict[str, dict[str, float]] = json.loads(path.read_text())["per_problem"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"The baseline '{file}' is no evaluation ({type(error).__name__}): "
            "give the --out folder of an earlier `eapo eval`, or its eval.json."
        ) from error
    return per_problem


def _refuse_other_problems(before: dict[str, dict[str, float]], problems: Any) -> None:
    from eapo_agents.errors import UsageError

    wanted = {problem.id for problem in problems}
    for mode, per_problem in before.items():
        if per_problem.keys() != wanted:
            raise UsageError(
                f"The baseline is over other problems ({len(per_problem)}, {mode}) than this "
                "recipe's "
                f"{len(wanted)}: evaluate both with the same task, eval.problems and seed."
            )


def _compare(before: dict[str, dict[str, float]], after: Any) -> dict[str, Any]:
    from evals.metrics import paired_bootstrap

    return {
        mode: asdict(paired_bootstrap(before[mode], score.per_problem))
        for mode, score in after.items()
        if mode in before
    }


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
        return
    for key, value in summary.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{key:24} {safe_text(text)}")
