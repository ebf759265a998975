"""Guard rails: each is crossed by the history that shows what it is for, and by no healthy one."""

from pathlib import Path

import pytest

from eapo_agents.types import Consultation, ConsultationStatus, Problem, Turn
from evals import guards
from evals.guards import (
    findings,
    healthy_figures,
    healthy_range,
    is_healthy,
    leak_findings,
    leaked_consultations,
    leaked_problems,
)
from evals.run_report import health_table

HEALTHY = {
    "consultation_rate": 0.6,
    "rho": 0.5,
    "entropy": 0.2,
    "copied": 0.1,
    "nonzero_variance_groups": 0.7,
    "train_inference_mismatch": 0.001,
    "helped/rollouts": 4,
    "solo/accuracy": 0.3,
    "reward": 0.5,
}


def history(num_steps: int = 20, **changes) -> list[dict[str, float]]:
    return [{"step": step, **HEALTHY, **changes} for step in range(1, num_steps + 1)]


def test_a_healthy_run_crosses_none():
    assert findings(history()) == []
    assert findings([]) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"entropy": 0.001}, "Entropy collapse"),
        ({"consultation_rate": 1.0, "rho": 0.01}, "All ask"),
        ({"consultation_rate": 0.0}, "Nobody asks"),
        ({"copied": 0.9}, "Copying"),
        ({"nonzero_variance_groups": 0.02}, "Dead groups"),
        ({"left_out/helped_answers": 3}, "Left out: 3.0 right answers"),
        ({"left_out/tokens": 5, "sampled_tokens": 10}, "Left out: 50% of the sampled tokens"),
        ({"train_inference_mismatch": 0.2}, "Train-inference mismatch"),
    ],
)
def test_each_is_crossed_by_what_it_is_for(changes, name):
    (found,) = findings(history(**changes))
    assert found.startswith(name)


def test_a_short_run_is_judged_when_it_has_ended():
    short = history(6, consultation_rate=0.0)
    assert findings(short) == []
    (found,) = findings(short, ended=True)
    assert found.startswith("Nobody asks: 0%")
    assert findings(short[:2], ended=True) == []
    (found,) = findings(history(4, entropy=0.001), ended=True)
    assert "over the last 4 steps" in found


def test_help_that_is_no_longer_used_is_told_from_help_that_is_withheld():
    steps = history(5, **{"helped/accuracy": 0.6}) + history(20, **{"helped/accuracy": 0.1})
    (found,) = findings(steps)
    assert found.startswith("Help is no longer used: rollouts that may ask were right in 60%")
    assert findings([*steps[:5], *history(20, **{"helped/accuracy": 0.5})]) == []
    withheld = {"helped/accuracy": 0.1, "rho": 0.1}
    assert findings([*steps[:5], *history(20, **withheld)]) == []


def test_groups_of_one_solution_each_are_not_dead():
    taught = {"nonzero_variance_groups": 0.0, "helped/rollouts": 0, "consultation_rate": 0.0}
    assert findings(history(**taught)) == []


def test_reward_up_while_tool_free_accuracy_is_down():
    steps = history(60)
    for step in steps:
        step["reward"] = 0.3 + 0.01 * step["step"]
    evals = [
        {"step": s, "scores": {"solo": {"score": a}}} for s, a in ((0, 0.2), (10, 0.6), (60, 0.3))
    ]
    (found,) = findings(steps, evals)
    assert found.startswith("Reward up, accuracy down")
    assert findings(history(60), evals) == []


def named(number: int, question: str, **metadata: str) -> Problem:
    return Problem(
        id=f"p{number}", question=question, answer="4", grader="number", metadata=metadata
    )


def test_a_question_that_is_trained_on_is_a_leak_whatever_its_id():
    trained = [named(1, "What  is 2 + 2?")]
    evaluated = [named(2, "what is 2 + 2?"), named(3, "Else?")]
    assert leaked_problems(evaluated, trained) == ["p2"]


def test_an_evaluation_problem_that_an_expert_was_asked_is_a_leak(trajectory):
    def asked(query: str, reply: str, status=ConsultationStatus.ACCEPTED):
        consultation = Consultation(
            slot=0,
            expert="e",
            query=query,
            reply=reply,
            status=status,
            rho=1.0,
            u=0.0,
        )
        turn = Turn(
            context_ids=(1,),
            completion_ids=(2,),
            logprobs=None,
            parent=None,
            text="",
            finish_reason="stop",
            consultations=(consultation,),
        )
        return trajectory((turn,))

    evaluated = [named(1, "What is 2 + 2 * 3?", expression="2 + 2 * 3")]
    runs = [asked("2 + 2 * 3", "8"), asked("12 + 2 * 3", "18"), asked("x", "so what is 2 + 2 * 3?")]
    runs.append(asked("2 + 2 * 3", "", ConsultationStatus.WITHHELD))
    assert leaked_consultations(evaluated, runs) == 2
    (sentence,) = leak_findings({"problems": [], "consultations": 2})
    assert sentence.startswith("Leak: 2 replies")
    assert leak_findings({"problems": [], "consultations": 0}) == []


def test_the_table_of_healthy_ranges_is_the_code_s():
    page = (Path(__file__).parents[2] / "docs" / "method.md").read_text()
    for name, (_, _, meaning) in guards.HEALTHY.items():
        told = healthy_range(name).removeprefix("healthy ")
        assert f"| `{name}` | {told} | {meaning} |" in page


def test_a_figure_is_judged_where_it_tells_something():
    step = {"step": 1, "entropy": 0.5, "copied": 0.9, "consultation_rate": 0.0, "rho": 0.5}
    step |= {"helped/rollouts": 8, "nonzero_variance_groups": 0.0}
    judged = {name: is_healthy(name, mean) for name, mean in healthy_figures([step]).items()}
    assert judged == {
        "entropy": True,
        "copied": False,
        "consultation_rate": False,
        "nonzero_variance_groups": False,
    }
    # no reply is accepted: nobody need ask; without rollouts no group has a spread
    assert "consultation_rate" not in healthy_figures([step | {"rho": 0.0}])
    assert set(healthy_figures([step | {"helped/rollouts": 0}])) == {"entropy", "copied"}
    assert "out of range" in "".join(health_table([step]).markdown())
