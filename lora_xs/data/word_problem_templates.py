"""The texts behind `lora_xs.data.word_problems`: fourteen stories of one to four steps, as data."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """`result = left sign right`; left and right name numbers or earlier results, or are a digit."""

    result: str
    left: str
    sign: str
    right: str


@dataclass(frozen=True)
class Template:
    """A story. `numbers`: what is drawn, both bounds included, chosen so that no result is negative or broken.

    `given` are steps taken before the story is told: their results may stand in it, the numbers behind them need not.
    """

    name: str
    question: str
    numbers: Mapping[str, tuple[int, int]]
    steps: tuple[Step, ...]
    given: tuple[Step, ...] = ()


def calculate(steps: Sequence[Step], values: MutableMapping[str, int]) -> list[str]:
    """Put each step's result into `values`; gives the steps as lines, `3 * 4 = 12`."""
    lines = []
    for step in steps:
        left, right = (int(side) if side.isdecimal() else values[side] for side in (step.left, step.right))
        if step.sign == "/":
            result, rest = divmod(left, right)
            if rest:
                raise ArithmeticError(f"{left} / {right} is not whole")
        else:
            result = {"+": left + right, "-": left - right, "*": left * right}[step.sign]
        values[step.result] = result
        lines.append(f"{left} {step.sign} {right} = {result}")
    return lines


def _steps(*written: str) -> tuple[Step, ...]:
    return tuple(Step(result, left, sign, right) for result, _, left, sign, right in map(str.split, written))


NAMES = (
    "Ada", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Katja", "Leo",
    "Mira", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Uwe", "Vera", "Will", "Yara", "Zeno",
)  # fmt: skip
THINGS = (
    "apples", "balls", "beads", "books", "buttons", "cakes", "cards", "coins", "cups", "eggs", "flowers", "hats",
    "lemons", "marbles", "nuts", "pears", "pencils", "plums", "shells", "stamps", "stones", "tickets",
)  # fmt: skip

TEMPLATES = (
    Template(
        "find",
        "{name} has {a} {things} and finds {b} more. How many {things} does {name} have now?",
        {"a": (3, 60), "b": (3, 40)},
        _steps("x = a + b"),
    ),
    Template(
        "boxes",
        "{name} buys {a} boxes with {b} {things} in each. How many {things} does {name} buy?",
        {"a": (2, 12), "b": (2, 15)},
        _steps("x = a * b"),
    ),
    Template(
        "share",
        "{name} shares {t} {things} equally among {b} friends. How many {things} does each friend get?",
        {"q": (2, 12), "b": (2, 9)},
        _steps("x = t / b"),
        given=_steps("t = q * b"),
    ),
    Template(
        "give away",
        "{name} buys {a} bags of {b} {things} and gives {c} {things} to {other}. How many {things} are left?",
        {"a": (2, 9), "b": (4, 12), "c": (2, 7)},
        _steps("x = a * b", "y = x - c"),
    ),
    Template(
        "keep and share",
        "{name} has {t} {things}, keeps {c} of them and shares the others equally among {b} friends. "
        "How many {things} does each friend get?",
        {"q": (2, 9), "b": (2, 8), "c": (2, 12)},
        _steps("x = t - c", "y = x / b"),
        given=_steps("s = q * b", "t = s + c"),
    ),
    Template(
        "earn and spend",
        "{name} earns ${a} a day for {b} days and then spends ${c}. How many dollars does {name} have left?",
        {"a": (5, 15), "b": (2, 7), "c": (2, 9)},
        _steps("x = a * b", "y = x - c"),
    ),
    Template(
        "times as many",
        "{name} has {a} {things}. {other} has {b} times as many. How many {things} do they have together?",
        {"a": (2, 20), "b": (2, 6)},
        _steps("x = a * b", "y = a + x"),
    ),
    Template(
        "half",
        "{name} has {t} {things}, gives half of them to {other} and then buys {c} more. "
        "How many {things} does {name} have now?",
        {"q": (2, 25), "c": (2, 20)},
        _steps("x = t / 2", "y = x + c"),
        given=_steps("t = q * 2"),
    ),
    Template(
        "age",
        "{name} is {a} years old. {other} is {b} years older. How old will {other} be in {c} years?",
        {"a": (4, 30), "b": (2, 12), "c": (2, 15)},
        _steps("x = a + b", "y = x + c"),
    ),
    Template(
        "change",
        "{name} buys {a} {things} at ${b} each and a bag for ${c}, and pays with ${p}. "
        "How many dollars does {name} get back?",
        {"a": (2, 9), "b": (2, 9), "c": (1, 6), "e": (1, 20)},
        _steps("x = a * b", "y = x + c", "z = p - y"),
        given=_steps("x = a * b", "y = x + c", "p = y + e"),
    ),
    Template(
        "two rides",
        "{name} rides {a} km a day for {b} days and then {c} km a day for {d} days. How many km does {name} ride?",
        {"a": (3, 15), "b": (2, 6), "c": (3, 15), "d": (2, 6)},
        _steps("x = a * b", "y = c * d", "z = x + y"),
    ),
    Template(
        "chairs",
        "A hall has {a} rows of {b} chairs. {name} takes {c} chairs out and brings {d} new ones. "
        "How many chairs are in the hall now?",
        {"a": (3, 9), "b": (4, 12), "c": (2, 11), "d": (2, 15)},
        _steps("x = a * b", "y = x - c", "z = y + d"),
    ),
    Template(
        "coupon",
        "{name} buys {a} {things} at ${b} each and {c} toys at ${d} each. A coupon takes ${e} off. "
        "How many dollars does {name} pay?",
        {"a": (2, 6), "b": (2, 6), "c": (2, 5), "d": (2, 6), "e": (1, 7)},
        _steps("x = a * b", "y = c * d", "z = x + y", "w = z - e"),
    ),
    Template(
        "club",
        "A club has {a} teams of {b} players. Then {c} players join and {d} leave. Each player of the club brings "
        "{e} {things}. How many {things} do they bring?",
        {"a": (2, 4), "b": (3, 6), "c": (1, 6), "d": (1, 5), "e": (2, 4)},
        _steps("x = a * b", "y = x + c", "z = y - d", "w = z * e"),
    ),
)
