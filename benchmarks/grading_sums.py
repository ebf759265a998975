"""Random expressions, intervals and sets, close ones, and the ways to write them."""

from __future__ import annotations

import random
from fractions import Fraction

from grading_numbers import Way, number_gold

# --- expressions: polynomials in x and y, and surds p + q * sqrt(r) + s * pi


Terms = tuple[tuple[int, str, int, int], ...]
"""Terms of a sum: number, a constant factor in LaTeX, power of x, power of y."""
CONSTANTS = ("", r"\sqrt{2}", r"\sqrt{3}", r"\pi", "i", r"\sqrt{7}", r"\ln(2)", "e^{2}")


def an_expression(rng: random.Random) -> Terms:
    if rng.randrange(2):
        powers = rng.sample([(i, j) for i in range(4) for j in range(3)], rng.randint(2, 4))
        return tuple((rng.choice([-1, 1]) * rng.randint(1, 30), "", i, j) for i, j in powers)
    constants = rng.sample(CONSTANTS, 2)
    power = rng.choice([0, 0, 1, 2])
    return tuple((rng.choice([-1, 1]) * rng.randint(1, 30), c, power, 0) for c in constants)


def other_expression(terms: Terms, rng: random.Random) -> Terms:
    (number, constant, i, j), *others = terms
    changed = rng.choice(
        [
            (-number, constant, i, j),
            (number + 31, constant, i, j),
            (number + 1 or 77, constant, i, j),
            (number, constant, i + 4, j),
            (number, constant + r"\sqrt{11}", i, j),
            (number * 10, constant, i, j),
        ]
    )
    return (changed, *others)


def written_sum(
    terms: Terms, *, dot: str = "", scale: int = 1, shift: int = 0, plain: bool = False
) -> str:
    parts = []
    for number, constant, i, j in terms:
        x = "" if not i + shift else "x" if i + shift == 1 else f"x^{i + shift}"
        y = "" if not j else "y" if j == 1 else f"y^{j}"
        if plain:
            constant = constant.replace("\\", "").replace("{", "(").replace("}", ")")
        factors = [f for f in (constant, x, y) if f]
        size = abs(number) * scale
        factors = ([str(size)] if size != 1 or not factors else []) + factors
        parts.append(("-" if number < 0 else "+") + dot.join(factors))
    return "".join(parts).removeprefix("+")


def _shuffled(terms: Terms, rng: random.Random) -> Terms:
    return tuple(rng.sample(terms, len(terms)))


EXPRESSIONS: dict[str, Way] = {
    "as it is": lambda t, rng: written_sum(t),
    "other order": lambda t, rng: written_sum(_shuffled(t, rng)),
    "dots": lambda t, rng: written_sum(t, dot=r" \cdot "),
    "stars": lambda t, rng: written_sum(t, dot="*"),
    "halved": lambda t, rng: rf"\frac{{{written_sum(t, scale=2)}}}{{2}}",
    "over x": lambda t, rng: rf"\frac{{{written_sum(t, shift=1)}}}{{x}}",
    "negated": lambda t, rng: f"-({written_sum(tuple((-n, c, i, j) for n, c, i, j in t))})",
    "brackets": lambda t, rng: rf"\left({written_sum(t)}\right)",
    "factor out": lambda t, rng: rf"\frac{{1}}{{3}}({written_sum(t, scale=3)})",
    "split": lambda t, rng: written_sum((*t, (5, "", 0, 0), (-5, "", 0, 0))),
    "spaces": lambda t, rng: written_sum(t).replace("+", " + ").replace("-", " - ").strip(),
    "thin spaces": lambda t, rng: written_sum(t).replace("+", r"\,+\,"),
    "minus sign": lambda t, rng: written_sum(t).replace("-", "\u2212"),
    "power signs": lambda t, rng: (
        written_sum(t).replace("x^2", "x\u00b2").replace("x^3", "x\u00b3")
    ),
    "braced powers": lambda t, rng: written_sum(t).replace("x^2", "x^{2}").replace("y^2", "y^{2}"),
    "double stars": lambda t, rng: (
        None if r"e^" in written_sum(t) else written_sum(t, dot="*").replace("^", "**")
    ),
    "root signs": lambda t, rng: (
        written_sum(t).replace(r"\sqrt{2}", "\u221a2").replace(r"\sqrt{3}", "\u221a3")
    ),
    "pi sign": lambda t, rng: written_sum(t).replace(r"\pi", "\u03c0"),
    "plain roots": lambda t, rng: written_sum(t, plain=True, dot="*"),
    "bold": lambda t, rng: rf"\boldsymbol{{{written_sum(t)}}}",
    "display": lambda t, rng: rf"\displaystyle {written_sum(t)}",
    "named": lambda t, rng: f"z = {written_sum(t)}",
    "function": lambda t, rng: f"f(x) = {written_sum(t)}",
    "full stop": lambda t, rng: f"{written_sum(t)}.",
}


