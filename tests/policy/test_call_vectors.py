# ruff: noqa: E501, RUF001  # texts as models write them
"""Calls as the parsers of serving engines are given them, for each family: what is called and what
is left as text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eapo_agents.policy.formats import FAMILIES, ParsedCall
from eapo_agents.policy.formats import families as F


def tool(name, **properties):
    schema = {key: {"type": kind} for key, kind in properties.items()}
    parameters = {"type": "object", "properties": schema}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    tool(
        "weather",
        city="string",
        days="integer",
        metric="boolean",
        share="number",
        tags="array",
        where="object",
    ),
    tool("now"),
    tool("add", a="number", b="number"),
]
W = ("weather", {"city": "Oslo"})
N = ("now", {})
VECTORS = [
    (
        "hermes one",
        F.HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
        [W],
        "",
    ),
    (
        "hermes two",
        F.HERMES,
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>\n<tool_call>{"name": "now", "arguments": {}}</tool_call>',
        [W, N],
        "",
    ),
    (
        "hermes text",
        F.HERMES,
        'Let me look.\n<tool_call>{"name": "now", "arguments": {}}</tool_call>',
        [N],
        "Let me look.",
    ),
    (
        "hermes unclosed",
        F.HERMES,
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}',
        [W],
        "",
    ),
    (
        "hermes nested",
        F.HERMES,
        '<tool_call>{"name": "weather", "arguments": {"where": {"a": [1, {"b": null}]}, "city": "}{"}}</tool_call>',
        [("weather", {"where": {"a": [1, {"b": None}]}, "city": "}{"})],
        "",
    ),
    (
        "hermes args first",
        F.HERMES,
        '<tool_call>{"arguments": {"city": "Oslo"}, "name": "weather"}</tool_call>',
        [W],
        "",
    ),
    (
        "hermes unicode",
        F.HERMES,
        '<tool_call>{"name": "weather", "arguments": {"city": "\\u6771\\u4eac 東京"}}</tool_call>',
        [("weather", {"city": "東京 東京"})],
        "",
    ),
    (
        "hermes newline in string",
        F.HERMES,
        '<tool_call>{"name": "weather", "arguments": {"city": "a\\nb \\"q\\""}}</tool_call>',
        [("weather", {"city": 'a\nb "q"'})],
        "",
    ),
    (
        "hermes think",
        F.HERMES,
        '<think>maybe <tool_call>{"name":"now","arguments":{}}</tool_call></think>\n<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>',
        [W],
        "",
    ),
    (
        "hermes string args",
        F.HERMES,
        '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
        [W],
        "",
    ),
    (
        "xml one",
        F.FUNCTION_XML,
        "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        [("weather", {"city": "Oslo", "days": 3})],
        "",
    ),
    (
        "xml two",
        F.FUNCTION_XML,
        "<tool_call>\n<function=now>\n</function>\n</tool_call>\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
        [N, W],
        "",
    ),
    (
        "xml types",
        F.FUNCTION_XML,
        '<tool_call>\n<function=weather>\n<parameter=metric>\ntrue\n</parameter>\n<parameter=share>\n0.5\n</parameter>\n<parameter=tags>\n["a", "b"]\n</parameter>\n<parameter=where>\n{"x": 1}\n</parameter>\n</function>\n</tool_call>',
        [("weather", {"metric": True, "share": 0.5, "tags": ["a", "b"], "where": {"x": 1}})],
        "",
    ),
    (
        "xml multiline",
        F.FUNCTION_XML,
        "<tool_call>\n<function=weather>\n<parameter=city>\nline 1\n  line <2>\n</parameter>\n</function>\n</tool_call>",
        [("weather", {"city": "line 1\n  line <2>"})],
        "",
    ),
    (
        "xml text",
        F.FUNCTION_XML,
        "Sure! Let me check.\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        [N],
        "Sure! Let me check.",
    ),
    (
        "xml no wrapper",
        F.FUNCTION_XML,
        "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>",
        [W],
        "",
    ),
    (
        "xml number as string",
        F.FUNCTION_XML,
        "<tool_call>\n<function=weather>\n<parameter=city>\n123\n</parameter>\n</function>\n</tool_call>",
        [("weather", {"city": "123"})],
        "",
    ),
    (
        "xml missing function end",
        F.FUNCTION_XML,
        "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</tool_call>",
        [W],
        "",
    ),
    (
        "glm one",
        F.GLM,
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        [("weather", {"city": "Oslo", "days": 3})],
        "",
    ),
    (
        "glm two",
        F.GLM,
        "I look.<tool_call>now\n</tool_call>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>",
        [N, W],
        "I look.",
    ),
    (
        "glm inline",
        F.GLM,
        "<tool_call>weather<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>",
        [W],
        "",
    ),
    (
        "glm number string",
        F.GLM,
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>123</arg_value>\n</tool_call>",
        [("weather", {"city": "123"})],
        "",
    ),
    ("llama one", F.LLAMA, '{"name": "weather", "parameters": {"city": "Oslo"}}', [W], ""),
    (
        "llama tag",
        F.LLAMA,
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}',
        [W],
        "",
    ),
    ("llama arguments", F.LLAMA, '{"name": "weather", "arguments": {"city": "Oslo"}}', [W], ""),
    (
        "llama semis",
        F.LLAMA,
        '{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "now", "parameters": {}}',
        [W, N],
        "",
    ),
    (
        "llama spaces",
        F.LLAMA,
        '{\n  "name": "weather",\n  "parameters": {\n    "city": "Oslo"\n  }\n}',
        [W],
        "",
    ),
    ("llama plain json", F.LLAMA, '{"city": "Oslo"}', [], '{"city": "Oslo"}'),
    ("llama text", F.LLAMA, "This is a plain answer.", [], "This is a plain answer."),
    (
        "llama braces inside",
        F.LLAMA,
        '{"name": "weather", "parameters": {"city": "{Oslo}"}}',
        [("weather", {"city": "{Oslo}"})],
        "",
    ),
    ("pythonic one", F.PYTHONIC, "[weather(city='Oslo')]", [W], ""),
    (
        "pythonic more",
        F.PYTHONIC,
        "[weather(city='Oslo', days=3, metric=True, where={'a': [1, None]}, tags=['x']), now()]",
        [
            (
                "weather",
                {
                    "city": "Oslo",
                    "days": 3,
                    "metric": True,
                    "where": {"a": [1, None]},
                    "tags": ["x"],
                },
            ),
            N,
        ],
        "",
    ),
    (
        "pythonic escaped",
        F.PYTHONIC,
        "[weather(city='Martha\\'s \"bay\"')]",
        [("weather", {"city": 'Martha\'s "bay"'})],
        "",
    ),
    (
        "pythonic empty",
        F.PYTHONIC,
        "[weather(where={}, tags=[])]",
        [("weather", {"where": {}, "tags": []})],
        "",
    ),
    ("pythonic negative", F.PYTHONIC, "[add(a=-1.5, b=2)]", [("add", {"a": -1.5, "b": 2})], ""),
    ("pythonic tag", F.PYTHONIC, "<|python_start|>[weather(city='Oslo')]<|python_end|>", [W], ""),
    ("pythonic list text", F.PYTHONIC, "[1, 2, 3]", [], "[1, 2, 3]"),
    (
        "lfm2",
        F.LFM2,
        '<|tool_call_start|>[weather(city="Oslo", days=3)]<|tool_call_end|>Checking.',
        [("weather", {"city": "Oslo", "days": 3})],
        "Checking.",
    ),
    (
        "mistral list",
        F.MISTRAL_LIST,
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "now", "arguments": {}}]',
        [W, N],
        "",
    ),
    (
        "mistral list text",
        F.MISTRAL_LIST,
        'Hello[TOOL_CALLS][{"name": "weather", "arguments":{"city": "Oslo"}}]',
        [W],
        "Hello",
    ),
    ("mistral named", F.MISTRAL, '[TOOL_CALLS]weather{"city": "Oslo"}', [W], ""),
    (
        "mistral named two",
        F.MISTRAL,
        '[TOOL_CALLS]add{"a": 3.5, "b": 4}[TOOL_CALLS]weather{"city": "Oslo"}',
        [("add", {"a": 3.5, "b": 4}), W],
        "",
    ),
    ("mistral args", F.MISTRAL, 'Hi[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}', [W], "Hi"),
    (
        "deepseek v3",
        F.DEEPSEEK,
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [W, N],
        "",
    ),
    (
        "deepseek 31",
        F.DEEPSEEK_31,
        'Ok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        [W, N],
        "Ok",
    ),
    (
        "granite",
        F.GRANITE,
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "now", "arguments": {}}]',
        [W, N],
        "",
    ),
    (
        "granite angled",
        F.GRANITE_ANGLED,
        '<tool_call>[{"name": "weather", "arguments": {"city": "Oslo"}}]',
        [W],
        "",
    ),
    (
        "phi",
        F.PHI,
        '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>',
        [W],
        "",
    ),
    (
        "cohere",
        F.COHERE,
        '<|START_THINKING|>I will.<|END_THINKING|><|START_ACTION|>[\n  {"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Oslo"}},\n {"tool_call_id": "1", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        [W, N],
        "",
    ),
    (
        "harmony",
        F.HARMONY,
        '<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
        [W],
        "",
    ),
    (
        "harmony to first",
        F.HARMONY,
        '<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}<|call|>',
        [W],
        "",
    ),
    (
        "harmony preamble",
        F.HARMONY,
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.now<|message|>{}<|call|>",
        [N],
        "I look.",
    ),
    (
        "harmony final",
        F.HARMONY,
        "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>It is 4.",
        [],
        "It is 4.",
    ),
]


@pytest.mark.parametrize(
    ("form", "text", "calls", "content"), [row[1:] for row in VECTORS], ids=[r[0] for r in VECTORS]
)
def test_a_call_is_read_as_it_was_meant(form, text, calls, content):
    turn = form.parse(text, tools=TOOLS)
    assert all(isinstance(call, ParsedCall) for call in turn.calls), turn.calls
    assert [(call.name, dict(call.arguments)) for call in turn.calls] == calls
    assert turn.content.strip() == content


NAMED = [
    (F.MISTRAL, "[TOOL_CALLS]weather[ARGS]%s"),
    (F.DEEPSEEK_31, F.DEEPSEEK_31.written[0] + F.DEEPSEEK_31.written[1] + "%s"),
    (F.HARMONY, "<|channel|>commentary to=functions.weather<|message|>%s<|call|>"),
    (F.HERMES, '<tool_call>{"name": "weather", "arguments": %s}</tool_call>'),
    (F.LLAMA, '{"name": "weather", "parameters": %s}'),
    (F.MISTRAL_LIST, '[TOOL_CALLS][{"name": "weather", "arguments": %s}]'),
]


@pytest.mark.parametrize("arguments", ['{"city": "Oslo"', '{"city": "Os', "null", "[1]", '"x"'])
@pytest.mark.parametrize(("form", "written"), NAMED)
def test_arguments_that_are_no_object_are_refused_and_never_empty(form, written, arguments):
    (call,) = form.parse(written.replace("{name}", "weather") % arguments).calls
    assert not isinstance(call, ParsedCall)
    assert call.reason


def test_an_argument_without_an_end_is_refused_by_its_name():
    text = (
        "<tool_call>\n<function=f>\n<parameter=a>\n1\n<parameter=b>\n2\n</parameter>\n</function>"
    )
    (call,) = F.FUNCTION_XML.parse(text).calls
    assert "'a' has no end before '<parameter=b>'" in call.reason


def test_a_mark_within_an_argument_is_text():
    text = '[TOOL_CALLS]weather{"city": "a[TOOL_CALLS] b"}'
    (call,) = F.MISTRAL.parse(text).calls
    assert call.arguments == {"city": "a[TOOL_CALLS] b"}


def test_python_that_is_no_call_is_text():
    for text in ("[__import__('os').system('x')]", "[1, 2, 3]"):
        assert F.PYTHONIC.parse(text).calls == ()


NAMES = st.from_regex(r"[A-Za-z_]\w{0,12}", fullmatch=True).filter(str.isascii)
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=25),
    st.text(st.sampled_from("\"'\\{}[]()<>|=,:;\n`a1 "), max_size=25),
    st.sampled_from(
        ["\\frac{1}{2}", "\\times", "</tool_call", "12", "true", "null", "[TOOL_CALLS]"]
    ),
)
VALUES = st.recursive(
    TEXTS | st.integers(-(10**6), 10**6) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
KINDS = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}


@settings(max_examples=300, deadline=None)
@given(
    form=st.sampled_from(FAMILIES),
    calls=st.dictionaries(
        NAMES, st.dictionaries(NAMES, VALUES, max_size=3), min_size=1, max_size=3
    ),
)
def test_each_family_s_calls_are_read_back_at_the_end_of_a_turn(form, calls):
    written = [ParsedCall(name=name, arguments=arguments) for name, arguments in calls.items()]
    offered = [
        tool(
            call.name, **{key: KINDS.get(type(one), "null") for key, one in call.arguments.items()}
        )
        for call in written
    ]
    assert form.parse(form.render(written), tools=offered).calls == tuple(written)
