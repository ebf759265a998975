"""`eapo models`: what was found of a model, a model that cannot be a policy, and what is here."""

import json
import shutil

import pytest


@pytest.fixture
def deaf_model(saved_model, tmp_path):
    """A model whose chat template leaves the question out. It has no weights."""
    folder = tmp_path / "deaf"
    shutil.copytree(saved_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages if m.role != 'user' %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    return folder


def test_a_model_s_form_is_shown_without_its_weights(run_command, saved_model, tmp_path):
    folder = tmp_path / "no_weights"
    shutil.copytree(saved_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    status, out, err = run_command("models", "check", folder)
    assert status == 0, err
    assert "Hermes JSON" in out
    assert "<tool_call>" in out
    status, out, _ = run_command("models", "check", folder, "--json")
    assert (status, json.loads(out)["blocking"]) == (0, [])


def test_a_model_that_cannot_be_a_policy_has_an_exit_status_of_its_own(run_command, deaf_model):
    status, out, _ = run_command("models", "check", deaf_model)
    assert status == 5
    assert "leaves out a question" in out


def test_a_variable_that_the_template_does_not_use_is_refused(run_command, saved_model):
    status, _, err = run_command("models", "check", saved_model, "--template", "thinking=false")
    assert (status, "has no effect" in err) == (2, True)


def test_the_models_that_are_here_are_listed(run_command):
    status, out, _ = run_command("models", "ls", "--json")
    assert status == 0
    assert {"name": "SmolLM2-135M-Instruct", "place": "embedded"} in json.loads(out)["models"]
