"""Gymnasium environments with text as tasks: `gymnasium:ID`, a problem for each seed.

An answer is the list of actions, and is played from the start: what the environment pays is the
score. The tool `try_actions` plays a list of actions and shows what comes of it. Both begin a new
environment from the problem's seed, so that nothing is shared between rollouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import TaskError
from eapo_agents.experts.consulting import current_consulting
from eapo_agents.grading import Grade, extract_answer
from eapo_agents.tasks.files import Numbered
from eapo_agents.types import Problem

PREFIX = "gymnasium:"
_SIZE = 200
GRADER = "eapo_agents.tasks.environments:graded"
_OURS = ("size", "seed", "actions", "solved", "map_size")
_ACTIONS = {
    "FrozenLake": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pickup", "dropoff"),
}
"""Gymnasium's own text environments, whose actions it names only in its docs."""
_MOST_ACTIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came of a list of actions."""

    seen: str
    """The state in which it ended, as text."""
    total: float
    """Sum of the rewards."""
    ended: bool
    num_actions: int
    """Actions that were taken before it ended."""


def read_environment(name: str, options: Mapping[str, Any]) -> Iterator[Numbered]:
    """Yield a problem for each seed; equal first states once.

    Args:
        options: `size` (200 seeds), `seed` (the first, 0), `actions` (names of the actions, in
            their order), `solved` (the total reward that solves it; by default the environment's
            own threshold), `map_size` (of FrozenLake: a random map for each seed), and what
            `gymnasium.make` takes.

    Raises:
        TaskError: gymnasium is not installed, has no such environment, or this one is not text.
    """
    environment = name.removeprefix(PREFIX)
    size, first = options.get("size", _SIZE), options.get("seed", 0)
    if not all(isinstance(one, int) and one >= 0 for one in (size, first)):
        raise TaskError(
            f"task.options.size and seed of '{name}' must be integers from 0, got {size!r} and "
            f"{first!r}."
        )
    about: dict[str, Any] = {"environment": environment, "options": dict(options)}
    actions, solved = _facts(name, about | {"seed": first})
    about |= {"actions": list(actions), "solved": solved}
    seen = set()
    for seed in range(first, first + size):
        facts = about | {"seed": seed}
        question = play(facts, []).seen
        if question in seen:
            continue
        seen.add(question)
        yield (
            f"Seed {seed} of '{name}'",
            {
                "id": f"{environment}/{seed}",
                "question": f"{question}\n\nActions: {', '.join(actions)}.",
                "answer": f"a total reward of {solved:g}",
                "grader": GRADER,
                **facts,
            },
        )


def graded(text: str, problem: Problem) -> Grade:
    """Play the actions that follow `Answer:`. A total that solves it scores 1, a lower one its
    share of that."""
    answer = extract_answer(text)
    facts = problem.metadata
    actions = None if answer is None else read_actions(answer, facts["actions"])
    if actions is None:
        return Grade(score=0.0, formatted=False, extracted=answer)
    found, solved = play(facts, actions), float(facts["solved"])
    if found.total >= solved:
        return Grade(score=1.0, formatted=True, extracted=answer)
    share = found.total / solved if solved > 0 else 0.0
    return Grade(score=max(0.0, share), formatted=True, extracted=answer)


def try_actions() -> BaseTool:
    """Return a tool that plays actions from the start of the problem's environment."""
    from eapo_agents.tasks import openenv

    def look(actions: str) -> str:
        who = current_consulting()
        problem = who.problem if who is not None else None
        if problem is not None and problem.grader == openenv.GRADER:
            return openenv.tried(actions, problem)
        if problem is None or problem.grader != GRADER:
            return "There is no environment here."
        facts = problem.metadata
        wanted = read_actions(actions, facts["actions"])
        if wanted is None:
            return f"Write actions, separated by spaces: {', '.join(facts['actions'])}."
        found = play(facts, wanted)
        ended = f"It ended after {found.num_actions} actions." if found.ended else "It goes on."
        return f"{found.seen}\nTotal reward {found.total:g}. {ended}"

    return StructuredTool.from_function(
        look,
        name="try_actions",
        description="plays these actions from the start, and shows the state",
    )


