"""Ordinary tools: the policy keeps them when the experts are gone.

A call to one has no coin, no budget and no ledger row. It is in the trace, as the tokens of the
call and of the reply, and costs time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import tool as as_tool
from pydantic import ValidationError

from eapo_agents.errors import UsageError, innermost
from eapo_agents.experts.threads import invoke
from eapo_agents.mcp_servers import McpServer, server_tools
from eapo_agents.registry import Registry
from eapo_agents.secrets import redact

TIMEOUT_S = 60.0
"""Time limit of one call."""
MAX_CHARS = 20_000
"""Longer results are cut, and marked as cut."""
_CODE_S = 10.0
_RUN = """
def run(source):
    import ast, contextlib, io, traceback
    said = io.StringIO()
    names = {"__name__": "__main__"}
    try:
        tree = ast.parse(source)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        with contextlib.redirect_stdout(said):
            exec(compile(tree, "code", "exec"), names)
            value = eval(compile(last, "code", "eval"), names) if last is not None else None
            if value is not None:
                print(repr(value))
    except Exception as error:
        if type(error).__name__ == "TimeLimitError":
            raise
        said.write("".join(traceback.format_exception_only(error)))
    return said.getvalue()
"""


def calculator() -> BaseTool:
    """Return a tool that works out `(7 + 3) * 4 / 5`, exactly."""
    from eapo_agents.tasks.arithmetic import worked_steps

    def calculate(expression: str) -> str:
        try:
            return worked_steps(expression)[1]
        except ValueError as error:
            return str(error)

    return StructuredTool.from_function(
        calculate, name="calculator", description="works out + - * / and brackets, exactly"
    )


def python() -> BaseTool:
    """Return a tool that runs a program in the sandbox, and gives what it prints and the value of
    its last line."""

    def run(code: str) -> str:
        from eapo_agents.grading.code import the_sandbox
        from eapo_agents.sandbox import Inputs, Sample, Verdict, run_inputs
        from eapo_agents.sandbox.inside.values import from_text, to_text

        lines: list[bytes] = []

        def keep(index: int, line: bytes) -> bool:
            lines.append(line)
            return True

        inputs = Inputs(texts=[to_text([code])], limits_s=[_CODE_S], total_s=_CODE_S)
        sample = Sample(code=_RUN, entry_point="run")
        (outcome,) = run_inputs(the_sandbox(), sample, [(inputs, keep)])
        if lines:
            return str(from_text(lines[0].decode("ascii"))) or "(it printed nothing)"
        if outcome.verdict is Verdict.TIMED_OUT or "TimeLimitError" in outcome.detail:
            return f"It took longer than {_CODE_S:g} s."
        return f"It did not run to its end: {outcome.detail}."

    return StructuredTool.from_function(
        run,
        name="python",
        description="runs a Python program without packages; print what you want to see",
    )


def try_actions() -> BaseTool:
    """Return a tool that plays actions in the problem's environment, from its start."""
    from eapo_agents.tasks.environments import try_actions

    return try_actions()


def _accepted(found: object) -> list[BaseTool] | None:
    for make in (calculator, python, try_actions):
        if found is make:
            return [make()]
    every = found if isinstance(found, list | tuple) else [found]
    made = [one if isinstance(one, BaseTool) else _as_tool(one) for one in every]
    return [one for one in made if one is not None] if None not in made else None


def _as_tool(found: object) -> BaseTool | None:
    """Return a function as a tool; None for anything else, and for one that says nothing."""
    if not callable(found) or isinstance(found, type):
        return None
    try:
        return as_tool(found)
    except ValueError:  # it has no docstring
        return None


TOOLS = Registry[list[BaseTool]](
    "tool",
    {"calculator": calculator, "python": python, "try_actions": try_actions},
    accept=_accepted,
    rule="a LangChain tool, a function with a docstring and types, or a list of these",
)


def make_tools(named: Iterable[str | McpServer], experts: Iterable[str] = ()) -> list[BaseTool]:
    """Return the tools of these names and of these MCP servers, which are asked for them.

    Args:
        experts: names that the policy knows already.

    Raises:
        UsageError: there is no such tool or server, or two tools have the same name.
    """
    made = [
        tool
        for one in named
        for tool in (server_tools(one) if isinstance(one, McpServer) else TOOLS.find(one))
    ]
    taken = set(experts)
    for tool in made:
        if tool.name in taken:
            raise UsageError(
                f"Tools and experts need different names, and two are called '{tool.name}': rename "
                "one of them."
            )
        taken.add(tool.name)
    return made


def is_outside(named: str | McpServer) -> bool:
    """Return whether a recipe's tool is somebody's code or server, and not one of ours."""
    return isinstance(named, McpServer) or named not in TOOLS


async def use_tool(tools: Sequence[BaseTool], call: ToolCall) -> ToolMessage:
    """Return a tool's reply to a call of the policy's; whatever goes wrong becomes a notice."""
    tool = next((tool for tool in tools if tool.name == call["name"]), None)
    text, status = "", "error"
    if tool is None:
        text = f"There is no such tool. You can call: {', '.join(one.name for one in tools)}."
    else:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await invoke(tool, call)
            text, status = reply.text if isinstance(reply, ToolMessage) else str(reply), "success"
        except TimeoutError:
            text = f"{tool.name} took longer than {TIMEOUT_S:g} s."
        except ValidationError:
            text = f"{tool.name} takes these arguments: {', '.join(tool.args)}."
        except Exception as error:  # whatever a tool raises
            cause = innermost(error)
            text = f"{tool.name} failed: {type(cause).__name__}: {cause}"
    text = redact(text).encode(errors="replace").decode()  # no half characters
    if len(text) > MAX_CHARS:
        text = f"{text[:MAX_CHARS]} [cut]"
    return ToolMessage(content=text, tool_call_id=call["id"], name=call["name"], status=status)
