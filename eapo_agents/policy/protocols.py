"""What we use of transformers' models and tokenizers, which have no types that mypy accepts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer as Backend


class Tokenizer(Protocol):
    """A fast tokenizer."""

    chat_template: str | None
    all_special_tokens: list[str]
    all_special_ids: list[int]
    eos_token_id: int | None
    pad_token_id: int | None
    added_tokens_decoder: Mapping[int, object]
    backend_tokenizer: Backend

    def encode(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] | None,
        tokenize: bool,
        add_generation_prompt: bool,
        **variables: object,
    ) -> str: ...

    def save_pretrained(self, save_directory: str) -> object: ...


class SavedModel(Protocol):
    """A model that can write itself into a folder."""

    def save_pretrained(self, save_directory: str) -> object: ...


class ModelConfig(Protocol):
    """The sizes of a model with rotary positions, as Llama and its relatives name them."""

    hidden_size: int
    max_position_embeddings: int
    num_attention_heads: int
    num_hidden_layers: int
    num_key_value_heads: int


class ModelOutput(Protocol):
    """What a forward pass returns."""

    logits: torch.Tensor


class CausalModel(Protocol):
    """A causal language model, plain or with a PEFT adapter."""

    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    training: bool

    def eval(self) -> object: ...

    def train(self, mode: bool = True) -> object: ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]: ...

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        past_key_values: object,
        use_cache: bool,
        logits_to_keep: int,
    ) -> ModelOutput: ...