# --- intervals


Ends = tuple[str, str, str, str]


def an_interval(rng: random.Random) -> Ends:
    low, high = sorted(rng.sample(range(-50, 50), 2))
    left, right = rng.choice("(["), rng.choice(")]")
    ends = rng.randrange(4)
    if ends == 0:
        return "(", r"-\infty", str(high), right
    if ends == 1:
        return left, str(low), r"\infty", ")"
    if ends == 2:
        return left, rf"\frac{{{2 * low + 1}}}{{2}}", str(high + 1), right
    return left, str(low), str(high), right


def other_interval(found: Ends, rng: random.Random) -> Ends:
    left, low, high, right = found
    close = [an_interval(rng)]
    if "infty" not in low:
        close.append(("[" if left == "(" else "(", low, high, right))
        if low != "0":
            close.append((left, f"-{low}" if low[0] != "-" else low[1:], high, right))
    if "infty" not in high:
        close.append((left, low, high, "]" if right == ")" else ")"))
        close.append((left, low, str(int(high) + 1), right))
    if "infty" not in low + high:
        close.append(("(", r"-\infty", high, right))
        close.append((left, low, r"\infty", ")"))
    return rng.choice([c for c in close if c != found])


def _inequality(below: dict[str, str], name: str = "x") -> Way:
    def way(v: Ends, rng: random.Random) -> str | None:
        left, low, high, right = v
        if low == r"-\infty":
            return f"{name} {below[right]} {high}" if high != r"\infty" else None
        if high == r"\infty":
            above = below[left].replace("<", ">").replace("le", "ge").replace("\u2264", "\u2265")
            return f"{name} {above} {low}"
        return f"{low} {below[left]} {name} {below[right]} {high}"

    return way


def _between(form: str) -> Way:
    return lambda v, rng: form.replace("LOW", v[1]).replace("HIGH", v[2]).replace(
        "<", v[0]
    ).replace(">", v[3])  # fmt: skip


def _turned(v: Ends, rng: random.Random) -> str:
    left, right = ("[" if v[0] == "[" else "]"), ("]" if v[3] == "]" else "[")
    return f"{left}{v[1]}, {v[2]}{right}"


_BELOW = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
INTERVALS: dict[str, Way] = {
    "as it is": _between("<LOW,HIGH>"),
    "space": _between("<LOW, HIGH>"),
    "sized": _between(r"\left<LOW, HIGH\right>"),
    "big": _between(r"\big<LOW, HIGH\big>"),
    "in": _between(r"x \in <LOW, HIGH>"),
    "in, sized": _between(r"x\in\left<LOW,HIGH\right>"),
    "in sign": _between("x \u2208 <LOW, HIGH>"),
    "named": _between("I = <LOW, HIGH>"),
    "text": _between(r"\text{the interval } <LOW, HIGH>"),
    "plus infinity": lambda v, rng: f"{v[0]}{v[1]}, +\\infty{v[3]}" if v[2] == r"\infty" else None,
    "infinity sign": lambda v, rng: f"{v[0]}{v[1]}, {v[2]}{v[3]}".replace(r"\infty", "\u221e"),
    "minus sign": lambda v, rng: f"{v[0]}{v[1]}, {v[2]}{v[3]}".replace("-", "\u2212"),
    "turned": _turned,
    "inequality": _inequality(_BELOW),
    "inequality, leq": _inequality({"(": "<", "[": r"\leq", ")": "<", "]": r"\leq"}),
    "inequality, signs": _inequality({"(": "<", "[": "\u2264", ")": "<", "]": "\u2264"}),
    "inequality in t": _inequality(_BELOW, "t"),
    "bold": _between(r"\mathbf{<LOW, HIGH>}"),
    "display": _between(r"\displaystyle <LOW, HIGH>"),
    "braces": _between("{<LOW, HIGH>}"),
    "spaced": _between(r"<LOW,\ HIGH>"),
    "thin space": _between(r"<LOW,\,HIGH>"),
    "set": lambda v, rng: (
        rf"\{{x \mid {found}\}}" if (found := _inequality(_BELOW)(v, rng)) else None
    ),
}


