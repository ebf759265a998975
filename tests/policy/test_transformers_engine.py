"""The embedded engine on the real small model."""

import asyncio
import gc
import weakref

import pytest
import torch

from eapo_agents.errors import EngineError
from eapo_agents.policy.batching import IDLE_END_S
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.transformers_engine import PREFILL_TOKENS, TransformersEngine
from eapo_agents.types import Sampling

PROMPTS = ["What is 2 + 2?", "Name a colour.", "Tell me about the sea in one sentence.", "Hi"]


def key(number: int, turn: int = 0, seed: int = 0) -> RolloutKey:
    return RolloutKey(seed=seed, problem_id=f"p{number}", step=0, rollout=number, turn=turn)


@pytest.fixture
def engine(loaded_policy, renderer):
    return TransformersEngine(
        loaded_policy.model, name="small", stop_ids=sorted(renderer.stop_ids), base="b"
    )


@pytest.fixture
def prompts(renderer):
    frame = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [renderer.tokenizer.encode(frame.format(text)) for text in PROMPTS]


async def together(engine, prompts, sampling, seed=0, turn=0):
    with engine.cohort(len(prompts)) as cohort:

        async def one(number, ids):
            try:
                return await engine.generate(ids, sampling, key(number, turn, seed))
            finally:
                cohort.finished()

        return await asyncio.gather(*(one(n, ids) for n, ids in enumerate(prompts)))


def logprobs_of(model, prompt, completion, temperature=1.0):
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *completion]])).logits[0].float() / temperature
    rows = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return rows.gather(1, torch.tensor(completion)[:, None])[:, 0]


async def test_logprobs_are_those_of_a_plain_forward_pass(engine, prompts):
    for temperature in (1.0, 0.7):
        completions = await together(
            engine, prompts, Sampling(temperature=temperature, max_new_tokens=12)
        )
        for prompt, done in zip(prompts, completions, strict=True):
            plain = logprobs_of(engine.model, prompt, list(done.completion_ids), temperature)
            assert torch.allclose(plain, torch.tensor(done.logprobs), atol=1e-3)


async def test_greedy_is_the_models_own_greedy_generation(engine, prompts, renderer):
    completions = await together(engine, prompts, Sampling(temperature=0.0, max_new_tokens=10))
    for prompt, done in zip(prompts, completions, strict=True):
        own = engine.model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=10, pad_token_id=0
        )[0, len(prompt) :]
        assert list(done.completion_ids) == own.tolist()


async def test_the_same_seed_gives_the_same_tokens_whoever_shares_the_batch(engine, prompts):
    sampling = Sampling(max_new_tokens=12)
    batch = await together(engine, prompts, sampling)
    again = await together(engine, prompts, sampling)
    alone = [(await together(engine, [prompts[0]], sampling))[0]]
    other = await together(engine, prompts, sampling, seed=1)
    assert batch == again
    assert alone[0].completion_ids == batch[0].completion_ids
    assert other != batch


async def test_a_later_turn_reuses_the_cache_and_gets_the_same_logprobs(engine, prompts, renderer):
    sampling = Sampling(max_new_tokens=8)
    first = await together(engine, prompts, sampling)
    more = renderer.tokenizer.encode("<|im_end|>\n<|im_start|>user\nGo on.<|im_end|>\n")
    longer = [[*p, *d.completion_ids, *more] for p, d in zip(prompts, first, strict=True)]
    second = await together(engine, longer, sampling, turn=1)
    for prompt, done in zip(longer, second, strict=True):
        plain = logprobs_of(engine.model, prompt, list(done.completion_ids))
        assert torch.allclose(plain, torch.tensor(done.logprobs), atol=1e-3)


