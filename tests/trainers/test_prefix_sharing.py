"""Rows that begin alike are one sequence to the model, and nothing else changes."""

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorForSeq2Seq
from trl.trainer.utils import add_fused_lm_head

from trainers.batches import pad_rows
from trainers.prefix_sharing import FAMILIES, can_share, pack
from trainers.rows import TrainingRow
from trainers.scored_tokens import figures_of
from trainers.warm_start import SharingCollator

VOCABULARY = 97


def model_of(family: str, **settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        **settings,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return model


@pytest.fixture
def padded(trajectory):
    """A batch of four groups of three rows under one system message, a row of another kind, one
    without a completion and padding: (ids, mask, scored)."""
    generator = torch.Generator().manual_seed(1)

    def some(count):
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    def row_of(prompt, completion):
        # as behind a reply of an expert: not all is sampled, and only that is trained
        mask = tuple(int(place % 4 != 1) for place in range(len(completion)))
        return TrainingRow(
            prompt_ids=prompt,
            completion_ids_T=completion,
            mask_T=mask,
            logprobs_T=None,
            advantage=1.0,
            weight=1.0,
            trajectory=trajectory(()),
        )

    head = some(30)
    rows = []
    for group in range(4):
        question = head + some(5 + group)
        rows += [row_of(question, some(3 + 4 * k)) for k in range(3)]
    rows += [row_of(head[:10], some(9)), row_of(rows[0].prompt_ids, rows[0].completion_ids_T)]
    rows += [row_of(some(12), some(1))]
    batch = pad_rows(rows, multiple=4, pad_id=0)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    return ids, mask, batch["completion_mask"].bool() & batch["tool_mask"].bool()


def as_trl(model, ids, mask, scored):
    num_completion = scored.shape[1]
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :-num_completion] = -100
    found = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True)
    return found.log_probs[:, -num_completion:] * scored, found.entropy[
        :, -num_completion:
    ] * scored


# Cohere's logits are scaled, and its rows are never shared
@pytest.mark.parametrize("family", [*FAMILIES, "cohere"])
@pytest.mark.parametrize("at_once", [64, 5])
def test_logprobs_entropies_and_gradients_are_those_of_padded_rows(family, at_once, padded):
    window = {"sliding_window": None} if family in ("mistral", "qwen2", "qwen3", "phi3") else {}
    model = model_of(family, **window)
    ids, _, scored = padded
    packed = pack(*padded, model.config)
    assert (packed is None) == (family == "cohere")
    assert packed is None or packed.input_ids.numel() < 0.4 * ids.numel()
    weights = torch.rand(scored.shape, generator=torch.Generator().manual_seed(2))
    found = []
    for is_ours in (False, True):
        model.zero_grad()
        if is_ours:
            logprobs, entropies, _ = figures_of(
                model, Accelerator(cpu=True), padded, rows_at_once=at_once, entropy=True
            )
            assert not logprobs[~scored].any()
        else:
            logprobs, entropies = as_trl(model, *padded)
        (logprobs * weights).sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((logprobs.detach(), entropies.detach(), gradients))
    (one, its_entropies, its_gradients), (other, entropies, gradients) = found
    torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropies, its_entropies, rtol=1e-5, atol=1e-5)
    assert len(gradients) == len(its_gradients) > 10
    for mine, wanted in zip(gradients, its_gradients, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-5)
    # and the model is as it was
    assert model(input_ids=ids).logits.shape == (*ids.shape, VOCABULARY)


def test_rows_in_which_nothing_is_scored_have_a_gradient_of_nothing(padded):
    """A process with fewer rows than others computes padding, and waits for them in backward."""
    model = model_of("llama")
    ids, mask, scored = padded
    rows = (ids, mask, torch.zeros_like(scored))
    logprobs, _, _ = figures_of(
        model, Accelerator(cpu=True), rows, rows_at_once=len(ids), entropy=True
    )
    assert not logprobs.any()
    logprobs.sum().backward()
    assert all(not p.grad.any() for p in model.parameters())


def test_what_cannot_be_shared_or_would_not_pay_stays_padded(padded):
    ids, mask, scored = padded
    config = model_of("llama").config
    assert pack(ids, mask, scored, config) is not None
    # rows that have nothing in common but their lengths
    own = torch.randint(1, VOCABULARY, ids.shape, generator=torch.Generator().manual_seed(3))
    assert pack(own, torch.ones_like(mask), torch.ones_like(scored), config) is None
    # padding alone, as a process has it that has fewer rows than others
    assert pack(ids, mask, torch.zeros_like(scored), config) is None


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 16}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        ("gemma3_text", {}),
        ("mamba", {}),
    ],
)
def test_a_model_with_another_kind_of_attention_is_left_alone(family, settings):
    config = AutoConfig.for_model(family, **settings)
    config._attn_implementation = "sdpa"
    assert not can_share(config)
    config = AutoConfig.for_model("llama")
    for implementation, can in (("sdpa", True), ("eager", False), ("flash_attention_2", False)):
        config._attn_implementation = implementation
        assert can_share(config) is can


def test_a_warm_starts_batch_has_the_loss_of_padded_rows(loaded_policy):
    """The trained tokens are not all of a row: replies stand between."""
    model = model_of("llama")
    generator = torch.Generator().manual_seed(4)

    def some(count):
        return torch.randint(1, VOCABULARY, (count,), generator=generator).tolist()

    head = some(20)
    features = []
    for number in range(6):
        first, reply, last = some(3 + number), some(5), some(4)
        ids = [*head, *first, *reply, *last]
        labels = [*[-100] * 20, *first, *[-100] * 5, *last]
        features.append({"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)})
    padded = DataCollatorForSeq2Seq(loaded_policy.tokenizer, label_pad_token_id=-100)
    shared = SharingCollator(padded, model.config)(features)
    plain = padded([dict(row) for row in features])
    assert shared["input_ids"].numel() < 0.7 * plain["input_ids"].numel()
    count = (plain["labels"] != -100).sum()
    assert (shared["labels"] != -100).sum() == count == sum(7 + n for n in range(6))
    assert len(shared["logits_to_keep"]) < 0.8 * shared["input_ids"].shape[1]
    losses = [model(**batch, num_items_in_batch=count).loss for batch in (shared, plain)]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    model.config._attn_implementation = "eager"
    assert set(SharingCollator(padded, model.config)(features)) == set(plain)
