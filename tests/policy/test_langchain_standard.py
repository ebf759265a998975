"""LangChain's own tests of chat models. A script stands for what a trained policy would write; all
else is real.

What cannot be had is declared here, and in docs/chat_model.md.
"""

from __future__ import annotations

import re

import pytest

pytest.importorskip("langchain_tests")
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.fresh import make_model
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.types import Sampling

VALUES = {
    "input": 3,
    "a": 1,
    "b": 2,
    "description": "a company",
    "answer_style": "pirate",
    "location": "San Francisco",
    "setup": "Why did the cat sit on the computer?",
    "punchline": "To keep an eye on the mouse.",
}
"""What the script writes for an argument."""


def write(key, prompt):
    """Call the last tool that is offered, if a person has just spoken; else say something."""
    offered = re.findall(r"^- (\w+)\((.*?)\):", prompt, re.MULTILINE)
    if not offered or "<|tool|>" in prompt:
        return "hello there"
    name, arguments = offered[0]
    names = [argument for argument in arguments.split(", ") if argument]
    asked = re.search(r"named '(.*?)'", prompt)
    values = {**VALUES, "customer_name": asked.group(1) if asked else ""}
    return format_call(name, {argument: values[argument] for argument in names})


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    make_model(folder, ["What is 1 + 2?"], layers=1, width=16, heads=2, vocabulary=300, seed=0)
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(folder))
    return {"engine": ScriptedEngine(renderer, write), "renderer": renderer}


class _Declared:
    """What the policy is, for both suites."""

    @pytest.fixture(autouse=True)
    def _parts(self, parts):
        self.parts = {**parts, "sampling": Sampling(max_new_tokens=500)}

    @property
    def chat_model_class(self):
        return PolicyChatModel

    @property
    def chat_model_params(self):
        return self.parts

    @property
    def standard_chat_model_params(self):
        return {}  # temperature, keys and retries of a service: the recipe sets what there is

    @property
    def supports_model_override(self):
        return False  # the weights are the engine's

    @property
    def supports_json_mode(self):
        return False  # nothing forces what a policy writes


class TestUnit(_Declared, ChatModelUnitTests):
    @pytest.mark.xfail(reason="A model with stop strings is refused: they cut between tokens.")
    def test_standard_params(self, model):
        super().test_standard_params(model)

    @pytest.mark.xfail(reason="A call cannot name other weights: they are the engine's.")
    def test_standard_params_model_override(self, model):
        super().test_standard_params_model_override(model)


class TestIntegration(_Declared, ChatModelIntegrationTests):
    @pytest.mark.xfail(reason="Stop strings are refused: they would cut between tokens.")
    def test_stop_sequence(self, model):
        super().test_stop_sequence(model)
