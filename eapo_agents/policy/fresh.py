"""Makes a new, small Llama with its own tokenizer, as a model folder like any other. It stands in
`fresh`, beside every policy that is trained from it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import ModelError

if TYPE_CHECKING:
    from transformers import LlamaConfig

    from eapo_agents.policy.protocols import Tokenizer

FRESH = "fresh"
"""Folder of the model that was made from nothing."""
_PAD, _END = "<|pad|>", "<|end|>"
_ROLES = ("system", "user", "assistant", "tool")
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_MAX_POSITIONS = 1024


def make_model(
    folder: Path,
    texts: Iterable[str],
    *,
    layers: int,
    width: int,
    heads: int,
    vocabulary: int,
    seed: int,
) -> None:
    """Write a Llama with random weights, and a tokenizer learned from the texts.

    Raises:
        ValueError: the width is not a multiple of the heads.
    """
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    if width % heads:
        raise ValueError(f"The width ({width}) must be a multiple of the heads ({heads}).")
    tokenizer, num_tokens = _tokenizer(texts, vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        config_of(
            layers=layers,
            width=width,
            heads=heads,
            vocabulary=num_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    logging.disable_progress_bar()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def config_of(
    *, layers: int, width: int, heads: int, vocabulary: int, **special_ids: int | None
) -> LlamaConfig:
    """Return the configuration of such a model; of its size where the special ids are not known
    yet."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        **special_ids,
    )


def fresh_model_of(policy: str | None) -> str:
    """Return the folder of the fresh model that a policy was trained from.

    Raises:
        ModelError: there is no policy, or no such model beside it.
    """
    if policy is None:
        raise ModelError(
            "The recipe's model is made anew (policy.fresh) and knows nothing: run `eapo "
            "warm-start` or `eapo train` with this recipe first, and give the policy that it "
            "leaves with --policy."
        )
    model = Path(policy).parent / FRESH
    if not (model / "config.json").exists():
        raise ModelError(
            f"The recipe's model is made anew (policy.fresh), and there is none in '{model}', "
            "beside the policy: give a policy that was trained from such a model."
        )
    return str(model)


def _tokenizer(texts: Iterable[str], vocabulary: int) -> tuple[Tokenizer, int]:
    """Learn byte-level BPE in which every digit is a token; return it with its number of tokens.

    What repeats in the texts becomes short. Single digits make arithmetic learnable.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    roles = [f"<|{role}|>" for role in _ROLES]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _END, *roles],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=200,
    )
    tokenizer.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=roles,
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    return made, len(made)