def read_actions(text: str, names: Sequence[str]) -> list[int] | None:
    """Return the numbers of the actions that a text lists; None if it lists anything else, none
    or too many."""
    known = {name.lower(): number for number, name in enumerate(names)}
    words = re.findall(r"[^\s,;.>\[\]\"'()-]+", text.lower())
    if not 0 < len(words) <= _MOST_ACTIONS or any(word not in known for word in words):
        return None
    return [known[word] for word in words]


def play(facts: Mapping[str, Any], actions: Sequence[int]) -> Played:
    """Play actions from the start of a problem's environment.

    Args:
        facts: the problem's metadata.
    """
    total, ended, count = 0.0, False, 0
    with closing(_make(facts)) as environment:
        seen, _ = environment.reset(seed=facts["seed"])
        for action in actions:
            seen, reward, terminated, truncated, _ = environment.step(action)
            total, count = total + float(reward), count + 1
            ended = bool(terminated or truncated)
            if ended:
                break
        shown = environment.render() if environment.render_mode == "ansi" else None
    return Played(seen=_text(seen, shown), total=total, ended=ended, num_actions=count)


def _text(seen: object, shown: object) -> str:
    """Return a state as text: the cell in which the agent stands in brackets, no colours."""
    if not isinstance(shown, str):
        return str(seen)
    marked = re.sub(r"\x1b\[4\dm(.*?)\x1b\[0m", r"[\1]", shown)
    drawn = re.sub(r"\x1b\[[\d;]*m", "", marked).strip()
    return f"{drawn}\nState: {seen}"


def _make(facts: Mapping[str, Any]) -> Any:
    import gymnasium

    module, _, name = str(facts["environment"]).rpartition(":")
    if module:
        import_module(module)  # it registers the environment
    options = dict(facts["options"])
    more = {key: value for key, value in options.items() if key not in _OURS}
    if options.get("map_size") is not None:
        from gymnasium.envs.toy_text.frozen_lake import generate_random_map

        more["desc"] = generate_random_map(size=int(options["map_size"]), seed=int(facts["seed"]))
    modes = gymnasium.spec(name).entry_point
    modes = gymnasium.envs.registration.load_env_creator(modes) if isinstance(modes, str) else modes
    if "ansi" in getattr(modes, "metadata", {}).get("render_modes", ()):
        more["render_mode"] = "ansi"
    return gymnasium.make(name, **more)


def _facts(name: str, facts: Mapping[str, Any]) -> tuple[Sequence[str], float]:
    """Return the names of an environment's actions, and the total reward that solves it."""
    try:
        import gymnasium
    except ImportError as error:
        raise TaskError(
            f"The task '{name}' needs gymnasium: pip install 'eapo-agents[gymnasium]'."
        ) from error
    environment, options = str(facts["environment"]), facts["options"]
    if options.get("map_size") is not None and not environment.startswith("FrozenLake"):
        raise TaskError(f"task.options.map_size is FrozenLake's, and '{name}' has none.")
    try:
        made = _make(facts)
    except Exception as error:  # an environment of a user's may raise anything
        raise TaskError(
            f"Gymnasium cannot make the environment of '{name}' with task.options {options}: "
            f"{' '.join(str(error).split())}."
        ) from error
    with closing(made):
        space, threshold = made.action_space, made.spec.reward_threshold
        is_text = made.render_mode == "ansi" or isinstance(
            made.observation_space, gymnasium.spaces.Text | gymnasium.spaces.Discrete
        )
    if not isinstance(space, gymnasium.spaces.Discrete) or not is_text or space.start:
        raise TaskError(
            f"A task of Gymnasium has states that are text (render mode 'ansi', or a Text or "
            f"Discrete observation space) and a Discrete action space from 0, and '{name}' has "
            f"{made.observation_space} and {space}: write a wrapper, or a task of your own."
        )
    count = int(space.n)
    default = next((a for key, a in _ACTIONS.items() if environment.startswith(key)), None)
    actions = options.get("actions") or default or [str(number) for number in range(count)]
    named = {str(one).lower() for one in actions}
    if len(actions) != count or len(named) != count or any(" " in one for one in named):
        raise TaskError(
            f"task.options.actions must name the {count} actions of '{name}', in one word each, "
            f"got {actions!r}."
        )
    solved = options.get("solved", threshold)
    if not isinstance(solved, int | float):
        raise TaskError(
            f"'{name}' does not say which total reward solves it: set task.options.solved."
        )
    return [str(one) for one in actions], float(solved)
