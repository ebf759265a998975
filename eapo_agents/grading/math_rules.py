"""What stands around Math-Verify: named rules that rewrite an answer before it is compared.

Gold answer and given answer go through the same rules, in this order. Each rule says what it takes
from where; tests/grading/tables/rules.txt has a pair that stays equal and one that stays unequal
for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from eapo_agents.grading.extraction import ascii_digits
from eapo_agents.grading.numerals import chinese_number

_MAX_CHARS = 2_000
_FONT = re.compile(
    r"\\(?:boldsymbol|mathbf|bm|mathbb|mathcal|mathsf|mathit|mathrm|operatorname|pmb|displaystyle"
    r"|textstyle|scriptstyle|normalsize|small|large|Large|LARGE|huge|Huge|mathtt|texttt|tt|it|sf|bf"
    r"|rm|boxed|fbox|underline|ensuremath)(?![a-zA-Z])\s*"
)
_TEXT_NUMBER = re.compile(r"\\text\s*\{(\s*[-+\u2212]?\s*\d[^{}]*)\}")
_COLOUR = re.compile(r"\\(?:textcolor|color|colorbox)\s*\{[^{}]*\}")
_LABEL = re.compile(
    r"^(?:\\(?:text|textbf|mathrm|textrm)\s*\{\s*\(?[A-J]\)?[.:)]?\s*\}(?:\\[ ,;:!]|\\q?quad|~|\s)*"
    r"|\([A-J]\)(?:\\[ ,;:!]|\\q?quad|~|\s)+)(?=[\d$\\\-.(])"
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|mbox|hbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(
    r"(?<!\\)\\[,!;:> ]|\\(?:checkmark|q?quad)(?![a-zA-Z])|~|\\hspace\{[^{}]*\}|\\phantom\{[^{}]*\}"
)
_THOUSANDS = re.compile(r"(?<!\d)(\d{1,3})((?:(?:\{,\}|,\\!|\\,)\s*\d{3})+)(?!\d)")
_FRACTION = re.compile(
    r"\\frac\s*(?:(\d)\s*(\d)|\{([^{}]*)\}\s*([\da-zA-Z])|([\da-zA-Z])\s*\{([^{}]*)\})"
)
_MIXED = re.compile(r"(?<![\d.}^_])(-?)(\d+)\s*\\frac\{(\d+)\}\{(\d+)\}")
_PLAIN_MIXED = re.compile(r"(?<![\d.])(-?)(\d+) +(\d+)/(\d+)(?![\d.])")
_CURRENCIES = {"\u20ac": "euros", "\u00a3": "pounds", "\u00a5": "yen", "\u20b9": "rupees"}
_CURRENCY = re.compile("([\u20ac\u00a3\u00a5\u20b9])\\s*(\\d[\\d,]*(?:\\.\\d+)?)")
_ALL_REALS = re.compile(
    r"\\text\s*\{\s*(?:the set of )?(?:all )?real numbers\s*\}|all real numbers"
)
_FRENCH = re.compile(r"([\[\]])([^,;\[\]]+)[,;]([^,;\[\]]+)([\[\]])")
_DOTTED = re.compile(r"\\dot\s*\{?(\d)\}?\s*(\d*)\s*\\dot\s*\{?(\d)\}?")
_SCIENTIFIC = re.compile(r"([-+]?)(1|\d+\.\d+|\d+(?=\{?(?:E|e[-+]?\d\d)))\{?[eE]\}?([-+]?\d+)")
_SCALED = re.compile(
    r"(?<![\d.])(\d+(?:\.\d+)?)\s*(?:\\text\s*\{\s*)?(thousand|million|billion|trillion)\b(?!s)"
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_ROW_GAP = re.compile(r"\\\\\[\s*-?[\d.]+\s*(?:ex|em|pt|mm|cm|in)\s*\]")
_CENTS = re.compile("\\\\text\\s*\\{\\s*\u00a2\\s*\\}|\u00a2")
_LEAD = re.compile(
    r"^(?:(?:\\text\s*\{)?\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*[:=]\s*\}?"
    r"|\\text\s*\{\s*(?:the\s+)?(?:interval|set|solution\s+set|solutions?|range|domain|value)"
    r"(?:\s+(?:is|are|of\s+x))?\s*:?\s*\})\s*(?=\S)",
    re.IGNORECASE,
)
_BUILDER = re.compile(
    r"\\\{\s*([a-zA-Z])\s*(?:\\in\s*\\mathbb\{R\}\s*)?(?:\\mid(?![a-z])|\\vert(?![a-z])|\||:)\s*"
    r"((?:(?!\\in(?![a-z])|\\text|\\[{}]).)*)\\\}"
)
_ORDINAL = re.compile(r"(?<=\d)\s*\^\s*\{?\s*(?:\\text\s*\{)?\s*(?:st|nd|rd|th)\s*\}{0,2}\s*$")
_RADIANS = re.compile(r"\\text\s*\{\s*rad(?:ian)?s?\s*\}\s*$|\s+rad(?:ian)?s?\s*$")
_SIZES = ["\\left", "\\right", "\\middle", "\\bigl", "\\bigr", "\\Bigl", "\\Bigr", "\\big", "\\Big"]
_CHOOSE = re.compile(r"\{?\s*(\w+)\s*\\choose\s*(\w+)\s*\}?")
_SPEECH_END = re.compile(
    "(?:\u3067\u3059|\u3067\u3042\u308b|\uc785\ub2c8\ub2e4|\uc774\ub2e4)?[\u3002\u0964]*$"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?|\((\d+)\))")
DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\u00b0|\\degrees?(?![a-zA-Z])")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_BASE = re.compile(
    r"\(?([0-9A-Fa-f]+)\)?\s*(?:_\s*\{?\s*(?:base\s*)?(\d+|[a-z]+)\s*\}?|\(?\s*(?:in\s+)?base\s*(\d+)\)?)"
)
_LINKS = re.compile(
    r"\s*(?:\\(?:lor|vee)(?![a-z])|,?\s*\\text\s*\{\s*,?\s*(?:or|and)\s*\}|,?\s+(?:or|and)\s+)\s*(?!more|fewer|less)"
)
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_UNICODE = {
    "\u03c0": "\\pi ",
    "\u221e": "\\infty ",
    "\u00d7": "\\times ",
    "\u00b7": "\\cdot ",
    "\u22c5": "\\cdot ",
    "\u00f7": "/",
    "\u2044": "/",
    "\u2215": "/",
    "\u2264": "\\le ",
    "\u2265": "\\ge ",
    "\u2260": "\\ne ",
    "\u222a": "\\cup ",
    "\u2229": "\\cap ",
    "\u2208": "\\in ",
    "\u2205": "\\emptyset ",
    "\u00b1": "\\pm ",
    "\u2213": "\\mp ",
    "\u2026": "\\ldots ",
    "\u3001": ", ",
    "\u03b8": "\\theta ",
    "\u03b1": "\\alpha ",
    "\u03b2": "\\beta ",
    "\u03b3": "\\gamma ",
    "\u03bb": "\\lambda ",
    "\u03c6": "\\phi ",
    "\u03c9": "\\omega ",
    "\u211d": "\\mathbb{R}",
    "\u2261": "\\equiv ",
    "\u27e8": "\\langle ",
    "\u27e9": "\\rangle ",
    "\u230a": "\\lfloor ",
    "\u230b": "\\rfloor ",
    "\u2308": "\\lceil ",
    "\u2309": "\\rceil ",
}
_SUBSCRIPTS = str.maketrans(
    "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089", "0123456789"
)
_ROOTS = {"\u221a": "\\sqrt", "\u221b": "\\sqrt[3]", "\u221c": "\\sqrt[4]"}
_ROOT = re.compile(
    "([\u221a-\u221c])\\s*(?:\\{([^{}]*)\\}|\\(([^()]*)\\)|(\\d+(?:\\.\\d+)?|[a-zA-Z]|\\\\pi))"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which answers are rewritten."""

    name: str
    source: str
    """Who writes so, or who reads it so."""
    rewrite: Callable[[str], str]


