"""`eapo chat`: a session with the agent."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_STORE,
    FIRST_LOOK,
    AnyRecipeOption,
    GraphOption,
    PolicyOption,
    SetOption,
    StoreOption,
    resolved,
    talk_recipe,
)

ForgetOption = Annotated[
    bool,
    typer.Option(
        "--forget",
        help="Keep nothing: no thread, no ledger, no stored replies. /rate and /save still do.",
    ),
]


def chat(
    recipe: AnyRecipeOption = None,
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
    search: Annotated[
        str | None,
        typer.Option("--search", help="Find a text in conversations and traces, and exit."),
    ] = None,
    experts: Annotated[
        str | None,
        typer.Option("--experts", help="Offer only these of the recipe's experts: a,b."),
    ] = None,
    ask: Annotated[
        bool,
        typer.Option("--ask", help="Approve, edit or refuse each expert call before it is sent."),
    ] = False,
    single: Annotated[
        bool | None,
        typer.Option(
            "--single/--thread-on",
            help="A new thread for each question: for a policy that was trained on single ones. "
            f"The default with {FIRST_LOOK}.",
            show_default=False,
        ),
    ] = None,
    forget: ForgetOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Talk with the agent. Conversations are kept, and rated ones can be trained on."""
    from eapo_agents.cli import chat_session

    chosen = talk_recipe(recipe, overrides, policy, graph)
    chat_session.chat(
        resolved(chosen, overrides, policy, graph),
        chat_session.Wishes(
            thread=thread,
            latest=latest,
            list_threads=list_threads,
            search=search,
            experts=experts,
            ask=ask,
            single=chosen == FIRST_LOOK if single is None else single,
            forget=forget,
            store_at=store,
        ),
    )
