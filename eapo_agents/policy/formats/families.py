"""The forms of calls that are known, in the order in which a template is compared with them."""

from __future__ import annotations

from eapo_agents.policy.formats.bare import LLAMA
from eapo_agents.policy.formats.base import Format
from eapo_agents.policy.formats.channels import HARMONY, MUSE
from eapo_agents.policy.formats.gemma import GEMMA
from eapo_agents.policy.formats.named import DEEPSEEK, DEEPSEEK_31, MISTRAL
from eapo_agents.policy.formats.pythonic import LFM2, LFM2_RAW, PYTHONIC
from eapo_agents.policy.formats.tagged import TaggedJson
from eapo_agents.policy.formats.xml import FUNCTION_XML, GLM

HERMES = TaggedJson(
    name="Hermes JSON",
    marks=("<tool_call>", "</tool_call>"),
    signs=("<tool_call>",),
    opening="<tool_call>",
    closing="</tool_call>",
)
"""Also the form that our own tool section teaches, where a template teaches none."""
PHI = TaggedJson(
    name="a list of JSON, as Phi-4 writes it",
    marks=("<|tool_call|>", "<|/tool_call|>"),
    ends=("<|/tool_call|>",),
    signs=("<|tool|>",),
    opening="<|tool_call|>",
    closing="<|/tool_call|>",
    in_list=True,
)
GRANITE = TaggedJson(
    name="a list of JSON, as Granite 3 writes it",
    marks=("<|tool_call|>",),
    signs=("<|tool_call|>",),
    opening="<|tool_call|>",
    in_list=True,
)
GRANITE_ANGLED = TaggedJson(
    name="a list of JSON, as Granite 3 writes it behind a tag",
    marks=("<tool_call>",),
    signs=("<tool_call>[",),
    opening="<tool_call>",
    in_list=True,
)
COHERE = TaggedJson(
    name="a list of JSON, as Command R7B and A write it",
    marks=(
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_RESPONSE|>",
        "<|END_RESPONSE|>",
    ),
    ends=("<|END_ACTION|>",),
    signs=("<|START_ACTION|>",),
    thoughts=(("<|START_THINKING|>", "<|END_THINKING|>"),),
    frames=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    opening="<|START_ACTION|>",
    closing="<|END_ACTION|>",
    keys=("tool_name", "parameters"),
    in_list=True,
)
MISTRAL_LIST = TaggedJson(
    name="a list of JSON, as older Mistral models write it",
    marks=("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    signs=("[TOOL_CALLS]",),
    opening="[TOOL_CALLS]",
    in_list=True,
)
FAMILIES: tuple[Format, ...] = (
    HERMES,
    FUNCTION_XML,
    GLM,
    PHI,
    GRANITE,
    GRANITE_ANGLED,
    COHERE,
    DEEPSEEK_31,
    DEEPSEEK,
    MISTRAL,
    MISTRAL_LIST,
    GEMMA,
    HARMONY,
    MUSE,
    LFM2,
    LFM2_RAW,
    LLAMA,
    PYTHONIC,
)
