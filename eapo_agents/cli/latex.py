# ruff: noqa: RUF001  # signs of mathematics look like letters
"""Mathematics in LaTeX as one line of text for a terminal: `\\frac{a}{2}x^{10}` as `(a/2)x¹⁰`.

What is not known here stays as it was written: a line that means something else would be worse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|\s+|\d+(?:[.,]\d+)*|.", re.DOTALL)
_SUPER = str.maketrans("0123456789+-=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ")
_SUB = str.maketrans("0123456789+-=()aeijknmx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑᵢⱼₖₙₘₓ")
_GREEK = (
    "alpha α beta β gamma γ delta δ epsilon ϵ varepsilon ε zeta ζ eta η theta θ vartheta ϑ iota ι "
    "kappa κ lambda λ mu μ nu ν xi ξ pi π rho ρ sigma σ tau τ upsilon υ phi ϕ varphi φ chi χ psi ψ "
    "omega ω Gamma Γ Delta Δ Theta Θ Lambda Λ Xi Ξ Pi Π Sigma Σ Phi Φ Psi Ψ Omega Ω"
)
_SIGNS = (
    "times × cdot · div ÷ pm ± mp ∓ ast * star ⋆ circ ∘ le ≤ leq ≤ leqslant ≤ ge ≥ geq ≥ "
    "geqslant ≥ ne ≠ neq ≠ approx ≈ equiv ≡ sim ∼ cong ≅ propto ∝ infty ∞ partial ∂ nabla ∇ "
    "sum ∑ prod ∏ int ∫ in ∈ notin ∉ ni ∋ subset ⊂ subseteq ⊆ supset ⊃ cup ∪ cap ∩ setminus ∖ "
    "emptyset ∅ varnothing ∅ forall ∀ exists ∃ neg ¬ land ∧ wedge ∧ lor ∨ vee ∨ to → rightarrow → "
    "leftarrow ← Rightarrow ⇒ implies ⇒ Leftarrow ⇐ iff ⇔ Leftrightarrow ⇔ mapsto ↦ ldots … dots … "
    "cdots ⋯ angle ∠ triangle △ perp ⊥ parallel ∥ mid | therefore ∴ because ∵ prime ′ degree ° "
    "ell ℓ hbar ℏ Re ℜ Im ℑ lfloor ⌊ rfloor ⌋ lceil ⌈ rceil ⌉ langle ⟨ rangle ⟩ lvert | rvert | "
    "vert | Vert ‖ lbrace { rbrace } oplus ⊕ otimes ⊗ checkmark ✓"
)
_SIZES = "left right big Big bigl bigr Bigl Bigr bigg Bigg"
_TEXTS = (
    "text textrm textbf textit mathrm mathbf mathit mathsf mathcal operatorname mbox boldsymbol "
    "mathop"
)
_NAMES = (
    "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan log ln lg exp lim max min sup inf "
    "gcd det dim ker deg arg mod"
)
_PAIRS = f"{_GREEK} {_SIGNS}".split()
_SYMBOLS = {
    **dict(zip(_PAIRS[::2], _PAIRS[1::2], strict=True)),
    **{name: name for name in _NAMES.split()},
    **{",": " ", ";": " ", ":": " ", "!": "", " ": " ", "quad": "  ", "qquad": "    "},
    **{sign: sign for sign in "%$&#_{}"},
    **{"|": "‖", "displaystyle": "", "textstyle": "", "limits": "", "nolimits": ""},
    **dict.fromkeys(_SIZES.split(), ""),
}
_PLAIN_GROUPS = set(_TEXTS.split())
_BOARD = dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True))
_CLINGS_AFTER = re.compile(r"[\w(\[√∛∜⟦⁰-⁹²³¹.!/]")
_CLINGS_BEFORE = re.compile(r"[\w)\]/]$")
_ROOTS = {"2": "√", "3": "∛", "4": "∜"}


class _Unknown(Exception):
    """Something that cannot be written in one line here."""


@dataclass(slots=True)
class _Piece:
    """A part of the line."""

    text: str
    is_fraction: bool = False


def as_line(latex: str) -> str | None:
    """Return mathematics as one line of text; None where that is not possible."""
    try:
        found = _line(_Reader(latex))
    except (_Unknown, RecursionError):
        return None
    return " ".join(found.split())


class _Reader:
    """The tokens of a formula, with a look at the next one."""

    def __init__(self, latex: str) -> None:
        self._tokens: Iterator[str] = iter(_TOKEN.findall(latex))
        self.next = next(self._tokens, "")

    def take(self) -> str:
        taken = self.next
        self.next = next(self._tokens, "")
        return taken

    def argument(self) -> str:
        """Return what a macro, a power or an index takes: a group, or one token."""
        while self.next.isspace():
            self.take()
        if not self.next or self.next == "}":
            raise _Unknown
        if self.next == "{":
            self.take()
            return _line(self, "}")
        if self.next.startswith("\\"):
            return _of_macro(self, self.take()[1:]).text
        if self.next.isdigit() and len(self.next) > 1:  # x^12 is x^1 2
            first, rest = self.next[0], self.next[1:]
            self.next = rest
            return first
        return self.take()


def _line(reader: _Reader, until: str = "") -> str:
    """Return the line up to a closing sign, or to the end."""
    pieces: list[_Piece] = []
    while reader.next != until:
        token = reader.take()
        if not token or token in "}&":
            raise _Unknown
        if token == "{":
            pieces.append(_Piece(_line(reader, "}")))
        elif token in "^_":
            if pieces and pieces[-1].is_fraction:
                pieces[-1] = _Piece(f"({pieces[-1].text})")
            pieces.append(_Piece(_raised(reader.argument(), token)))
        elif token.startswith("\\"):
            pieces.append(_of_macro(reader, token[1:]))
        elif token == "'":
            pieces.append(_Piece("′"))
        else:
            pieces.append(_Piece(" " if token.isspace() or token == "~" else token))
    reader.take()
    return _joined(pieces)


def _joined(pieces: list[_Piece]) -> str:
    """Put pieces together; a fraction beside something that it would swallow gets brackets."""
    found = ""
    for index, piece in enumerate(pieces):
        text = piece.text
        if piece.is_fraction:
            after = "".join(other.text for other in pieces[index + 1 :]).lstrip()
            if _CLINGS_AFTER.match(after) or _CLINGS_BEFORE.search(found.rstrip()):
                text = f"({text})"
        found += text
    return found


def _raised(text: str, sign: str) -> str:
    table = _SUPER if sign == "^" else _SUB
    if text in ("∘", "°") and sign == "^":
        return "°"
    if text == "′":
        return text
    compact = text.replace(" ", "")
    if compact and all(ord(character) in table for character in compact):
        return compact.translate(table)
    return f"{sign}{text}" if len(compact) == 1 else f"{sign}({text})"


def _of_macro(reader: _Reader, name: str) -> _Piece:
    if name in _MAKERS:
        return _MAKERS[name](reader)
    if name in _PLAIN_GROUPS:
        return _Piece(reader.argument())
    if name in ("left", "right") and reader.next == ".":
        reader.take()
    if name not in _SYMBOLS:
        raise _Unknown
    text = _SYMBOLS[name]
    # a name is a word of its own: \sin x, and a\times b
    return _Piece(f" {text} " if text.isalpha() and text.isascii() else text)


def _fraction(reader: _Reader) -> _Piece:
    above, below = reader.argument(), reader.argument()
    return _Piece(f"{_atom(above)}/{_atom(below)}", is_fraction=True)


def _root(reader: _Reader) -> _Piece:
    degree = "2"
    if reader.next == "[":
        reader.take()
        degree = _line(reader, "]")
    sign = _ROOTS.get(degree) or f"{_raised(degree, '^')}√"
    return _Piece(f"{sign}{_atom(reader.argument())}")


def _binomial(reader: _Reader) -> _Piece:
    return _Piece(f"C({reader.argument()}, {reader.argument()})")


def _boxed(reader: _Reader) -> _Piece:
    return _Piece(f"⟦{reader.argument()}⟧")


def _board(reader: _Reader) -> _Piece:
    letter = reader.argument()
    if letter not in _BOARD:
        raise _Unknown
    return _Piece(_BOARD[letter])


def _atom(text: str) -> str:
    """Return a text that cannot come apart: in brackets unless it is one number or letter."""
    text = text.strip()
    return text if re.fullmatch(r"\d+(?:[.,]\d+)*|\w|\w[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ₀-₉]", text) else f"({text})"


_MAKERS: dict[str, Callable[[_Reader], _Piece]] = {
    **dict.fromkeys(("frac", "dfrac", "tfrac", "cfrac"), _fraction),
    **dict.fromkeys(("binom", "dbinom", "tbinom"), _binomial),
    "sqrt": _root,
    "boxed": _boxed,
    "fbox": _boxed,
    "mathbb": _board,
}
