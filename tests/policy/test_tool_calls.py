"""The parser takes anything a model may write and never raises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eapo_agents.policy.formats import HERMES
from eapo_agents.policy.tool_calls import InvalidCall, ParsedCall, format_call, parse_turn


def test_several_calls_of_a_turn_come_out_in_order_with_the_text_around_them():
    text = f"Let me ask. {format_call('a', {'query': '1'})}\n{format_call('b', {'query': '2'})}"
    turn = parse_turn(text)
    assert turn.content == "Let me ask."
    assert turn.calls == (
        ParsedCall(name="a", arguments={"query": "1"}),
        ParsedCall(name="b", arguments={"query": "2"}),
    )


def test_a_call_left_open_at_the_end_counts_when_its_json_is_whole():
    turn = parse_turn('<tool_call>{"name": "a", "arguments": {}}')
    assert turn.calls == (ParsedCall(name="a", arguments={}),)


def test_arguments_written_as_a_json_string_are_read():
    turn = parse_turn('<tool_call>{"name": "a", "arguments": "{\\"q\\": 1}"}</tool_call>')
    assert turn.calls == (ParsedCall(name="a", arguments={"q": 1}),)


def test_an_open_call_does_not_swallow_the_next_one():
    turn = parse_turn('<tool_call>{"na <tool_call>{"name": "a", "arguments": {}}</tool_call>')
    assert [type(call) for call in turn.calls] == [InvalidCall, ParsedCall]


def test_broken_calls_are_told_apart_from_text():
    for body in (
        "",
        "{",
        "[]",
        "null",
        '{"name": 3}',
        '{"name": "a", "arguments": [1]}',
        "[" * 9999,
        "solver\n<arg_key>q</arg_key>",
        "<function=solver>",
    ):
        (call,) = parse_turn(f"<tool_call>{body}</tool_call>").calls
        assert isinstance(call, InvalidCall), body
        assert call.reason.endswith((".", "object.")), body


def test_text_without_a_call_is_content():
    assert parse_turn("</tool_call> Answer: 4").calls == ()


pieces = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "{",
        "}",
        '"name"',
        ":",
        '"arguments"',
        '"a"',
        "[",
        "\\",
        "\x00",
    ]
)


@given(st.lists(pieces | st.text(max_size=5), max_size=30).map("".join))
def test_nothing_that_a_model_writes_makes_the_parser_raise(text):
    for call in parse_turn(text).calls:
        assert isinstance(call, ParsedCall | InvalidCall)


def call(inside: str) -> str:
    return f'<tool_call>{{"name": "a", "arguments": {{"q": "{inside}"}}}}</tool_call>'


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("two\nlines", "two\nlines"),
        ("two\\nbold lines", "two\nbold lines"),
        ("\\frac{1}{2} \\times \\sqrt{3}", "\\frac{1}{2} \\times \\sqrt{3}"),
        ("\\\\frac", "\\frac"),
        ("\\theta \\beta \\rho \\neq \\(x\\)", "\\theta \\beta \\rho \\neq \\(x\\)"),
        ("the tag </tool_call> and <think>", "the tag </tool_call> and <think>"),
        ("one <tool_call> here", "one <tool_call> here"),
        ("a,}", "a,}"),
    ],
)
def test_a_query_arrives_as_it_was_meant(written, meant):
    turn = parse_turn(f"Asking. {call(written)} Thanks.")
    assert turn.calls == (ParsedCall(name="a", arguments={"q": meant}),)
    assert turn.content == "Asking.  Thanks."


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ('{"name":"a","arguments":{"q":"1",},}', 1),
        ('{"name":"a","parameters":{"q":"1"}}', 1),
        ('{"type":"function","function":{"name":"a","arguments":{"q":"1"}}}', 1),
        ('```json\n{"name":"a","arguments":{"q":"1"}}\n```', 1),
        ("{'name': 'a', 'arguments': {'q': '1'}}", 1),
        ('{"name":"a","arguments":{"q":"1"}}\n{"name":"a","arguments":{"q":"1"}}', 2),
        ('[{"name":"a","arguments":{"q":"1"}}, {"name":"a","arguments":{"q":"1"}}]', 2),
    ],
)
def test_a_block_is_read_in_the_ways_in_which_models_write_it(body, count):
    found = parse_turn(f"<tool_call>{body}</tool_call>").calls
    assert found == (ParsedCall(name="a", arguments={"q": "1"}),) * count


def test_the_reason_names_the_place_or_the_key():
    (broken,) = parse_turn('<tool_call>{"name": "a" "arguments": {}}</tool_call>').calls
    assert "line 1 column 14" in broken.reason
    (beside,) = parse_turn('<tool_call>{"name": "a", "query": "1"}</tool_call>').calls
    assert '"query"' in beside.reason


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"<think>Maybe {call('1')}? No.</think>Answer: 3", "Answer: 3", 0),
        (f"Maybe {call('1')}? No.</think>Answer: 3", "Answer: 3", 0),
        (f"<think>hm</think>\n{call('1')}", "", 1),
        ("The <tool_call> tag. Answer: 3", "The <tool_call> tag. Answer: 3", 0),
        ("`<tool_call>` and `</tool_call>`. 3", "`<tool_call>` and `</tool_call>`. 3", 0),
        ("The `<think>` tag. Answer: 3", "The `<think>` tag. Answer: 3", 0),
        ("Use the <think> tag. Answer: 3", "Use the <think> tag. Answer: 3", 0),
        ("<think>I close with `</think>`.</think>3", "3", 0),
    ],
)
def test_thoughts_and_mentions_are_no_calls(text, content, calls):
    turn = parse_turn(text)
    assert (turn.content, len(turn.calls)) == (content, calls)


def test_a_thought_that_never_ends_is_no_answer():
    turn = parse_turn(f"<think>Answer: 3 {call('1')}")
    assert turn.unfinished
    assert (turn.content, turn.calls) == ("", ())
    assert HERMES.parse("Answer: 3", in_thought=True).unfinished


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=6), values, max_size=3), min_size=1, max_size=3))
def test_calls_are_read_back_as_they_were_rendered(arguments):
    calls = [ParsedCall(name="solver", arguments=found) for found in arguments]
    assert parse_turn(HERMES.render(calls)).calls == tuple(calls)
