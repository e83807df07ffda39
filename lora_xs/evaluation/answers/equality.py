"""Whether two plain expressions are equal: at chosen points, to some 400 digits, in bounded time.

Simplifying `a - b` symbolically can run forever. Instead both are computed at fixed complex points, one in each
quadrant so that `sqrt(x**2)` is neither `x` nor `|x|`, with 1400 bits; values are bounded to 1000 bits, so that a
difference is not lost by cancellation. Equality at all points is not a proof, but no two answers that a person would
write agree at all of them by chance. Powers and logarithms are principal ones.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from lora_xs.evaluation.answers.expressions import Expression, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable

BITS, LARGEST = 1400, 1000  # of the arithmetic, and of any value in it
EQUAL, ZERO = 2.0**-200, 2.0**-350  # relative difference of equal values, and size of a computed zero
QUADRANTS = ((-1, 1), (1, 1), (-1, -1), (1, -1))  # the signs of a point's coordinates
ENOUGH = 3  # points at which both must have a value
NEAR = 1e-3  # relative tolerance between numbers that the published scorer reads as expressions


def equal(left: Expression, right: Expression) -> str | None:
    """How the two are equal (`equal expressions`, or numbers `within 0.001`), or None.

    Raises Unreadable where a value leaves the bounds.
    """
    import mpmath

    with mpmath.workprec(BITS):
        names = sorted(left.symbols | right.symbols)
        if not names:
            values = _value(left, {}), _value(right, {})
            return None if None in values else _numbers(*values)
        same = 0
        for signs in QUADRANTS:
            where = {name: _coordinate(signs, index) for index, name in enumerate(names)}
            a, b = _value(left, where), _value(right, where)
            if (a is None) != (b is None):
                return None
            if a is not None:
                if not _same(a, b):
                    return None
                same += 1
        return "equal expressions" if same >= ENOUGH else None


def _numbers(a: Any, b: Any) -> str | None:
    if _same(a, b):
        return "equal expressions"
    real = max(abs(a.imag), abs(b.imag)) <= ZERO
    near = real and abs(a.real - b.real) <= NEAR * max(abs(a.real), abs(b.real))
    return f"expressions within {NEAR:g}" if near else None


def _same(a: Any, b: Any) -> bool:
    size = max(abs(a), abs(b))
    return bool(size <= ZERO or abs(a - b) <= EQUAL * size)


def _coordinate(signs: tuple[int, int], index: int) -> Any:
    """The value of the `index`-th unknown: nearer to the imaginary axis the later, of no special size or angle."""
    import mpmath

    return mpmath.mpc(mpmath.mpf(signs[0] * 17) / (13 + 6 * index), mpmath.mpf(signs[1] * (19 + 4 * index)) / 16)


def _value(expression: Expression, where: dict[str, Any]) -> Any:
    """The expression's complex value, None where it has none (a division by zero)."""
    import mpmath

    what = expression.what
    if isinstance(what, Fraction):
        return _bounded(mpmath.mpf(what.numerator) / what.denominator)
    if not expression.parts:
        return where[what] if what in where else mpmath.mpc({"pi": mpmath.pi, "E": mpmath.e, "I": 1j}[what])
    parts = [_value(part, where) for part in expression.parts]
    if None in parts:
        return None
    try:
        return _bounded(_operation(what)(*parts))
    except (ZeroDivisionError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        return None


def _operation(what: str) -> Callable[..., Any]:
    import mpmath

    operations: dict[str, Callable[..., Any]] = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "**": _power,
        "exp": lambda a: _power(mpmath.mpc(mpmath.e), a),
        "log": mpmath.log,
        "ln": mpmath.log,
        "Abs": abs,
        "abs": abs,
        "cbrt": lambda a: _power(a, mpmath.mpc(mpmath.mpf(1) / 3)),
        "ceiling": mpmath.ceil,
        "factorial": _factorial,
    }
    return operations.get(what) or getattr(mpmath, what)


def _power(base: Any, exponent: Any) -> Any:
    import mpmath

    if base == 0:
        if exponent == 0:
            return mpmath.mpc(1)
        if exponent.real <= 0:
            raise ZeroDivisionError
        return mpmath.mpc(0)
    if abs(exponent) > LARGEST * 10 or abs(exponent * mpmath.log(base)) > LARGEST:
        raise Unreadable("a power out of bounds")
    whole = exponent.imag == 0 and exponent.real == int(exponent.real)
    return mpmath.power(base, int(exponent.real) if whole else exponent)


def _factorial(of: Any) -> Any:
    import mpmath

    if of.imag != 0 or of.real != int(of.real) or not 0 <= of.real <= 150:
        raise Unreadable("a factorial out of bounds")
    return mpmath.mpc(mpmath.factorial(int(of.real)))


def _bounded(value: Any) -> Any:
    import mpmath

    value = mpmath.mpc(value)
    if not (mpmath.isfinite(value) and (value == 0 or abs(mpmath.mag(value)) <= LARGEST)):
        raise Unreadable("a number out of bounds")
    return value
