"""The slash commands of `eapo chat`."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rich.text import Text

from eapo_agents.cli.output import safe_text
from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from eapo_agents.cli.chat_state import Chat

MOST_TITLE = 200
"""Characters of a thread's title."""


async def run_command(chat: Chat, line: str) -> None:
    """Run `/name argument`.

    Raises:
        UsageError: there is no such command, or the argument does not fit.
    """
    name, _, argument = line.partition(" ")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, list(COMMANDS), n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists them."
        raise UsageError(f"There is no command '{name}': {hint}")
    await COMMANDS[name][1](chat, argument.strip())


async def _help(chat: Chat, argument: str) -> None:
    for name, (what, _) in COMMANDS.items():
        chat.say(f"{name:10} {what}")
    chat.say(
        "@FILE in a question puts the file's text into it. Alt-Enter breaks the line. Ctrl-C stops "
        "a turn, Ctrl-Z the program; Ctrl-D ends the session."
    )


async def _experts(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.turn_view import money, table_of
    from eapo_agents.experts.costs import Costs, costs

    if argument:
        await _choose_experts(chat, argument)
        return
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


async def _choose_experts(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.chat_settings import names_in, with_experts
    from graphs.agent import make_pool

    names = list(chat.whole.consult.experts) if argument == "all" else names_in(argument)
    chosen = with_experts(chat.whole, names).consult.experts
    consult = chat.recipe.consult.model_copy(update={"experts": chosen})
    recipe = chat.recipe.model_copy(update={"consult": consult})
    await chat.change(recipe, pool=make_pool(recipe, chat.agent.pool.policy))
    offered = ", ".join(tool.name for tool in chat.agent.pool.tools)
    chat.say(f"The policy can ask: {offered}. /experts all offers all of them.")


async def _ask(chat: Chat, argument: str) -> None:
    if chat.prompt is None:
        raise UsageError("/ask waits for a person at the keyboard: run the chat in a terminal.")
    chat.talk.review = not chat.talk.review
    how = "waits for you before it is sent" if chat.talk.review else "is sent at once"
    chat.say(f"Each call to an expert now {how}.")


async def _system(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.chat_settings import with_system_prompt

    if not argument:
        chat.say(chat.talk.system_prompt or "There is no system prompt.")
        return
    await chat.change(with_system_prompt(chat.recipe, argument))
    if await chat.talk.messages():
        await chat.reopen(secrets.token_hex(4))
        chat.say(f"A new thread begins with this system prompt: {chat.talk.thread_id}.")
    else:
        chat.say("This thread begins with this system prompt.")


async def _temp(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.chat_settings import with_temperature

    if argument:
        rule = "/temp takes a number from 0 (greedy), such as /temp 0.7"
        await chat.change(with_temperature(chat.recipe, _number(argument, rule)))
    chat.say(f"temperature {chat.recipe.sampling.temperature:g}")


async def _undo(chat: Chat, argument: str) -> None:
    question = await chat.talk.undo()
    chat.answers = None
    chat.say(f"Taken back: {' '.join(question.split())[:200]}")


async def _fork(chat: Chat, argument: str) -> None:
    from graphs.threads import copy_thread

    if not await chat.talk.messages():
        raise UsageError("Nothing has been said in this thread yet: there is nothing to copy.")
    old, new = chat.talk.thread_id, secrets.token_hex(4)
    await copy_thread(chat.checkpointer, old, new)
    await chat.reopen(new)
    chat.say(f"This is {new}, a copy of {old}, which stays as it is.")


async def _export(chat: Chat, argument: str) -> None:
    from pathlib import Path

    from eapo_agents.cli.chat_export import export

    if not argument:
        raise UsageError("/export takes a new .md or .json file, such as /export talk.md.")
    file = Path(argument).expanduser()
    export(
        file,
        await chat.talk.messages(),
        thread=chat.talk.thread_id,
        policy=chat.agent.engine.policy_version,
        sampling=chat.agent.sampling,
    )
    chat.say(f"Written to {file}.")


async def _title(chat: Chat, argument: str) -> None:
    from graphs.threads import set_title, titles

    title = " ".join(argument.split())
    if len(title) > MOST_TITLE:
        raise UsageError(f"A title has at most {MOST_TITLE} characters, got {len(title)}.")
    thread = chat.talk.thread_id
    if title:
        await set_title(chat.checkpointer, thread, "" if title == "-" else title)
    named = (await titles(chat.checkpointer)).get(thread)
    chat.say(f"This thread is called: {named}" if named else "This thread has no title of yours.")


async def _search(chat: Chat, argument: str) -> None:
    from eapo_agents.cli.chat_lists import print_search

    await print_search(chat.checkpointer, chat.store_at, argument, chat.say)


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
    from graphs.threads import who_says

    for message in await chat.talk.messages():
        who = who_says(message)
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
    from eapo_agents.cli.chat_lists import print_threads

    await print_threads(chat.checkpointer, chat.say)


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
    "/experts": ("show the experts and their cost; /experts a,b offers only these", _experts),
    "/ask": ("approve, edit or refuse each call before it is sent, or no longer", _ask),
    "/system": ("show or set the system prompt: /system Answer briefly.", _system),
    "/temp": ("show or set the sampling temperature: /temp 0.7", _temp),
    "/rho": ("show or set the probability that a reply is accepted: /rho 0.3", _rho),
    "/budget": ("show or set what experts may cost: /budget usd 0.5, /budget off", _budget),
    "/solo": ("switch the experts off, and on again", _solo),
    "/again": ("ask the last question again; after /solo, show both answers", _again),
    "/undo": ("take back the last question and its answer", _undo),
    "/fork": ("go on with a copy of this thread", _fork),
    "/export": ("write the conversation to a file: /export talk.md, or .json", _export),
    "/rate": ("save the conversation as a trace with a reward: /rate 1", _rate),
    "/save": ("save the conversation without a reward", _save),
    "/history": ("show everything said so far", _history),
    "/graph": ("draw the graph", _graph),
    "/new": ("start another thread", _new),
    "/single": ("begin a new thread for each question, or stay in one", _single),
    "/threads": ("list the threads that are kept", _threads),
    "/title": ("show or set the title of this thread: /title Triangles; - takes it away", _title),
    "/search": ("find a text in threads and traces: /search triangle", _search),
    "/quit": ("end the session; it can be continued", _quit),
}
"""Name -> (what it does, its function)."""
