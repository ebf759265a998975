"""`python -m eapo_agents.grading.math_process`: compares answers with math-verify, one per line.

It reads {"gold", "answer", "cpu_s"} and writes {"equal", "readable", "gold_readable"}, again and
again. The kernel ends it once a comparison has used `cpu_s` of CPU time.

math-verify takes what stands at an answer's start for the answer where it cannot read the rest,
rounds decimals to 6 places and differences to 15. So an answer is read whole or not at all,
decimals are fractions, and what math-verify holds equal must be equal at a few points to 40 digits.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from functools import lru_cache

_MEMORY_BYTES = 2 << 30
_DIGITS = 50
_POINTS = ("7/11", "23/13", "-5/17")
_IMAGINARY = re.compile(r"(?<![a-zA-Z\\])i(?![a-zA-Z])")


@lru_cache(maxsize=2048)
def _parsed(text: str, is_real: bool) -> object:
    import sympy
    from latex2sympy2_extended import latex2sympy

    found = latex2sympy(text, is_real=is_real, convert_degrees=False, normalization_config=None)
    if is_real or not isinstance(found, sympy.Expr):
        return found
    return found.xreplace({s: sympy.I for s in found.free_symbols if str(s) == "i"})


def _is_complex(text: str) -> bool:
    from math_verify.grader import should_treat_as_complex

    return bool(_IMAGINARY.search(text) or should_treat_as_complex(text))


def _read(text: str, is_real: bool) -> object | None:
    try:
        return _parsed(text, is_real)
    except MemoryError:
        raise
    except Exception:  # sympy raises anything on what policies write
        return None


def _reply(gold: str, answer: str) -> dict[str, bool]:
    from math_verify import verify

    # both alike: a real x is not a complex x
    is_real = not (_is_complex(gold) or _is_complex(answer))
    wanted, given = _read(gold, is_real), _read(answer, is_real)
    readable = {"readable": given is not None, "gold_readable": wanted is not None}
    if wanted is None or given is None:
        return {"equal": False, **readable}
    if _is_quick(wanted) and _is_quick(given) and _differ(wanted, given):
        return {"equal": False, **readable}  # math-verify would simplify first, which is slow
    equal = bool(verify([wanted], [given], timeout_seconds=None, allow_set_relation_comp=True))
    return {"equal": equal and not _differ(wanted, given), **readable}


def _is_quick(found: object) -> bool:
    """Whether an expression has values at once: nothing is to be integrated or summed up."""
    import sympy

    slow = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)
    return isinstance(found, sympy.Expr) and not found.has(*slow)


def _differ(one: object, other: object) -> bool:
    """Return whether two expressions have different values at some point."""
    import sympy

    if not isinstance(one, sympy.Expr) or not isinstance(other, sympy.Expr):
        return False
    names = sorted((one.free_symbols | other.free_symbols), key=str)
    for number, point in enumerate(_POINTS):
        values = {s: sympy.Rational(point) + (i + number) for i, s in enumerate(names)}
        try:
            a = sympy.N(one.doit().subs(values), _DIGITS)
            b = sympy.N(other.doit().subs(values), _DIGITS)
            if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
                continue
            if abs(a - b) > sympy.Float(10) ** -40 * max(abs(a), abs(b)):
                return True
        except MemoryError:
            raise
        except Exception:  # no value there
            continue
        if not names:
            break
    return False


def main() -> None:
    """Answer until the input ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like a reply
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _reply("1", "2")  # loads sympy
    while line := sys.stdin.readline():
        message = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, message["cpu_s"])
        reply = _reply(message["gold"], message["answer"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write(json.dumps(reply) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