async def test_many_long_prompts_are_fed_in_passes_and_get_the_same_logprobs(
    loaded_shallow_policy, renderer
):
    engine = TransformersEngine(
        loaded_shallow_policy.model, name="shallow", stop_ids=sorted(renderer.stop_ids)
    )
    system = "<|im_start|>system\nSay what you think of these words.<|im_end|>\n<|im_start|>user\n"
    texts = [f"{system}{'sea wind ' * count}{count}" for count in (90, 3, 40, 3, 170, 90, 11, 60)]
    prompts = [renderer.tokenizer.encode(text) for text in texts]
    new = [len(prompt) for prompt in prompts]
    passes = engine._passes(new)
    assert sorted(index for part in passes for index in part) == list(range(len(prompts)))
    assert len(passes) > 1
    sizes = [len(part) * max(new[index] for index in part) for part in passes]
    assert max(sizes) <= PREFILL_TOKENS["cpu"]
    assert engine._passes([4000, 10, 20]) == [[1, 2], [0]]  # one that is too long goes alone
    assert engine._passes([10, 20]) == [[0, 1]]

    sampling = Sampling(max_new_tokens=6)
    first = await together(engine, prompts, sampling)
    longer = [[*p, *d.completion_ids, 28, 29] for p, d in zip(prompts, first, strict=True)]
    second = await together(engine, longer, sampling, turn=1)
    for asked, answered in ((prompts, first), (longer, second)):
        for prompt, done in zip(asked, answered, strict=True):
            plain = logprobs_of(engine.model, prompt, list(done.completion_ids))
            assert torch.allclose(plain, torch.tensor(done.logprobs), atol=1e-3)
    assert first == await together(engine, prompts, sampling)


async def test_changed_weights_do_not_meet_an_old_cache(agent, prompts, renderer):
    engine = agent.engine
    sampling = Sampling(max_new_tokens=8)
    first = await together(engine, prompts[:2], sampling)
    with torch.no_grad():
        engine.model.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    before = engine.policy_version
    engine.weights_changed(1)
    assert engine.policy_version.weights != before.weights
    longer = [[*p, *d.completion_ids] for p, d in zip(prompts, first, strict=False)]
    second = await together(engine, longer, sampling, turn=1)
    for prompt, done in zip(longer, second, strict=True):
        plain = logprobs_of(engine.model, prompt, list(done.completion_ids))
        assert torch.allclose(plain, torch.tensor(done.logprobs), atol=1e-3)


async def test_top_p_renormalises_over_what_it_keeps(engine, prompts):
    done = (await together(engine, prompts[:1], Sampling(top_p=0.5, max_new_tokens=6)))[0]
    plain = logprobs_of(engine.model, prompts[0], list(done.completion_ids))
    assert all(kept >= whole for kept, whole in zip(done.logprobs, plain.tolist(), strict=True))


async def test_a_prompt_that_fills_the_context_gives_an_empty_completion(engine):
    full = [5] * engine.model.config.max_position_embeddings
    done = await engine.generate(full, Sampling(), key(0))
    assert done.completion_ids == ()
    assert done.finish_reason == "length"


async def test_a_failing_batch_is_an_error_for_its_callers_and_the_engine_lives_on(engine, prompts):
    too_large = [10**9]
    with pytest.raises(EngineError, match="failed"):
        await engine.generate(too_large, Sampling(max_new_tokens=2), key(0))
    assert (await engine.generate(prompts[0], Sampling(max_new_tokens=2), key(1))).completion_ids


async def test_a_straggler_holds_nobody_up_for_longer_than_the_timeout(loaded_policy, prompts):
    engine = TransformersEngine(
        loaded_policy.model, name="s", stop_ids=[2], gather_timeout_s=0.2, base="b"
    )
    with engine.cohort(2):  # the second rollout never comes
        done = await asyncio.wait_for(
            engine.generate(prompts[0], Sampling(max_new_tokens=2), key(0)), timeout=20
        )
    assert done.completion_ids


async def test_an_engine_that_nobody_has_any_more_leaves_the_memory(loaded_policy, prompts):
    """So does its copy of the model: a notebook that loads one agent after another runs on."""
    engine = TransformersEngine(
        loaded_policy.model, name="s", stop_ids=[2], gather_timeout_s=0.2, base="b"
    )
    sampling = Sampling(max_new_tokens=2)
    assert (await engine.generate(prompts[0], sampling, key(0))).completion_ids
    await asyncio.sleep(2 * IDLE_END_S)
    # its thread has ended for want of work, and the next request starts another
    assert (await engine.generate(prompts[0], sampling, key(1))).completion_ids

    gone = weakref.ref(engine)
    del engine
    for _ in range(100):
        gc.collect()
        if gone() is None:
            break
        await asyncio.sleep(0.2)
    assert gone() is None
