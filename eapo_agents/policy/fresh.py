"""Makes a new, small model with its own tokenizer, as a model folder like any other. It stands in
`fresh`, beside every policy that is trained from it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from eapo_agents.errors import ModelError
from eapo_agents.registry import did_you_mean

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

    from eapo_agents.policy.protocols import Tokenizer

FRESH = "fresh"
"""Folder of the model that was made from nothing."""
Architecture = Literal["llama", "qwen3", "mistral", "gemma3"]
"""What a fresh model can be."""
_MODEL_TYPES: dict[Architecture, str] = {"gemma3": "gemma3_text"}
"""transformers' names, where they are others."""
_PAD, _END = "<|pad|>", "<|end|>"
_ROLES = ("system", "user", "assistant", "tool")
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_MAX_POSITIONS = 1024
_MARKS = re.compile(
    r"<\|[A-Za-z_0-9: /\"]+?\|?>|<[a-z_]+\|>|<｜[^｜]+｜>|</?(?:start|end)_of_\w+>"  # noqa: RUF001
    r"|\[/?[A-Z_]+\]|\[gMASK\]|<sop>|</s>|<eos>|</?tool_(?:call|response)>|</?think>"
)
_NOT_SPECIAL = re.compile(r"</?(?:tool_|think)")


def make_model(
    folder: Path,
    texts: Iterable[str],
    *,
    layers: int,
    width: int,
    heads: int,
    vocabulary: int,
    seed: int,
    architecture: Architecture = "llama",
    chat_template: str | None = None,
) -> None:
    """Write a model with random weights, and a tokenizer learned from the texts.

    Args:
        chat_template: the text of one (`read_chat_template`).

    Raises:
        ValueError: the width is not a multiple of the heads, or the vocabulary is too small.
        ModelError: the chat template cannot be used.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if width % heads:
        raise ValueError(f"The width ({width}) must be a multiple of the heads ({heads}).")
    if chat_template is None:
        tokenizer, num_tokens = _tokenizer(texts, vocabulary)
    else:
        tokenizer, num_tokens = tokenizer_for(chat_template, texts, vocabulary)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(
        config_of(
            layers=layers,
            width=width,
            heads=heads,
            vocabulary=num_tokens,
            architecture=architecture,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    logging.disable_progress_bar()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def config_of(
    *,
    layers: int,
    width: int,
    heads: int,
    vocabulary: int,
    architecture: Architecture = "llama",
    **special_ids: int | None,
) -> PreTrainedConfig:
    """Return the configuration of such a model; of its size where the special ids are not known
    yet."""
    from transformers import AutoConfig

    more = {"query_pre_attn_scalar": width // heads} if architecture == "gemma3" else {}
    return AutoConfig.for_model(
        _MODEL_TYPES.get(architecture, architecture),
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=_MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        **more,
        **special_ids,
    )


def read_chat_template(name: str) -> str:
    """Return the text of a chat template: a file's, or that of TRL's template of this name.

    Raises:
        ModelError: there is no such file or template.
    """
    file = Path(name).expanduser()
    if file.suffix == ".jinja":
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"The chat template '{name}' cannot be read ({error}): give a .jinja file, or the "
                "name of one that TRL ships."
            ) from error
    shipped = chat_templates()
    if name not in shipped:
        raise ModelError(
            f"TRL does not ship a chat template '{name}'. {did_you_mean(name, shipped)}Known: "
            f"{', '.join(shipped)}; or give a .jinja file."
        )
    return shipped[name].read_text(encoding="utf-8")


def chat_templates() -> dict[str, Path]:
    """Return the chat templates that the installed TRL ships, those for training aside."""
    spec = importlib.util.find_spec("trl")
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = sorted(file for place in places for file in Path(place).glob("chat_templates/*.jinja"))
    return {file.stem: file for file in files if not file.stem.endswith("_training")}


def marks_of(chat_template: str) -> tuple[list[str], list[str]]:
    """Return what a template writes that is a token of its own: special tokens, and those of calls
    and thoughts, which are not special."""
    marks = sorted(set(_MARKS.findall(chat_template)))
    own = [mark for mark in marks if _NOT_SPECIAL.match(mark)]
    return [mark for mark in marks if mark not in own], own


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


def tokenizer_for(
    chat_template: str, texts: Iterable[str] = (), vocabulary: int = 0
) -> tuple[Tokenizer, int]:
    """Return a tokenizer with this chat template and its marks as tokens, and its number of tokens.
    Without texts its other tokens are bytes.

    Raises:
        ValueError: the vocabulary has no room for bytes and marks.
        ModelError: the chat template cannot be used.
    """
    from eapo_agents.policy.rendering import ChatRenderer

    special, own = marks_of(chat_template)
    fixed = [_PAD, _END]
    apart = re.compile("|".join(map(re.escape, [*special, *own])) or r"(?!)")
    pieces = (piece for text in texts for piece in apart.split(text) if piece)
    learned = _learned(pieces, vocabulary - len(special) - len(own), fixed)
    made = _fast(learned, chat_template)
    made.add_special_tokens({"additional_special_tokens": special})
    made.add_tokens(own)
    if vocabulary and len(made) > vocabulary:
        raise ValueError(
            f"The vocabulary ({vocabulary}) must have room for bytes and for the marks of the chat "
            f"template, which are {len(made)} tokens."
        )
    end = ChatRenderer(made).end_of_turn_id
    made.eos_token = made.convert_ids_to_tokens(end)
    return made, len(made)


def _tokenizer(texts: Iterable[str], vocabulary: int) -> tuple[Tokenizer, int]:
    roles = [f"<|{role}|>" for role in _ROLES]
    learned = _learned(texts, vocabulary, [_PAD, _END, *roles])
    made = _fast(learned, _TEMPLATE, additional_special_tokens=roles)
    return made, len(made)


def _learned(texts: Iterable[str], vocabulary: int, special: list[str]) -> Backend:
    """Learn byte-level BPE in which every digit is a token.

    What repeats in the texts becomes short. Single digits make arithmetic learnable.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, 0),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=200,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _fast(tokenizer: Backend, chat_template: str, **tokens: list[str]) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=_PAD,
        eos_token=_END,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        **tokens,
    )