# --- sets


def a_set(rng: random.Random) -> tuple[Fraction, ...]:
    made = {
        Fraction(rng.randint(-99, 99), rng.choice([1, 1, 1, 2, 3, 10]))
        for _ in range(rng.randint(2, 5))
    }
    return tuple(sorted(made)) if len(made) > 1 else (Fraction(-3), Fraction(3))


def other_set(values: tuple[Fraction, ...], rng: random.Random) -> tuple[Fraction, ...]:
    first, *rest = values
    close = [
        (*values, values[-1] + rng.randint(1, 9)),
        (-first if -first not in values else first - 7, *rest),
        (first - 1, *rest),
        (first - Fraction(1, 10**7), *rest),
        a_set(rng),
    ]
    if len(values) > 2:
        close.append(tuple(rest))
    return rng.choice([c for c in close if set(c) != set(values)])


def _listed(form: str, comma: str, item: str = "%s") -> Way:
    def way(v: tuple[Fraction, ...], rng: random.Random) -> str:
        mixed = rng.sample(v, len(v))
        return form.replace("ITEMS", comma.join(item % number_gold(x) for x in mixed))

    return way


def _last_joined(form: str, last: str) -> Way:
    def way(v: tuple[Fraction, ...], rng: random.Random) -> str:
        *front, end = [number_gold(x) for x in rng.sample(v, len(v))]
        return form.replace("ITEMS", ", ".join(front) + last + end)

    return way


SETS: dict[str, Way] = {
    "set": _listed(r"\{ITEMS\}", ", "),
    "tight": _listed(r"\{ITEMS\}", ","),
    "sized": _listed(r"\left\{ITEMS\right\}", ", "),
    "spaced": _listed(r"\{\,ITEMS\,\}", ",\\ "),
    "braces by name": _listed(r"\lbrace ITEMS \rbrace", ", "),
    "big": _listed(r"\bigl\{ITEMS\bigr\}", ", "),
    "in": _listed(r"x \in \{ITEMS\}", ", "),
    "in, sized": _listed(r"x\in\left\{ITEMS\right\}", ","),
    "named": _listed(r"S = \{ITEMS\}", ", "),
    "list": _listed("ITEMS", ", "),
    "tight list": _listed("ITEMS", ","),
    "named values": _listed("ITEMS", ", ", "x = %s"),
    "first named": _listed("x = ITEMS", ", "),
    "or": _listed("ITEMS", r" \text{ or } "),
    "and": _last_joined("ITEMS", r" \text{ and } "),
    "comma and": _last_joined("ITEMS", r", \text{ and } "),
    "lor": _listed("ITEMS", r" \lor ", "x = %s"),
    "quad": _listed("ITEMS", r", \quad "),
    "bold": _listed(r"\mathbf{\{ITEMS\}}", ", "),
    "display": _listed(r"\displaystyle \{ITEMS\}", ", "),
    "minus sign": lambda v, rng: _listed(r"\{ITEMS\}", ", ")(v, rng).replace("-", "\u2212"),
    "large fractions": lambda v, rng: _listed(r"\{ITEMS\}", ", ")(v, rng).replace(
        r"\frac", r"\dfrac"
    ),
    "solutions": _listed(r"\text{solutions: } ITEMS", ", "),
    "numbered": lambda v, rng: ", ".join(
        f"x_{n} = {number_gold(x)}" for n, x in enumerate(rng.sample(v, len(v)), 1)
    ),
}