def rewrite(text: str) -> str:
    """Return an answer after all rules."""
    text = text[:_MAX_CHARS]
    for rule in RULES:
        text = rule.rewrite(text)
    return text.strip()


def _unicode(text: str) -> str:
    if text.isascii():
        return text
    text = re.sub("[\u2080-\u2089]+", lambda m: f"_{{{m[0].translate(_SUBSCRIPTS)}}}", text)
    text = re.sub("(\\d)\u0305", r"\\overline{\1}", text)
    for old, new in _UNICODE.items():
        text = text.replace(old, new)
    text = _ROOT.sub(lambda m: f"{_ROOTS[m[1]]}{{{m[2] or m[3] or m[4]}}}", text)
    return ascii_digits(text)


def _cents(text: str) -> str:
    return _CENTS.sub(r"\\text{ cents}", text)


def _set_builder(text: str) -> str:
    """Return `{x : a < x < b}` as the inequality."""
    found = _BUILDER.fullmatch(text.strip())
    if found and re.search(r"[<>]|\\[lg]e(?![a-z])", found[2]) and found[1] in found[2]:
        return found[2].strip()
    return text


def _sentence_end(text: str) -> str:
    text = _SPEECH_END.sub("", text.strip().strip("*`").strip())
    text = re.sub(r"(?:\\\\|\\[,;:! ][.,;:?]?|(?<!\\)\\$|\s)+$|^(?:\\\\|=(?!=)|\s)+", "", text)
    text = re.sub(r"^\$+|\$+$|^\\[(\[]|\\[)\]]\s*$", "", text.rstrip(" .,;:?")).strip()
    return text.rstrip(" .,;:?") if not text.endswith(("\\,", "\\;", "\\!", "\\:")) else text


