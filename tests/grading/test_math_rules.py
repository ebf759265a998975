"""What stands around math-verify: each rule both ways, equal stays equal and unequal unequal."""

from fractions import Fraction

import pytest

from eapo_agents.errors import UndecidedError
from eapo_agents.grading import grade, grade_answer, math_processes, mathematics, same_answer
from eapo_agents.grading.math_rules import RULES
from eapo_agents.rewards import score_text, scored
from eapo_agents.types import Problem

PAIRS = {
    "unicode": ("2\\sqrt{3}", "2√3", "2√5"),
    "row-gaps": (
        "\\begin{pmatrix}1\\\\3\\end{pmatrix}",
        "\\begin{pmatrix}1\\\\[1ex]3\\end{pmatrix}",
        "\\begin{pmatrix}1\\\\[1ex]4\\end{pmatrix}",
    ),
    "cents": ("5.4\\text{ cents}", "5.4\u00a2", "5.3\u00a2"),
    "sentence-end": ("\\frac{14}{3}", "14/3.", "14/5."),
    "numerals": ("204", "\u4e8c\u767e\u96f6\u56db", "\u4e8c\u767e\u56db\u5341"),
    "lead": ("204", "\\text{Answer: }204", "\\text{Answer: }205"),
    "dollars": ("\\$18.90", "$18.90", "$18.91"),
    "sizes": ("(1,2]", "\\left(1,2\\right]", "\\left(1,2\\right)"),
    "option-label": ("12", "\\textbf{(A)}\\ 12", "\\textbf{(A)}\\ 13"),
    "fonts": ("12", "\\color{red}{\\boldsymbol{12}}", "\\boldsymbol{13}"),
    "spacing": ("3\\sqrt{2}", "3\\;\\sqrt{2}", "3\\;\\sqrt{3}"),
    "thousands": ("10,\\!080", "10,080", "10,08"),
    "no-spacing": ("10080", "10\\,080", "10\\,081"),
    "names": ("\\frac{\\sqrt{2}}{2}", "sqrt(2)/2", "sqrt(3)/2"),
    "scales": ("1.6\\times 10^{-19}", "1.6e-19", "1.6e-18"),
    "roots": ("2\\sqrt{3}", "2\\sqrt(3)", "2\\sqrt(2)"),
    "braces": ("{12}", "12", "{21}"),
    "fractions": ("\\frac{3}{4}", "\\frac34", "\\frac43"),
    "mixed-numbers": ("\\frac{9}{5}", "1\\frac{4}{5}", "2\\frac{4}{5}"),
    "powers": ("x^{10}", "x^10", "x^{1}0"),
    "repeating-decimals": ("\\frac{1}{6}", "0.1\\overline{6}", "0.\\overline{16}"),
    "degrees": ("\\frac{1}{2}", "\\sin 30^\\circ", "\\sin 60^\\circ"),
    "ordinals": ("8", "8^{\\text{th}}", "9^{\\text{th}}"),
    "modulus": ("x \\equiv 3 \\pmod 7", "x\\equiv 3\\text{ (mod 7)}", "x\\equiv 3 \\pmod 5"),
    "bases": ("52_8", "52_{\\text{eight}}", "52_9"),
    "intervals": ("(0,1]", "]0, 1]", "]0, 1["),
    "set-builder": ("[-2,7]", "\\{x : -2 \\le x \\le 7\\}", "\\{x : -2 \\le x < 7\\}"),
    "lists": ("2, 3", "3 or 2", "3 or 4"),
}


def verdict(gold, answer):
    return grade_answer(answer, Problem(id="p", question="q", answer=gold, grader="math")).score


def test_every_rule_has_a_pair_here():
    assert [rule.name for rule in RULES] == list(PAIRS)
    assert all(rule.source for rule in RULES)


@pytest.mark.parametrize("name", PAIRS)
def test_a_rule_keeps_equal_answers_equal_and_unequal_ones_unequal(name):
    gold, equal, unequal = PAIRS[name]
    assert (verdict(gold, gold), verdict(gold, equal), verdict(gold, unequal)) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("gold", "equal", "unequal"),
    [
        ("2+3i", "3 i + 2", "3 i - 2"),
        ("9ix+5", "9\\cdot i\\cdot x+5", "9\\cdot i+5x"),
        ("2i", "(1+i)^2", "(1-i)^2"),
        ("17", "m+n = 10+7 = 17", "m+n = 10+8 = 17"),
        ("12", "AB = 12", "AB = 21"),
        ("12", "x_{1,2} = 12", "x_{1,2} = 2"),
        ("4", "x = 4", "x^2 = 4"),
        ("(3,4)", "P(3,4)", "P(4,3)"),
        ("\\{1,2\\}", "S = \\lbrace 2, 1 \\rbrace", "S = \\lbrace 2, 3 \\rbrace"),
        ("(1,2]", "\\text{the interval } (1,2]", "\\text{the interval } [1,2]"),
        ("90^\\circ", "\\frac{\\pi}{2}\\text{ radians}", "90\\text{ radians}"),
        ("1000", "1.0\\mathrm{e}3", "1.0\\mathrm{e}4"),
        ("(1,2)", "y=2, x=1", "y=1, x=2"),
        ("\\text{June 20}", "June 20", "\\text{June 21}"),
        ("1234", "1'234", "1'235"),
        ("1.5", "\u0661\u066b\u0665", "\u0661\u066c\u0665"),
        ("42", "42 (since 6*7=42)", "41 (since 6*7=42)"),
        ("42", "42 # by counting", "43 # not 42"),
        ("10\\text{ mph}", "10\\text{ miles per hour}", "10\\text{ feet per hour}"),
        ("\\ln 2", "\\log_e 2", "\\log_2 e"),
        ("7", "\\;7\\,.", "\\;8\\,."),
    ],
)
def test_other_ways_to_write_an_answer_are_read_both_ways(gold, equal, unequal):
    assert (verdict(gold, equal), verdict(gold, unequal)) == (1.0, 0.0)


def test_a_comparison_that_uses_up_its_cpu_time_is_undecided_and_no_zero(monkeypatch):
    monkeypatch.setattr(math_processes, "CPU_LIMIT_S", 0.2)
    monkeypatch.setattr(math_processes, "RETRY_CPU_LIMIT_S", 0.4)
    problem = Problem(id="p", question="q", answer="y^2", grader="math")
    text = r"\boxed{\int_0^{\infty} x^x e^{x^x} \sin(x^x) dx}"
    found = grade(text, problem)
    assert (found.undecided, found.correct) == (True, False)
    with pytest.raises(UndecidedError, match="CPU time"):
        score_text(text, problem)
    assert scored(score_text, text, problem) == (None, None)
    assert verdict("3x", "2x+x") == 1.0


def test_votes_group_answers_that_the_grader_holds_equal():
    assert same_answer("1/2", "0.5", "math:lenient")
    assert not same_answer("-3", "3", "number:lenient")
    assert not same_answer("C++", "C", "exact")


def test_exact_values_are_not_rounded():
    value = mathematics.exact_value
    assert value("10^{-20}") == Fraction(1, 10**20)
    assert value("1/0") is None
    assert value("2^3^4") is None
    assert value("9^{9^{9^{9}}}") is None
