"""A model's text in a terminal: Markdown and mathematics, and nothing that means something else."""

import io

import pytest
from rich.console import Console

from eapo_agents.cli.latex import as_line
from eapo_agents.cli.prose import Prose, blocks_of


def shown(text, *, terminal=True, width=60):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    prose = Prose(console, "policy")
    for start in range(0, len(text), 5):
        prose.write(text[start : start + 5])
    prose.end()
    # what was shown while it was being written is taken away again
    last = out.getvalue().rpartition("\x1b[2K")[2] if terminal else out.getvalue()
    return out.getvalue(), "\n".join(line.rstrip() for line in last.splitlines())


@pytest.mark.parametrize(
    ("latex", "line"),
    [
        (r"\frac{1}{2}x^2 + \sqrt{3}", "(1/2)x² + √3"),
        (r"\dfrac{a+1}{b}", "(a+1)/b"),
        (r"\frac{a}{b}^2", "(a/b)²"),
        (r"x^{n+1}_{12}", "xⁿ⁺¹₁₂"),
        (r"e^{-x/2}", "e^(-x/2)"),
        (r"\sqrt[3]{8} \le \boxed{\frac{3}{4}}", "∛8 ≤ ⟦3/4⟧"),
        (r"\text{if } x \in \mathbb{R}, 50\%", "if x ∈ \u211d, 50%"),
        (r"90^\circ", "90°"),
        (r"x^12", "x¹2"),  # as LaTeX reads it
        (r"\unknown{4}", None),
        (r"\begin{pmatrix}1&2\end{pmatrix}", None),
        (r"\frac{1", None),
        ("{" * 5000, None),
    ],
)
def test_formulas_are_one_line_or_stay_as_they_are(latex, line):
    assert as_line(latex) == line


def test_a_text_keeps_its_meaning_and_hides_nothing():
    _, text = shown(
        "2*3*4 = 24, 2**3 = 8, $5 and $10, <b>b</b> &amp; [here](http://evil) \\(\\foo\\)\n"
        "next `a*b`"
    )
    assert "2*3*4 = 24, 2**3 = 8, $5 and $10, <b>b</b> &amp;" in text
    assert "[here](http://evil) \\(\\foo\\)" in " ".join(text.split())
    assert text.splitlines()[-1] == "next a*b"
    raw, text = shown("a \x1b[31mred \x07 \x1b]8;;http://evil\x07link")
    assert "\x1b[31m" not in raw
    assert "\x07" not in raw
    assert "\x1b]8" not in raw


def test_words_are_whole_at_the_margin_and_a_pipe_gets_the_text_as_it_is():
    words = "These words are long enough that some of them would be broken at the margin."
    _, text = shown(words, width=30)
    assert text.split() == ["policy", *words.split()]
    assert len(text.splitlines()) > 2
    _, text = shown("**a** $x^2$ \\(y\\)", terminal=False)
    assert text == "policy  **a** $x^2$ \\(y\\)"


def test_a_block_ends_where_nothing_can_belong_to_it_any_more():
    code = "```\na\n\nb\n```\n\n"
    listed = "1. one\n\n   more\n2. two\n\n"
    formula = "$$\na\n\nb\n$$\n\n"
    assert blocks_of(f"{code}{listed}{formula}end") == [code, listed, formula, "end"]
    assert blocks_of("1. one\n\n") == ["1. one\n\n"]  # an indented line may follow
