"""A fresh model of any family: its architecture under our engine, and a chat template of TRL's with
its tokens and its calls."""

import asyncio
from typing import get_args

import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from templates import TOOL

from eapo_agents.errors import ModelError
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.formats import ParsedCall
from eapo_agents.policy.fresh import Architecture, make_model, read_chat_template, tokenizer_for
from eapo_agents.policy.models import load_policy, save_policy
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.transformers_engine import TransformersEngine
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.loading import problems_of
from eapo_agents.types import Sampling
from trainers.warm_start_episodes import script_texts

SIZE = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 320}


@pytest.mark.parametrize("architecture", get_args(Architecture))
async def test_the_engine_samples_what_each_architecture_says(architecture, tmp_path):
    """Also in a second turn, whose rows are kept from the first."""
    make_model(tmp_path, ["7 + 3 * 4"], **SIZE, seed=0, architecture=architecture)
    loaded = load_policy(str(tmp_path))
    assert loaded.model.config.model_type.startswith(architecture)
    engine = TransformersEngine(loaded.model, name="fresh", stop_ids=[1], base="b")
    prompts = [loaded.tokenizer.encode(text) for text in ("7", "7 + 3", "7 + 3 * 4" * 20)]
    sampling = Sampling(temperature=1.0, max_new_tokens=9)
    for turn in range(2):

        async def one(number: int, ids: list[int], cohort, turn=turn):
            key = RolloutKey(seed=0, problem_id=str(number), step=0, rollout=number, turn=turn)
            try:
                return await engine.generate(ids, sampling, key)
            finally:
                cohort.finished()

        with engine.cohort(len(prompts)) as cohort:
            told = await asyncio.gather(*(one(n, ids, cohort) for n, ids in enumerate(prompts)))
        for prompt, done in zip(prompts, told, strict=True):
            ids = [*prompt, *done.completion_ids]
            with torch.no_grad():
                logits = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            rows = logits[len(prompt) - 1 : -1]
            plain = rows.gather(1, torch.tensor(done.completion_ids)[:, None])[:, 0]
            assert torch.allclose(plain, torch.tensor(done.logprobs), atol=1e-4)
        prompts = [[*p, *d.completion_ids, 9, 8] for p, d in zip(prompts, told, strict=True)]


@pytest.mark.parametrize("name", ["qwen3_5_think", "gemma4", "glm4moe", "llama3_1", "gemma3"])
def test_a_fresh_tokenizer_writes_a_templates_calls_with_its_own_marks(name):
    """What the template says about tools is a few tokens, and the marks are tokens."""
    recipe = load_recipe("scale-model")
    template = read_chat_template(name)
    texts = script_texts(recipe, problems_of(recipe, "train", 20), template)
    tokenizer, size = tokenizer_for(template, texts, 1200)
    assert size == len(tokenizer) <= 1200
    renderer, in_bytes = ChatRenderer(tokenizer), ChatRenderer(tokenizer_for(template)[0])
    assert renderer.format is in_bytes.format
    assert tokenizer.eos_token_id == renderer.end_of_turn_id
    asked = [HumanMessage("7 + 3 * 4")]
    call = ParsedCall(name="solver", arguments={"query": "7 + 3 * 4"})
    prompt, long = renderer.prompt(asked, [TOOL]), in_bytes.prompt(asked, [TOOL])
    assert tokenizer.decode(prompt) == in_bytes.tokenizer.decode(long)
    ids = renderer.encode_turn(
        renderer.format.render([call]), in_thought=renderer.in_thought(prompt)
    )
    turn = renderer.parse(
        renderer.decode(ids), in_thought=renderer.in_thought(prompt), tools=[TOOL]
    )
    assert turn.calls == (call,)
    assert len(ids) < 30
    asking = AIMessage("", tool_calls=[{"name": "solver", "args": {}, "id": "a"}])
    reply = ToolMessage("3 * 4 = 12.", tool_call_id="a")
    more = renderer.continuation([reply], closed_by=ids[-1], after=asking)
    assert "3 * 4 = 12." in tokenizer.decode(more)


def test_a_template_that_is_not_there_or_has_no_room_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"Did you mean 'qwen3_5_think'\?"):
        read_chat_template("qwen3_5_thin")
    with pytest.raises(ModelError, match="cannot be read"):
        read_chat_template(str(tmp_path / "none.jinja"))
    with pytest.raises(ValueError, match="must have room"):
        tokenizer_for(read_chat_template("qwen3_5_think"), [], 200)


def test_a_trained_policy_in_the_place_of_a_model_is_refused_with_what_it_is(tmp_path):
    make_model(tmp_path / "base", ["7 + 3 * 4"], **SIZE, seed=0)
    loaded = load_policy(str(tmp_path / "base"))
    save_policy(loaded.model, tmp_path / "policy", base="b", step=1)
    with pytest.raises(ModelError, match=r"is a trained policy and no whole model.*--policy"):
        load_policy(str(tmp_path / "policy"))
