"""`eapo chat`: a session with the agent."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    GraphOption,
    PolicyOption,
    RecipeOption,
    SetOption,
    StoreOption,
    resolved,
)


def chat(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    graph: GraphOption = None,
    thread: Annotated[
        str | None, typer.Option("--thread", help="Continue the conversation with this id.")
    ] = None,
    latest: Annotated[
        bool, typer.Option("--continue", "-c", help="Continue the latest conversation.")
    ] = False,
    list_threads: Annotated[
        bool, typer.Option("--threads", help="List the conversations and exit.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Talk with the agent. Conversations are kept, and rated ones can be trained on."""
    from eapo_agents.cli import chat_session

    chat_session.chat(
        resolved(recipe, overrides, policy, graph),
        thread=thread,
        latest=latest,
        list_threads=list_threads,
        store_at=store,
    )