def _dollars(text: str) -> str:
    text = _CURRENCY.sub(lambda m: f"{m[2]}\\text{{ {_CURRENCIES[m[1]]}}}", text)
    return re.sub(r"\\[()\[\]]", "", text.replace("\\$", "").replace("$", ""))


def _sizes(text: str) -> str:
    for old in _SIZES:
        text = re.sub(re.escape(old) + r"(?![a-zA-Z])", "", text)
    return text


def _names(text: str) -> str:
    for old, new in (("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac")):
        text = text.replace(old, new)
    text = re.sub(r"\\frac\s+\{", r"\\frac{", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s+(?=\{)", r"\1", text)
    text = re.sub(r"\\leq?(?![a-zA-Z])|\\leqslant|<=", r"\\le ", text)
    text = re.sub(r"\\geq?(?![a-zA-Z])|\\geqslant|>=", r"\\ge ", text)
    text = re.sub(
        r"(?<![\\a-zA-Z])(sqrt|pi|infty|infinity|sin|cos|tan|ln|log)(?![a-zA-Z])",
        lambda m: "\\" + m[1].replace("infinity", "infty"),
        text,
    )
    text = re.sub(r"\\([lr])brace(?![a-zA-Z])", lambda m: "\\{" if m[1] == "l" else "\\}", text)
    text = re.sub(r"\\log\s*_\s*\{?e\}?(?![a-zA-Z])", r"\\ln", text)
    text = re.sub(r"\\varnothing(?![a-zA-Z])|^\s*\\\{\s*\\\}\s*$", r"\\emptyset ", text)
    text = re.sub(r"\\[dt]?binom\s*(\d)\s*(\d)", r"\\binom{\1}{\2}", text)
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = text if "\\pm" in text else text.replace("\\mp", "\\pm")
    return text.replace("**", "^").replace("*", "\\cdot ")


def _scales(text: str) -> str:
    """Write out powers of ten; `2e-3` is left, which may be 2e minus 3."""
    if found := _SCIENTIFIC.fullmatch(text.strip()):
        return f"{found[1]}{found[2]}\\cdot 10^{{{int(found[3])}}}"

    def written(m: re.Match[str]) -> str:
        text = "\\text{" if "\\text" in m[0] else ""
        return f"{m[1]}\\cdot 10^{{{_SCALES[m[2]]}}}{text}"

    return _SCALED.sub(written, text).replace("\\text{}", "")


def _roots(text: str) -> str:
    text = re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"\\sqrt\s*(\d|[a-zA-Z])", r"\\sqrt{\1}", text)


def _powers(text: str) -> str:
    return re.sub(r"\^\s*(-?\d+)", r"^{\1}", re.sub(r"\^\s*\((-?\d+)\)", r"^{\1}", text))


def _thousands(text: str) -> str:
    text = _THOUSANDS.sub(lambda m: m[1] + re.sub(r"\D", "", m[2]), text)
    if re.fullmatch(r"[-+]?\d{1,3}(?:([ '\u2019])\d{3})(?:\1\d{3})*(?:\.\d+)?", text):
        return re.sub(r"[ '\u2019]", "", text)
    if re.fullmatch(
        r"(?:[a-zA-Z]\s*=\s*)?[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?=\D|$)(?![,\d]).*", text, re.DOTALL
    ):
        head = re.match(r"(?:[a-zA-Z]\s*=\s*)?[-+]?[\d,]+", text)
        assert head is not None
        return head[0].replace(",", "") + text[head.end() :]
    return text


def _spacing(text: str) -> str:
    """Drop spacing, but for what may stand between thousands."""
    return _SPACING.sub(lambda m: m[0] if m[0] in ("\\,", "\\!") else " ", text)


def _fonts(text: str) -> str:
    text = _ALL_REALS.sub(r"\\mathbb{R}", text)
    text = re.sub(r"\\(?:mathbb|mathcal|Bbb)\s*\{?R\}?", r"\\Reals ", text)
    text = _bare(_FONT.sub("", _COLOUR.sub("", text)).replace("\\Reals ", "\\mathbb{R}"))
    number = _TEXT_NUMBER.fullmatch(text)
    return number[1].strip() if number else text


def _bare(text: str) -> str:
    """Drop braces around a whole answer."""
    text = text.strip()
    while text.startswith("{") and text.endswith("}"):
        depth, inside = 0, True
        for index, character in enumerate(text):
            depth += {"{": 1, "}": -1}.get(character, 0)
            inside = inside and (depth > 0 or index == len(text) - 1)
        if not inside:
            break
        text = text[1:-1].strip()
    return text


def _braces(text: str) -> str:
    """Drop braces around a whole answer, and around nothing but a number or letter."""
    text = _bare(text)
    return re.sub(r"(?<![\\a-zA-Z_^}\]])\{([\w.]+)\}", r"\1", text)


def _fractions(text: str) -> str:
    def long(m: re.Match[str]) -> str:
        a, b, c, d, e, f = m.groups()
        top, bottom = (a, b) if a else (c, d) if c is not None else (e, f)
        return f"\\frac{{{top}}}{{{bottom}}}"

    return _FRACTION.sub(long, text)


def _mixed(text: str) -> str:
    text = _MIXED.sub(_mixed_value, text)
    return _PLAIN_MIXED.sub(_mixed_value, text)


def _mixed_value(m: re.Match[str]) -> str:
    if int(m[4]) == 0:
        return m[0]
    value = int(m[2]) * int(m[4]) + int(m[3])
    return f"{m[1]}\\frac{{{value}}}{{{int(m[4])}}}"


def _repeating(text: str) -> str:
    def value(m: re.Match[str]) -> str:
        whole, start, again = m[1] or "0", m[2], m[3] or m[4]
        scale = 10 ** len(start)
        found = Fraction(int(whole + start)) / scale
        found += Fraction(int(again), (10 ** len(again) - 1) * scale)
        return f"\\frac{{{found.numerator}}}{{{found.denominator}}}"

    text = _DOTTED.sub(r"\\overline{\1\2\3}", text)
    return _REPEATING.sub(value, text) if len(text) < 100 else text


def _degrees(text: str) -> str:
    """Drop a final degree sign as a unit; inside a function it is a factor. Radians of pi are what
    they are."""
    if "\\pi" in text:
        text = _RADIANS.sub("", text)
    if not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        text = re.sub(rf"(?:{DEGREES.pattern})\s*$", "", text.strip())
    return re.sub(
        rf"(\d+(?:\.\d+)?)\s*(?:{DEGREES.pattern})", r"{(\1\\cdot\\frac{\\pi}{180})}", text
    )


def _based(text: str) -> str:
    found = _BASE.fullmatch(_TEXT.sub(r"\1", text).strip())
    if not found:
        return text
    base = _BASES.get(found[2] or "", found[2] or found[3])
    if base == "10" and found[1].isdecimal():
        return found[1]
    return f"{found[1].lstrip('0') or '0'}_{{{base}}}".upper() if str(base).isdigit() else text


def _modulus(text: str) -> str:
    return re.sub(
        r"\(?\s*(?:\\pmod|\\p?mod|\\bmod|mod|\\text\s*\{\s*\(?\s*mod)\s*\{?\s*(\w+)\s*\}?\s*\)?\s*\}?\s*\)?",
        r" pmod \1",
        text,
    )


def _intervals(text: str) -> str:
    """Return `]0, 1]` as `(0, 1]`."""
    if not (match := _FRENCH.fullmatch(text.strip())):
        return text
    left, right = "[" if match[1] == "[" else "(", "]" if match[4] == "]" else ")"
    return f"{left}{match[2]},{match[3]}{right}"


def _joined(text: str) -> str:
    return _LINKS.sub(", ", text)


RULES = (
    Rule("unicode", "chat models outside LaTeX", _unicode),
    Rule("row-gaps", "TeX: \\\\[1ex]", lambda t: _ROW_GAP.sub(r"\\\\ ", t)),
    Rule("cents", "MATH's gold answers (5.4 \\text{ cents})", _cents),
    Rule("sentence-end", "the full stop of 'The answer is x.'", _sentence_end),
    Rule("numerals", "chat models in Chinese", chinese_number),
    Rule("lead", "chat models: \\boxed{\\text{Answer: }7}", lambda t: _LEAD.sub("", t.strip())),
    Rule("dollars", "lm-evaluation-harness, minerva_math", _dollars),
    Rule("sizes", "PRM800K, grading/math_normalize.py", _sizes),
    Rule("option-label", "MATH's multiple choice, AMC", lambda t: _LABEL.sub("", t.strip())),
    Rule("fonts", "Math-Verify's issue tracker", _fonts),
    Rule("spacing", "PRM800K, grading/math_normalize.py", _spacing),
    Rule("thousands", "MATH's gold answers (10,\\!080)", _thousands),
    Rule("no-spacing", "as spacing", lambda t: _SPACING.sub(" ", t)),
    Rule("names", "Python and plain text", _names),
    Rule("scales", "programs (1.5e-19), newspapers (2 million)", _scales),
    Rule("roots", "PRM800K; Math-Verify issue 41", _roots),
    Rule("braces", "TeX", _braces),
    Rule("fractions", "PRM800K: \\frac12", _fractions),
    Rule("mixed-numbers", "MATH's gold answers (1\\frac{4}{5})", _mixed),
    Rule("powers", "x^10 as people mean it", _powers),
    Rule("repeating-decimals", "MATH: 0.\\overline{3}", _repeating),
    Rule("degrees", "MATH's gold answers leave them out", _degrees),
    Rule("ordinals", "MATH's gold answers (8\\text{th})", lambda t: _ORDINAL.sub("", t)),
    Rule("modulus", "MATH: \\pmod, (mod 7)", _modulus),
    Rule("bases", "MATH's gold answers (52_8)", _based),
    Rule("intervals", "ISO 80000-2: open ends as turned brackets", _intervals),
    Rule("set-builder", "MATH's solutions; Math-Verify reads no colon", _set_builder),
    Rule("lists", "'2 or 3'", _joined),
)
