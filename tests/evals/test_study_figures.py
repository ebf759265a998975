"""The figures of a study: seeds are paired, spending is counted once, comparisons are corrected."""

import pytest

from evals.plots import evaluation_points
from evals.study import summarise
from evals.study_report import finding_lines, study_page


def runs_of(arm, *afters):
    """A run for each seed, which starts at 10%."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "history": [],
            "evals": [
                {"step": s, "scores": {"solo": {"score": a}}} for s, a in ((0, 0.1), (9, after))
            ],
            "result": None,
        }
        for seed, after in enumerate(afters)
    ]


def test_an_interval_of_few_seeds_stays_between_0_and_100_percent():
    arms = summarise(runs_of("eapo", 0.6, 1.0, 1.0)).arms
    # mean 13/15, standard error 2/15, t(2) = 4.302653
    assert arms["eapo"].ci95 == pytest.approx((13 / 15 - 4.302653 * 2 / 15, 1.0), abs=1e-6)
    assert "[29.3%, 100.0%]" in study_page(summarise(runs_of("eapo", 0.6, 1.0, 1.0))).markdown()


def test_the_gap_is_over_the_seeds_that_were_evaluated_both_ways():
    runs = runs_of("eapo", 0.9, 0.5)
    runs[1]["result"] = {"assisted": {"score": 0.6}}
    arm = summarise(runs).arms["eapo"]
    assert (arm.after, arm.gap) == (pytest.approx(0.7), pytest.approx(0.1))


def test_differences_have_p_values_and_all_of_a_report_are_corrected():
    runs = [
        *runs_of("self-exploration", 0.1, 0.2, 0.3),
        *runs_of("eapo", 0.2, 0.4, 0.6),
        *runs_of("paper", 0.2, 0.1, 0.4),
    ]
    eapo, paper = summarise(runs).differences
    assert eapo.points == pytest.approx(20)
    # t = 0.2 / (0.1 / sqrt(3)) = 2 sqrt(3); with 2 degrees p = 1 - t / sqrt(t^2 + 2)
    assert eapo.p == pytest.approx(1 - (12 / 14) ** 0.5)
    # differences 0.1, -0.1, 0.1: t = 0.5
    assert paper.p == pytest.approx(1 - 0.5 / 2.25**0.5)
    assert eapo.p_holm == pytest.approx(2 * eapo.p)
    assert paper.p_holm == pytest.approx(paper.p)


def test_differences_are_paired_by_seed():
    def run(arm, seed, after):
        evals = [{"step": s, "scores": {"solo": {"score": a}}} for s, a in ((0, 0.1), (9, after))]
        return {"arm": arm, "seed": seed, "history": [], "evals": evals, "result": None}

    runs = [run("self-exploration", s, 0.1 * s) for s in range(3)]
    runs += [run("eapo", s, 0.1 * s + 0.5) for s in (2, 1, 0)] + [run("eapo", 7, 0.0)]
    (difference,) = summarise(runs).differences
    assert difference.seeds == 3
    assert difference.points == pytest.approx(50)
    # equal differences say nothing about other seeds
    assert (difference.ci95, difference.p, difference.p_holm) == (None, None, None)


def test_at_equal_tokens_the_cheaper_run_sets_the_mark():
    def run(arm, tokens_a_step, accuracies):
        history = [{"step": s, "sampled_tokens": tokens_a_step} for s in range(1, 5)]
        evals = [{"step": s, "scores": {"solo": {"score": a}}} for s, a in enumerate(accuracies)]
        return {"arm": arm, "seed": 0, "history": history, "evals": evals, "result": None}

    runs = [run("self-exploration", 10, [0.1, 0.1, 0.1, 0.1, 0.2])]
    runs += [run("eapo", 20, [0.1, 0.3, 0.5, 0.7, 0.9])]
    (difference,) = summarise(runs).differences
    assert difference.points == pytest.approx(70)
    assert difference.at_equal_tokens.points == pytest.approx(30)
    # which the report does not call a fair comparison
    assert "a checkpoint in the middle" in study_page(summarise(runs)).markdown()


def test_what_a_run_cost_is_all_of_it_however_seldom_it_was_evaluated():
    history = [{"step": step, "sampled_tokens": 40, "experts/calls": 3} for step in (1, 2, 3)]
    found = []
    for evaluated in ((), (0,), (0, 2)):
        evals = [{"step": s, "scores": {"solo": {"score": 0.5}}} for s in evaluated]
        run = {"arm": "run", "seed": 0, "history": history, "evals": evals, "result": None}
        figures = summarise([run]).arms["run"]
        found.append((figures.sampled_tokens, figures.expert_calls))
    assert found == [(120, 9)] * 3


def test_distillation_is_a_second_reference_at_equal_expert_calls():
    def one(arm, accuracies, calls, collected=None):
        return {
            "arm": arm,
            "seed": 0,
            "history": [
                {"step": step, "sampled_tokens": 50, "experts/calls": calls} for step in (1, 2)
            ],
            "evals": [
                {"step": step, "scores": {"solo": {"score": accuracy}}}
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
    found = {(d.arm, d.against): d for d in summary.differences}
    assert [pair[1] for pair in found].count("distillation") == 2
    assert ("self-exploration", "distillation") not in found
    assert found["eapo", "distillation"].points == pytest.approx(20)
    # 20 calls: all of eapo's, the first step's of distillation
    assert found["eapo", "distillation"].at_equal_calls.points == pytest.approx(50)
    assert found["eapo", "self-exploration"].at_equal_calls is None
    # what a log cost was spent once, before the first step
    (offline,) = summary.arms["offline"].seeds
    assert (offline.expert_calls, offline.tokens_at) == (10, [0.0, 70.0, 70.0])
    # nor does the plot count each pass over the log again
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


def test_the_report_names_the_runs_that_have_not_ended():
    ended, cut_off = runs_of("eapo", 0.9, 0.1)
    ended["result"] = {"assisted": None}
    told = study_page(summarise([ended, cut_off])).markdown()
    assert "Not finished, and counted here with their last evaluation: eapo, seed 1." in told
    assert "Not finished" not in study_page(summarise([ended])).markdown()


def test_an_evaluation_after_some_steps_is_no_before():
    (run,) = runs_of("run", 0.9)
    run["evals"][0]["step"] = 5
    figures = summarise([run]).arms["run"]
    assert (figures.before, figures.gained_points, figures.after) == (None, None, 0.9)
    line = next(
        line for line in study_page(summarise([run])).markdown().splitlines() if "90" in line
    )
    assert "10.0%" not in line


def test_what_the_traces_of_a_run_had_cost_counts_once_however_often_it_goes_through_them():
    step = {"experts/calls": 4, "experts/withheld": 2, "expert_tokens": 30, "expert_usd": 0.5}
    run = {
        "arm": "logged",
        "seed": 0,
        "history": [{"step": number, "sampled_tokens": 9, **step} for number in (1, 2, 3, 4)],
        "evals": [],
        "result": {"collected": {"expert_calls": 8, "sampled_tokens": 18, "passes": 2}},
    }
    (found,) = summarise([run]).arms["logged"].seeds
    assert (found.expert_calls, found.sampled_tokens, found.calls_withheld) == (8, 18, 4)
    assert (found.expert_tokens, found.expert_usd) == (60, 1.0)
