"""Random LangGraph programs over the policy, and whether what is trained is what was shown.

    python benchmarks/random_graphs.py 10000 [FIRST_SEED]

Each program has forks, joins, threads, tasks, edited messages, retries, sub-agents, checkpointers,
other models, other temperatures, streams and tools at random. The engine writes random tokens and
keeps what it was shown. Every (context, completion) pair that a rollout's rows train on must be one
of those; a completion of the policy's own that no row trains is missing. A rollout that is an error
is refused, with its reason.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import json
import operator
import random
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Send
from trained_pairs import Pair, trained

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import Completion, NoCohort
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.types import PolicyVersion, Problem, Sampling
from graphs.rollout import RolloutPlan, run_rollouts
from trainers.doctor import examine
from trainers.rows import trajectory_rows

WORDS = ("ten", "12", "12\n", "yes", "no", " ", "\u00e9", "a b", "<b>", "{", "Answer: 10")
TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
}


@dataclass
class RandomEngine:
    """Writes random tokens and keeps what it was shown, and with which settings."""

    renderer: ChatRenderer
    made: random.Random
    base: str = "policy"
    shown: list[tuple[Pair, Sampling]] = field(default_factory=list)

    @property
    def policy_version(self) -> PolicyVersion:
        return PolicyVersion(model=self.base, base=self.base, weights=self.base, step=0)

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, key: object, *, on_token: Any = None
    ) -> Completion:
        if self.made.random() < 0.5:
            await asyncio.sleep(self.made.choice((0, 0, 0.0005)))
        ids = list(self.renderer.encode_text(self._text()))
        if self.made.random() < 0.9:
            ids.append(self.renderer.end_of_turn_id)
        ids = ids[: sampling.max_new_tokens]
        for token in ids if on_token else ():
            on_token(token)
        pair = (tuple(prompt_ids), tuple(ids))
        self.shown.append((pair, sampling))
        return Completion(
            completion_ids=tuple(ids),
            logprobs=tuple(-0.5 for _ in ids),
            finish_reason="stop" if ids[-1:] == [self.renderer.end_of_turn_id] else "length",
            policy=self.policy_version,
        )

    def _text(self) -> str:
        text = " ".join(self.made.choices(WORDS, k=self.made.randrange(4)))
        if self.made.random() < 0.2:
            text += format_call("f", {"n": self.made.randrange(3)})
        if self.made.random() < 0.05:
            text += "<tool_call>{broken"
        return text

    @contextmanager
    def cohort(self, num_rollouts: int) -> Any:
        yield NoCohort()


@dataclass
class Models:
    """What the nodes of a program may call."""

    policy: PolicyChatModel
    cold: PolicyChatModel
    other: PolicyChatModel


class State(MessagesState):
    notes: Annotated[list[str], operator.add]


Say = Callable[[list[BaseMessage], Any], Any]


def ways_of_asking(models: Models, made: random.Random) -> list[Say]:
    """Ways in which programs call a model; the plain one is as frequent as six others."""
    return [*from_tasks_and_threads(models), *with_other_settings(models, made)]


def from_tasks_and_threads(models: Models) -> list[Say]:
    """Ways that differ in where the call is made."""
    policy = models.policy
    tools = policy.bind_tools([TOOL])

    async def plainly(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await policy.ainvoke(messages)

    async def with_tools(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await tools.ainvoke(messages)

    async def in_a_thread(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await asyncio.to_thread(policy.invoke, messages)

    async def in_a_pool(messages: list[BaseMessage], config: Any) -> AIMessage:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(policy.invoke, messages).result()

    async def in_a_pool_with_its_config(messages: list[BaseMessage], config: Any) -> AIMessage:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(policy.invoke, messages, config).result()

    async def in_a_copied_context(messages: list[BaseMessage], config: Any) -> AIMessage:
        found: list[AIMessage] = []
        run = contextvars.copy_context().run
        thread = threading.Thread(target=run, args=(lambda: found.append(policy.invoke(messages)),))
        thread.start()
        thread.join()
        return found[0]

    async def in_a_task(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await asyncio.create_task(policy.ainvoke(messages))

    often = [plainly] * 6
    threads = (in_a_thread, in_a_pool, in_a_pool_with_its_config, in_a_copied_context)
    return [*often, with_tools, *threads, in_a_task]


def with_other_settings(models: Models, made: random.Random) -> list[Say]:
    """Ways that differ in what is asked for, and how often."""
    policy = models.policy

    async def streamed(messages: list[BaseMessage], config: Any) -> BaseMessage:
        pieces = [piece async for piece in policy.astream(messages)]
        whole = sum(pieces[1:], pieces[0])
        fields = whole.model_dump(exclude={"type", "tool_call_chunks", "chunk_position"})
        return AIMessage(**fields)

    async def again_and_again(messages: list[BaseMessage], config: Any) -> AIMessage:
        for _ in range(made.randrange(1, 4)):
            said = await policy.ainvoke(messages)
            if said.text.strip():
                break
        return said

    async def best_of_three(messages: list[BaseMessage], config: Any) -> AIMessage:
        said = await asyncio.gather(*(policy.ainvoke(messages) for _ in range(3)))
        return max(said, key=lambda message: len(message.text))

    async def at_once(messages: list[BaseMessage], config: Any) -> AIMessage:
        said = await policy.abatch([messages, messages[-1:]])
        return said[0]

    async def colder(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await models.cold.ainvoke(messages)

    async def bound(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await policy.bind(temperature=0.3).ainvoke(messages)

    async def shortly(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await policy.bind(max_tokens=2).ainvoke(messages)

    async def another(messages: list[BaseMessage], config: Any) -> AIMessage:
        return await models.other.ainvoke(messages)

    return [streamed, again_and_again, best_of_three, at_once, colder, bound, shortly, another]


def edited(messages: list[BaseMessage], made: random.Random) -> list[BaseMessage]:
    """What a program makes of a conversation before it goes on with it."""
    found = list(messages)
    match made.randrange(12):
        case 0:
            found = found[-made.randrange(1, 4) :]
        case 1:
            found = [SystemMessage("Be brief."), *[m for m in found if m.type != "system"]]
        case 2:  # rebuilt as text
            found = [AIMessage(m.text) if m.type == "ai" else m for m in found]
        case 3:  # one of them
            index = made.randrange(len(found))
            found[index] = type(found[index])(**{**dict(found[index]), "content": "edited"})
        case 4:
            del found[made.randrange(len(found))]
        case 5:
            found = [HumanMessage("Summary: " + " ".join(m.text for m in found))]
        case 6:
            found = messages_from_dict(json.loads(json.dumps(messages_to_dict(found))))
        case 7:
            made.shuffle(found)
        case 8:  # the record of one turn on the text of another
            turns = [m for m in found if m.type == "ai"]
            if turns:
                kwargs = made.choice(turns).additional_kwargs
                found[-1] = AIMessage("other text", additional_kwargs=kwargs)
    return found or [HumanMessage("What?")]


def answered(messages: list[BaseMessage]) -> list[BaseMessage]:
    """The conversation, with an answer to each call of its last turn."""
    calls = messages[-1].tool_calls if isinstance(messages[-1], AIMessage) else []
    return [*messages, *(ToolMessage("3", tool_call_id=str(call["id"])) for call in calls)]


def node_of(ask: Say, made: random.Random, turns: int) -> Callable[..., Any]:
    """A node that takes some turns, and keeps some of what it did."""

    async def node(state: State, config: Any = None) -> dict[str, Any]:
        messages = edited(state["messages"], made) if made.random() < 0.4 else state["messages"]
        new: list[BaseMessage] = []
        for _ in range(turns):
            said = await ask([*messages, *new], config)
            new = [*answered([*new, said]), HumanMessage(made.choice(("Sure?", "more", "go on")))]
        kept = new[:-1] if made.random() < 0.8 else new[:1]
        if made.random() < 0.3:  # only the text goes on
            return {"notes": [kept[-1].text], "messages": []}
        return {"messages": kept, "notes": []}

    node.__annotations__["config"] = "RunnableConfig"
    return node


def program(models: Models, made: random.Random, depth: int = 0) -> CompiledStateGraph[Any]:
    """A graph of layers: nodes one after another, side by side, in sub-graphs, or sent to."""
    asking = ways_of_asking(models, made)
    graph = StateGraph(State)
    before: list[str] = [START]

    def make(name: str) -> None:
        if depth < 2 and name != "n0_0" and made.random() < 0.2:
            inner = program(models, made, depth + 1)
            graph.add_node(name, inner if made.random() < 0.5 else called(inner))
        else:
            # a program that only asks other models is refused, and tells nothing
            ask = asking[0] if name == "n0_0" else made.choice(asking)
            graph.add_node(name, node_of(ask, made, made.randrange(1, 3)))

    for layer in range(made.randrange(1, 4 - depth)):
        names = [f"n{layer}_{k}" for k in range(made.choice((1, 1, 1, 2, 3)))]
        for name in names:
            make(name)
        if before != [START] and len(names) == 1 and len(before) == 1 and made.random() < 0.3:
            copies = made.randrange(1, 4)
            graph.add_conditional_edges(
                before[0],
                lambda state, name=names[0], copies=copies: [Send(name, state)] * copies,
                names,
            )
        else:
            for name in names:
                graph.add_edge(before if len(before) > 1 else before[0], name)
        before = names
    saver = InMemorySaver() if depth == 0 and made.random() < 0.3 else None
    return graph.compile(checkpointer=saver)


def called(inner: CompiledStateGraph[Any]) -> Callable[..., Any]:
    async def node(state: State) -> dict[str, Any]:
        found = await inner.ainvoke({"messages": state["messages"][-2:], "notes": []})
        return {"messages": found["messages"][-1:], "notes": []}

    return node


@dataclass
class Outcome:
    """What became of one program."""

    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    num_rollouts: int = 0
    num_pairs: int = 0


def tried(seed: int, renderer: ChatRenderer) -> Outcome:
    """Run one program and check what would be trained of it."""
    made = random.Random(seed)
    engine = RandomEngine(renderer, made)
    aside = RandomEngine(renderer, made, base="another")
    own = Sampling(max_new_tokens=40)
    policy = PolicyChatModel(engine=engine, renderer=renderer, sampling=own)
    cold = policy.model_copy(update={"sampling": replace(own, temperature=0.5)})
    other = PolicyChatModel(engine=aside, renderer=renderer, sampling=own)
    graph = program(Models(policy, cold, other), made)
    problem = Problem(id="p", question="What is 7 + 3?", answer="10", grader="exact")
    plan = RolloutPlan(problem=problem, rollouts=range(made.choice((1, 1, 2))))
    (group,) = asyncio.run(
        run_rollouts(graph, policy, [plan], system_prompt="Be brief.", seed=seed)
    )
    found = Outcome(num_rollouts=len(plan.rollouts))
    found.refused = [t.error for t in group.trajectories_G if t.error]
    sound = [t for t in group.trajectories_G if not t.error]
    got = collections.Counter(pair for t in sound for pair in trained(t))
    found.num_pairs = got.total()
    same = (own.temperature, own.top_p)
    wanted = collections.Counter(
        pair for pair, used in engine.shown if (used.temperature, used.top_p) == same and pair[1]
    )
    found.wrong = [f"trained behind what was not shown: {pair}" for pair in got - wanted]
    if not found.refused:
        found.wrong += [f"sampled and not trained: {pair}" for pair in wanted - got]
        found.wrong += [finding.message for finding in examine([group]).blocking]
        for trajectory in sound:
            total = sum(row.weight for row in trajectory_rows(trajectory, advantage=1.0))
            if total and abs(total - 1) > 1e-6:
                found.wrong.append(f"a trajectory weighs {total}")
    return found


def small_renderer() -> ChatRenderer:
    """A byte tokenizer, in which "12" is one token or two."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*letters, "12"])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", "2")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    end = "<|end|>"
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=end, pad_token=end, chat_template=template
    )
    roles = [f"<|{role}|>" for role in ("system", "user", "assistant", "tool")]
    tokenizer.add_special_tokens({"additional_special_tokens": roles})
    return ChatRenderer(tokenizer)


def main(count: int, first: int = 0) -> None:
    renderer = small_renderer()
    reasons: collections.Counter[str] = collections.Counter()
    num_wrong = num_rollouts = num_pairs = 0
    for seed in range(first, first + count):
        found = tried(seed, renderer)
        num_rollouts += found.num_rollouts
        num_pairs += found.num_pairs
        reasons.update(found.refused)
        if found.wrong:
            num_wrong += 1
            print(f"seed {seed}: {found.wrong[0][:300]}", flush=True)
        if (seed + 1 - first) % 500 == 0:
            print(f"{seed + 1 - first} programs, {num_wrong} wrong", flush=True)
    print(
        f"{count} programs, {num_rollouts} rollouts, {num_pairs} trained completions: "
        f"{num_wrong} programs wrong, {reasons.total()} rollouts refused "
        f"({reasons.total() / num_rollouts:.2%})"
    )
    for reason, times in reasons.most_common():
        print(f"  {times:6} {reason[:200]}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
