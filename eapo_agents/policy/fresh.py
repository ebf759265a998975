"""Makes a new, small Llama with its own tokenizer, as a model folder like any other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eapo_agents.policy.protocols import Tokenizer

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
    from transformers import LlamaConfig, LlamaForCausalLM

    if width % heads:
        raise ValueError(f"The width ({width}) must be a multiple of the heads ({heads}).")
    tokenizer, num_tokens = _tokenizer(texts, vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=num_tokens,
            hidden_size=width,
            intermediate_size=8 * width // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=_MAX_POSITIONS,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


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
