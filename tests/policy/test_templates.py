"""Any chat template: what it teaches is read, what it needs is done, and outside text stays
outside. Each template of the installed TRL is one case."""

from __future__ import annotations

import json
import random
from functools import cache

import pytest
import templates as bench
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from eapo_agents.errors import ModelError, UsageError
from eapo_agents.policy.drafting import end_of_slot, reply, said
from eapo_agents.policy.formats import FAMILIES, InvalidCall, ParsedCall
from eapo_agents.policy.formats.typed import typed_arguments
from eapo_agents.policy.model_check import check_tokenizer
from eapo_agents.policy.rendering import ChatRenderer

TEMPLATES = dict(bench.templates())
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def renderer_of(name: str) -> ChatRenderer:
    return ChatRenderer(bench.make_tokenizer(TEMPLATES.get(name, name)))


def text_of(renderer: ChatRenderer, messages, tools=()) -> str:
    return renderer.tokenizer.decode(renderer.prompt(messages, list(tools)))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_with_calls_works_in_every_template(name):
    assert bench.converse(renderer_of(name)) == ""


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_mark_comes_out_of_a_hostile_reply(name):
    draw = random.Random(name)
    for _ in range(3):
        text = bench.hostile(renderer_of(name), draw)
        assert bench.leaked(renderer_of(name), text) == "", text


WITH_CALLS = [name for name in TEMPLATES if renderer_of(name).template.has_calls]
_KEYS = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30),
    st.sampled_from(
        [
            "\\frac{1}{2} \\times \\nu",
            "a\nb",
            'say "hi"',
            "it's",
            "75001",
            "true",
            "[1, 2]",
            "",
            "é",
        ]
    ),
)
_VALUES = st.recursive(
    st.one_of(st.integers(-9999, 9999), st.booleans(), st.none(), _TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(WITH_CALLS),
    tool=st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True),
    query=_TEXT,
    more=st.dictionaries(_KEYS, _VALUES, max_size=3),
)
def test_a_call_is_read_as_the_template_writes_it(name, tool, query, more):
    renderer = renderer_of(name)
    form = renderer.format
    written = f"{query}{more}"
    # where strings are not escaped, their own end cannot be written within them
    assume("</" not in written or not form.as_text)
    assume("'" not in query or "raw strings" not in form.name)
    arguments = {"query": query, "more": more}
    function = {**bench.TOOL["function"], "name": tool}
    text = renderer.template.arguments_in_text
    turn = {"role": "assistant", "content": ""}
    turn["tool_calls"] = [
        {
            "type": "function",
            "id": "123456789",
            "function": {
                "name": tool,
                "arguments": json.dumps(arguments, ensure_ascii=False) if text else arguments,
            },
        }
    ]
    tools = [{"type": "function", "function": function}]
    frame = renderer.template.render([said("user", 0), turn, reply("EAPOSLOT7X", "c")], tools)
    span = form.find(frame, end_of_slot(frame, 0))
    assert span is not None, frame
    (call,) = span.calls
    assert isinstance(call, ParsedCall), call
    read = typed_arguments(call.name, call.arguments, tools) if form.as_text else call.arguments
    assert (call.name, read) == (tool, arguments)
    ids = renderer.encode_turn(form.render([ParsedCall(name=tool, arguments=arguments)]))
    turn = renderer.parse(renderer.decode(ids), tools=tools)
    assert turn.calls == (ParsedCall(name=tool, arguments=arguments),)


WRITTEN = {
    '<|tool_call|>[{"name": "f", "arguments": {"q": "1"}}]<|/tool_call|>': 1,
    '<|tool_call|>[{"name": "f", "arguments": {"q": "1"}}, {"name": "g", "arguments": {}}]': 2,
    '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "f", "parameters": {"q": "1"}}]'
    "<|END_ACTION|>": 1,
    '[TOOL_CALLS][{"name": "f", "arguments": {"q": "1"}, "id": "abcdefghi"}]': 1,
    '[TOOL_CALLS]f[ARGS]{"q": "1"}[TOOL_CALLS]g[ARGS]{"q": {"a": "[TOOL_CALLS]x"}}': 2,
    '[TOOL_CALLS]f{"q": "1"}': 1,
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"q": "1"}<｜tool▁call▁end｜>'  # noqa: RUF001
    "<｜tool▁calls▁end｜>": 1,  # noqa: RUF001
    '{"name": "f", "parameters": {"q": "1"}}; {"name": "g", "parameters": {}}': 2,
    "<|python_tag|>" + '{"type": "function", "name": "f", "parameters": {"q": "1"}}': 1,
    "[f(q='1'), g(n=2, deep={'a': [1, None]})]": 2,
    "<|tool_call_start|>[f(q='1')]<|tool_call_end|>": 1,
    "<tool_call>f\n<arg_key>q</arg_key>\n<arg_value>1</arg_value></tool_call>": 1,
    "<function=f><parameter=q>1</parameter></function>": 1,
    "<|channel|>analysis<|message|>to=functions.f?<|end|><|start|>assistant<|channel|>commentary"
    ' to=functions.f <|constrain|>json<|message|>{"q": "1"}<|call|>': 1,
}


