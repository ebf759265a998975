"""Guard rails: each is crossed by the history that shows what it is for, and by no healthy one."""

import pytest

from eapo_agents.types import Consultation, ConsultationStatus, Problem, Turn
from evals.guards import findings, leak_findings, leaked_consultations, leaked_problems
from evals.study import finding_lines, summarise, t_interval
from evals.study_plots import evaluation_points

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
        ({"train_inference_mismatch": 0.2}, "Train-inference mismatch"),
    ],
)
def test_each_is_crossed_by_what_it_is_for(changes, name):
    (found,) = findings(history(**changes))
    assert found.startswith(name)


def test_groups_of_one_solution_each_are_not_dead():
    taught = {"nonzero_variance_groups": 0.0, "helped/rollouts": 0, "consultation_rate": 0.0}
    assert findings(history(**taught)) == []


def test_reward_up_while_tool_free_accuracy_is_down():
    steps = history(60)
    for step in steps:
        step["reward"] = 0.3 + 0.01 * step["step"]
    evals = [{"step": s, "sampled": {"accuracy": a}} for s, a in ((0, 0.2), (10, 0.6), (60, 0.3))]
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


def test_intervals_are_over_seeds():
    assert t_interval([0.5]) is None
    low, high = t_interval([1.0, 2.0, 3.0])
    assert (round(low, 3), round(high, 3)) == (-0.484, 4.484)


def test_differences_are_paired_by_seed():
    def run(arm, seed, after):
        evals = [{"step": s, "sampled": {"accuracy": a}} for s, a in ((0, 0.1), (9, after))]
        return {"arm": arm, "seed": seed, "history": [], "evals": evals, "result": None}

    runs = [run("self-exploration", s, 0.1 * s) for s in range(3)]
    runs += [run("eapo", s, 0.1 * s + 0.5) for s in (2, 1, 0)] + [run("eapo", 7, 0.0)]
    (difference,) = summarise(runs)["differences"]
    assert difference["seeds"] == 3
    assert difference["points"] == pytest.approx(50)
    assert difference["ci95"] == pytest.approx([50, 50])


def test_at_equal_tokens_the_thriftier_run_sets_the_mark():
    def run(arm, tokens_a_step, accuracies):
        history = [{"step": s, "sampled_tokens": tokens_a_step} for s in range(1, 5)]
        evals = [{"step": s, "sampled": {"accuracy": a}} for s, a in enumerate(accuracies)]
        return {"arm": arm, "seed": 0, "history": history, "evals": evals, "result": None}

    runs = [run("self-exploration", 10, [0.1, 0.1, 0.1, 0.1, 0.2])]
    runs += [run("eapo", 20, [0.1, 0.3, 0.5, 0.7, 0.9])]
    (difference,) = summarise(runs)["differences"]
    assert difference["points"] == pytest.approx(70)
    assert difference["at_equal_tokens"]["points"] == pytest.approx(30)


def test_distillation_is_a_second_reference_at_equal_expert_calls():
    def one(arm, accuracies, calls, collected=None):
        return {
            "arm": arm,
            "seed": 0,
            "history": [
                {"step": step, "sampled_tokens": 50, "experts/calls": calls} for step in (1, 2)
            ],
            "evals": [
                {"step": step, "sampled": {"accuracy": accuracy}}
                for step, accuracy in enumerate(accuracies)
            ],
            "result": {"collected": collected},
        }

    log = {"expert_calls": 10, "sampled_tokens": 70}
    runs = [
        one("self-exploration", [0.1, 0.1, 0.1], 0),
        one("distillation", [0.1, 0.4, 0.7], 20),
        one("eapo", [0.1, 0.3, 0.9], 10),
        one("offline", [0.1, 0.2, 0.5], 10, log),
    ]
    summary = summarise(runs)
    found = {(d["arm"], d["against"]): d for d in summary["differences"]}
    assert [pair[1] for pair in found].count("distillation") == 2
    assert ("self-exploration", "distillation") not in found
    assert found["eapo", "distillation"]["points"] == pytest.approx(20)
    # 20 calls: all of eapo's, the first step's of distillation
    assert found["eapo", "distillation"]["at_equal_calls"]["points"] == pytest.approx(50)
    assert found["eapo", "self-exploration"]["at_equal_calls"] is None
    # what a log cost was spent once, before the first step
    (offline,) = summary["arms"]["offline"]["seeds"]
    assert (offline["expert_calls"], offline["tokens_at"]) == (10, [0.0, 70.0, 70.0])
    # nor does the plot count each pass over the log anew
    points = [point for point in evaluation_points(summary) if point["arm"] == "offline"]
    assert [point["expert calls"] for point in points] == [0.0, 10.0, 10.0]


def test_a_finding_of_several_seeds_is_one_line():
    def run(arm, seed, leaks):
        return {
            "arm": arm,
            "seed": seed,
            "history": [],
            "evals": [],
            "result": {"leaks": {"problems": [], "consultations": leaks}},
        }

    summary = summarise([run("eapo", 0, 0), *(run("eapo", s, s) for s in (2, 3)), run("b", 4, 5)])
    several, one = finding_lines(summary)
    assert several.startswith("eapo, seed 2, and likewise 3: Leak: 2 replies")
    assert one.startswith("b, seed 4: Leak: 5 replies")
