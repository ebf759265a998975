"""`eapo chat` with a scripted policy, run by test_chat in a real terminal: all else is real.

Arguments: a model folder (for its tokenizer), then those of `eapo chat`.
"""

import sys
import time
from functools import partial

from transformers import AutoTokenizer

from eapo_agents.cli import chat_session
from eapo_agents.cli.main import main
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from graphs.agent import Agent, make_pool

MARKDOWN = r"""It is **bold**, 2*3*4 = 24 and \(x^2 \le \frac{1}{2}\), <b>as it is</b>.

- one
- two

These words are long enough that the last one of a line would be broken at the margin of the screen.
"""


def script(key: RolloutKey, prompt: str) -> str:
    """Asks the experts that the question names (`solver: 7 + 3`), then answers with the last
    reply."""
    if "sleep" in prompt:
        time.sleep(0.5)
    _, *since = prompt.split("<|im_start|>user\n")
    question = next(part for part in reversed(since) if "->" in part or "?" in part)
    question = question.split("<|im_end|>")[0].strip()
    if question == "show markdown?":
        return MARKDOWN
    asked = prompt.rpartition(question)[2].count("<|im_start|>assistant") > 1
    if asked or "->" not in question:
        return f"Well, so be it. Answer: {len(question)}"
    names, _, query = question.partition("->")
    calls = "".join(
        format_call(name.strip(), {"query": query.strip()}) for name in names.split(",")
    )
    return f"I had better ask.\n{calls}"


def agent_of(recipe, progress, model):
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(model))
    return Agent(
        recipe=recipe,
        loaded=None,
        renderer=renderer,
        engine=ScriptedEngine(renderer, script),
        pool=make_pool(recipe),
    )


if __name__ == "__main__":
    _, model, *arguments = sys.argv
    sys.argv[1:] = ["chat", *arguments]
    chat_session.load_agent = partial(agent_of, model=model)
    main()