@pytest.mark.parametrize("text", WRITTEN)
def test_calls_are_read_in_each_form_that_models_write(text):
    found = [form.parse(text).calls for form in FAMILIES]
    read = [calls for calls in found if calls and all(isinstance(c, ParsedCall) for c in calls)]
    assert any(len(calls) == WRITTEN[text] and calls[0].name == "f" for calls in read), found


@pytest.mark.parametrize("form", FAMILIES, ids=lambda form: form.name)
@settings(max_examples=15, deadline=None)
@given(text=st.text(st.sampled_from("<|>[]{}()'\",:=tool_callfnx\\n\n 1"), max_size=60))
def test_nothing_makes_a_form_raise(form, text):
    marks = list(form.marks)
    for call in form.parse("".join([*marks[:1], text, *marks[1:2]])).calls:
        assert isinstance(call, ParsedCall | InvalidCall)


def test_a_template_without_a_system_role_has_it_in_the_first_question():
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
    for template in (
        refusing + CHAT,
        CHAT.replace("in messages", "in messages if m.role != 'system'"),
    ):
        text = text_of(
            renderer_of(template), [SystemMessage("Be brief."), HumanMessage("Q?")], [bench.TOOL]
        )
        assert text.index("Be brief.") < text.index("solver") < text.index("Q?")
        later = [HumanMessage("Q?"), AIMessage("A."), SystemMessage("Be long."), HumanMessage("R?")]
        assert text_of(renderer_of(template), later).index("Be long.") > 0


def test_where_roles_must_alternate_the_replies_of_a_turn_are_one_message():
    renderer = renderer_of("gemma3")
    turn = AIMessage("", tool_calls=[{"name": "solver", "args": {}, "id": str(n)} for n in "ab"])
    replies = [ToolMessage(f"reply {n}", tool_call_id=n) for n in "ab"]
    text = text_of(renderer, [HumanMessage("Q?"), turn, *replies, HumanMessage("And?")])
    assert text.count("<start_of_turn>user") == 2
    assert text.index("reply a") < text.index("reply b") < text.index("And?")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('never') }}",
        "{{ messages[0]['nothing'].upper() }}",
        "no message is in here",
        CHAT.replace("in messages", "in messages if m.role != 'assistant'"),
        "{% for m in messages %}{{ m.content + 1 }}{% endfor %}",
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_a_sentence(template):
    with pytest.raises(ModelError, match="chat template"):
        ChatRenderer(bench.make_tokenizer(template))
    assert check_tokenizer(bench.make_tokenizer(template)).blocking


def test_variables_reach_the_template_and_one_that_it_does_not_use_is_refused():
    made = bench.make_tokenizer(TEMPLATES["qwen3"])
    off = ChatRenderer(made, {"enable_thinking": False})
    assert text_of(off, [HumanMessage("Q?")]).endswith("<think>\n\n</think>\n\n")
    assert not text_of(ChatRenderer(made), [HumanMessage("Q?")]).endswith("</think>\n\n")
    with pytest.raises(UsageError, match="no effect"):
        ChatRenderer(made, {"enable_thoughts": False})


def test_a_prompt_that_opens_a_thought_is_read_so():
    renderer = renderer_of("qwen3_5_think")
    ids = renderer.prompt([HumanMessage("Q?")], [bench.TOOL])
    assert renderer.in_thought(ids)
    call = renderer.format.render([ParsedCall(name="solver", arguments={"query": "1"})])
    cut_off = renderer.parse(f"I could ask {call} but", in_thought=True)
    assert (cut_off.calls, cut_off.content, cut_off.unfinished) == ((), "", True)
    whole = renderer.parse(f"Draft: {call}</think>Answer: 4", in_thought=True)
    assert (whole.calls, whole.content) == ((), "Answer: 4")


@pytest.mark.parametrize("name", ["qwen3_5_think", "gptoss", "muse_glimmer", "gemma"])
def test_an_answer_from_outside_is_read_as_an_answer(name):
    renderer = renderer_of(name)
    in_thought = bool(renderer.template.opened)
    ids = renderer.encode_answer("Answer: <tool_call> 4")
    turn = renderer.parse(renderer.decode(ids), in_thought=in_thought)
    assert (turn.content, turn.calls) == ("Answer: <tool_call> 4", ())
    assert ids[-1] == renderer.end_of_turn_id


def test_a_second_call_is_refused_where_the_template_takes_one():
    renderer = renderer_of("llama3_1")
    calls = [ParsedCall(name="solver", arguments={"query": str(n)}) for n in range(2)]
    first, second = renderer.parse(renderer.format.render(calls)).calls
    assert first == calls[0]
    assert isinstance(second, InvalidCall)
    assert "one call a turn" in second.reason


def test_a_check_shows_the_form_the_notes_and_an_example():
    found = check_tokenizer(bench.make_tokenizer(TEMPLATES["gemma"]))
    assert found.facts["system prompt"] == "in the first question"
    assert any("alternate" in note for note in found.notes)
    assert "<start_of_turn>model" in found.example
    assert not found.blocking
