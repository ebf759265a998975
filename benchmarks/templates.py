"""What becomes of every chat template that the installed TRL ships, as a table for docs/models.md,
and of hostile replies in each.

    python benchmarks/templates.py --hostile 1000

A tokenizer of bytes is made for each template, with the marks of the template as its added tokens.
A conversation of calls, replies, an answer and another question is run through the policy's chat
model. The command fails where a call is not read, a reply is lost or a mark comes out of a reply.
benchmarks/vocabularies.py does the same with real vocabularies.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from eapo_agents.errors import ModelError
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.formats import ParsedCall
from eapo_agents.policy.fresh import chat_templates, marks_of
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.types import Sampling

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

TOOL = {
    "type": "function",
    "function": {
        "name": "solver",
        "description": "Solves sums.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "The sum."},
                "more": {"type": "object", "description": "More."},
            },
            "required": ["query"],
        },
    },
}


def templates() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each chat template of TRL, those for training aside."""
    for name, file in chat_templates().items():
        yield name, file.read_text(encoding="utf-8")


def make_tokenizer(template: str) -> Tokenizer:
    """Return a tokenizer of bytes with this template, and its marks as tokens."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(
        tokenizer_object=_bytes(),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<eos>",
        chat_template=template,
    )
    special, own = marks_of(template)
    made.add_special_tokens({"additional_special_tokens": special})
    made.add_tokens(own)
    return made


def _bytes() -> Backend:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Backend(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def hostile(renderer: ChatRenderer, draw: random.Random) -> str:
    """Return a reply made of marks, halves of marks, calls and answers."""
    form = renderer.format
    call = form.render([ParsedCall(name="solver", arguments={"query": "1"})])
    marks = [*renderer.added, *form.marks, *(m for pair in form.thoughts for m in pair)]
    parts = [*marks, call, "Answer: 4", "EAPOSLOT0X", "EAPOSLOT2X", "\n", " ", "é", '"', "\\", "'"]
    chosen = [draw.choice(parts) for _ in range(draw.randint(1, 12))]
    cuts = [part[: draw.randint(1, len(part))] if draw.random() < 0.3 else part for part in chosen]
    return "".join(cuts)


def leaked(renderer: ChatRenderer, reply: str) -> str:
    """Return what is wrong with the tokens of a reply; empty for nothing."""
    ids = renderer.encode_text(reply)
    if not set(renderer.added.values()).isdisjoint(ids):
        return "a mark is a token"
    if reply not in renderer.tokenizer.decode(renderer.prompt([HumanMessage(reply)], [])):
        return "the text has changed"
    turn = AIMessage(
        content="",
        tool_calls=[{"type": "tool_call", "name": "solver", "args": {"query": reply}, "id": "c"}],
    )
    plain = turn.model_copy(
        update={"tool_calls": [{**turn.tool_calls[0], "args": {"query": "plain"}}]}
    )
    told = [_marks(renderer, turn, reply), _marks(renderer, plain, "plain")]
    return "" if told[0] == told[1] else "a conversation has other marks"


def _marks(renderer: ChatRenderer, turn: AIMessage, text: str) -> list[int]:
    """Return the marks of a conversation with this text in each place."""
    reply = ToolMessage(text, tool_call_id="c", name="solver")
    messages = [SystemMessage(text), HumanMessage(text), turn, reply]
    ids = [
        *renderer.prompt(messages, [TOOL]),
        *renderer.continuation([reply], closed_by=None, after=turn),
    ]
    marks = set(renderer.added.values())
    return [token for token in ids if token in marks]


def converse(renderer: ChatRenderer) -> str:
    """Return what goes wrong in a conversation; empty for nothing."""
    form = renderer.format
    calls = [
        ParsedCall(name="solver", arguments={"query": f'{n} \\frac{{1}}{{2}} "é"\nx'})
        for n in range(renderer.template.max_calls or 2)
    ]
    said = [form.render(calls), "Answer: 5", "Answer: 6"]
    written = iter(said)
    policy = PolicyChatModel(
        engine=ScriptedEngine(renderer, lambda key, prompt: next(written)),
        renderer=renderer,
        sampling=Sampling(max_new_tokens=4000),
    ).bind_tools([TOOL])
    asked: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("Question?")]
    turn = policy.invoke(asked)
    if [(call["name"], call["args"]) for call in turn.tool_calls] != [
        (call.name, call.arguments) for call in calls
    ]:
        return f"calls are not read: {turn.tool_calls or turn.invalid_tool_calls or turn.content}"
    replies = [
        ToolMessage(f"reply {n}", tool_call_id=call["id"], name="solver")
        for n, call in enumerate(turn.tool_calls)
    ]
    answer = policy.invoke([*asked, turn, *replies])
    if answer.content != "Answer: 5":
        return f"the answer is not read: {answer.content}"
    again = policy.invoke([*asked, turn, *replies, answer, HumanMessage("And then?")])
    seen = [renderer.tokenizer.decode(_context(message)) for message in (turn, answer, again)]
    wanted = [("Be brief.", "Question?", "solver"), tuple(str(r.content) for r in replies)]
    for prompt, parts in zip(seen, [*wanted, ("And then?",)], strict=True):
        for part in parts:
            if part not in prompt:
                return f"'{part}' is not in the prompt"
    return ""


def _context(message: AIMessage) -> Sequence[int]:
    found: Sequence[int] = message.additional_kwargs["eapo"]["context_ids"]
    return found


def row(name: str, text: str, num_hostile: int) -> tuple[list[str], str]:
    """Return a template's row of the table, and what is wrong."""
    try:
        renderer = ChatRenderer(make_tokenizer(text))
    except ModelError as error:
        return [name, "refused", str(error), "", "", ""], ""
    template = renderer.template
    wrong = converse(renderer)
    draw = random.Random(name)
    for _ in range(num_hostile):
        reply = hostile(renderer, draw)
        wrong = wrong or ((found := leaked(renderer, reply)) and f"{found}: {reply!r}")
    kept = template.keeps_thought_before_reply, template.keeps_thought_before_user
    return [
        name,
        renderer.format.name,
        "template" if template.has_tools else "our section",
        "one" if template.max_calls == 1 else "several",
        f"`{template.reply_role}`" + (", joined" if template.joins_replies else ""),
        "kept" if all(kept) else "until the next question" if kept[0] else "dropped",
    ], wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hostile", type=int, default=0, help="Hostile replies per template.")
    given = parser.parse_args()
    titles = ["template", "form of calls", "tools from", "calls a turn", "replies", "thoughts"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    failed = 0
    for name, text in templates():
        cells, wrong = row(name, text, given.hostile)
        print(f"| {' | '.join(cells)} |")
        if wrong:
            failed += 1
            print(f"{name}: {wrong}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
