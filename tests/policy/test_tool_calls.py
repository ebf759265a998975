"""The parser takes anything a model may write and never raises."""

from hypothesis import given
from hypothesis import strategies as st

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
