"""The slash commands of `eapo chat`."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rich.text import Text

from eapo_agents.cli.output import safe_text
from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from eapo_agents.cli.chat_state import Chat


async def run_command(chat: Chat, line: str) -> None:
    """Run `/name argument`.

    Raises:
        UsageError: there is no such command, or the argument does not fit.
    """
    name, _, argument = line.partition(" ")
    if name not in COMMANDS:
        raise UsageError(f"There is no command '{name}': use one of {', '.join(COMMANDS)}.")
    await COMMANDS[name][1](chat, argument.strip())


async def _help(chat: Chat, argument: str) -> None:
    for name, (what, _) in COMMANDS.items():
        chat.say(f"{name:10} {what}")
    chat.say("Alt-Enter breaks the line. Ctrl-C stops a turn. Ctrl-D ends the session.")


async def _experts(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.turn_view import money, table_of
    from eapo_agents.experts.costs import Costs, costs

    pool = chat.agent.pool
    lines = {line.expert: line for line in costs(pool.store.rows(pool.run_id))}
    rows = []
    for expert in pool.experts:
        facts = lines.get(expert.name, Costs(expert.name, None)).summary()
        asked = expert.name in lines
        p50_s = facts["p50_s"]
        rows.append(
            {
                "expert": expert.name,
                "kind": expert.kind,
                "calls": facts["calls"],
                "stored": facts["cached"],
                "withheld": facts["withheld"],
                "failed": facts["failed"],
                "p50": "" if p50_s is None else f"{p50_s:.2f} s",
                "cost": money(facts["cost_usd"] if asked or expert.price else None),
                "takes calls": "yes" if pool.takes_calls(expert.name) else "not now",
            }
        )
    chat.console.print(table_of(rows))


async def _rho(chat: Chat, argument: str) -> None:
    if argument:
        value = _number(argument, "/rho takes a probability from 0 to 1, such as /rho 0.3")
        if not 0 <= value <= 1:
            raise UsageError(f"/rho takes a probability from 0 to 1, got {argument}.")
        chat.talk.rho = value
    rho = 1.0 if chat.talk.rho is None else chat.talk.rho
    chat.say(f"rho {rho:g}: a reply is accepted with this probability, drawn before the call.")


async def _budget(chat: Chat, argument: str) -> None:
    budget = chat.agent.pool.budget
    if argument:
        rule = "/budget takes calls, tokens or usd and a limit, such as /budget usd 0.5, or off"
        what, _, limit = argument.partition(" ")
        if what == "off":
            budget.calls = budget.tokens = budget.usd = None
        elif what in ("calls", "tokens", "usd"):
            value = _number(limit, rule)
            if value < 0:
                raise UsageError(f"{rule}, got '{argument}'.")
            if what == "usd":
                chat.agent.pool.refuse_unpriced()
            setattr(budget, what, value if what == "usd" else int(value))
        else:
            raise UsageError(f"{rule}, got '{argument}'.")
    for what, spent, most in budget.lines():
        chat.say(
            f"{what:11} {spent:g} spent, {'no limit' if most is None else f'{most:g} at most'}"
        )


async def _solo(chat: Chat, argument: str) -> None:
    chat.talk.solo = not chat.talk.solo
    mode = "without experts" if chat.talk.solo else "with experts"
    chat.say(f"The policy now answers {mode}. /again asks the last question again, to compare.")


async def _again(chat: Chat, argument: str) -> None:
    await chat.turn(chat.talk.again(), compare=True)


async def _history(chat: Chat, argument: str) -> None:
    speakers = {"human": "you", "ai": "policy", "tool": "expert", "system": "system"}
    for message in await chat.talk.messages():
        who = speakers.get(message.type, message.type)
        if message.type == "tool" and message.name:
            who = message.name
        text = safe_text(str(message.text))
        for call in getattr(message, "tool_calls", ()):
            text += f"\n-> {call['name']}: {safe_text(str(call['args']))}"
        line = Text(f"{safe_text(who):8} ", style="bold")
        line.append(text.strip(), style="not bold")
        chat.console.print(line, soft_wrap=not chat.console.is_terminal)


async def _save(chat: Chat, argument: str) -> None:
    await _keep(chat, None)


async def _rate(chat: Chat, argument: str) -> None:
    rule = "/rate takes a reward from 0 to 1, such as /rate 1"
    value = _number(argument, rule)
    if not 0 <= value <= 1:
        raise UsageError(f"{rule}, got '{argument}'.")
    await _keep(chat, value)


async def _keep(chat: Chat, reward: float | None) -> None:
    """Save the conversation in the trace store, in the group of those that began with the same
    question."""
    from eapo_agents.store import TraceStore
    from graphs.ratings import keep_trajectory

    trajectory = await chat.talk.trajectory(reward)
    with TraceStore.open(chat.store_at, create=True) as store:
        run_id, group, rollout, size = keep_trajectory(
            store, trajectory, chat.recipe.model_dump(mode="json")
        )
    worth = "without a reward" if reward is None else f"with reward {reward:g}"
    chat.say(f"Saved in {chat.store_at}, run {run_id}, group {group}, rollout {rollout}, {worth}.")
    if reward is not None and size < 2:
        chat.say("Training needs two answers that differ: /again gives another answer to rate.")


async def _graph(chat: Chat, argument: str) -> None:
    chat.console.print(Text(chat.talk.graph.get_graph().draw_ascii()), soft_wrap=True)


async def _new(chat: Chat, argument: str) -> None:
    chat.open(secrets.token_hex(4))
    chat.say(f"A new thread: {chat.talk.thread_id}.")


async def _single(chat: Chat, argument: str) -> None:
    chat.single = not chat.single
    how = "gets a new thread" if chat.single else "continues the thread"
    chat.say(f"Each question now {how}.")


async def _threads(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.chat_state import threads

    for thread_id, question in (await threads(chat.checkpointer)).items():
        chat.say(f"{thread_id}  {' '.join(question.split())[:100]}")


async def _quit(chat: Chat, argument: str) -> None:
    raise AssertionError("the loop ends the session before this is called")


def _number(text: str, rule: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{rule}, got '{text}'.") from None


Command = Callable[["Chat", str], Awaitable[None]]
COMMANDS: dict[str, tuple[str, Command]] = {
    "/help": ("list these commands", _help),
    "/experts": ("show the experts and what they have cost in this thread", _experts),
    "/rho": ("show or set the probability that a reply is accepted: /rho 0.3", _rho),
    "/budget": ("show or set what experts may cost: /budget usd 0.5, /budget off", _budget),
    "/solo": ("switch the experts off, and on again", _solo),
    "/again": ("ask the last question again; after /solo, show both answers", _again),
    "/rate": ("save the conversation as a trace with a reward: /rate 1", _rate),
    "/save": ("save the conversation without a reward", _save),
    "/history": ("show everything said so far", _history),
    "/graph": ("draw the graph", _graph),
    "/new": ("start another thread", _new),
    "/single": ("begin a new thread for each question, or stay in one", _single),
    "/threads": ("list the threads that are kept", _threads),
    "/quit": ("end the session; it can be continued", _quit),
}
"""Name -> (what it does, its function)."""
