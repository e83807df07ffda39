"""A claim, as data: its words, where it is tested, and the parts that must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lora_xs.reporting.claims.pair import Found
from lora_xs.reporting.material import Material

Pairs = Callable[[Material, bool], Found]


@dataclass(frozen=True)
class Part:
    """words: what must hold. pairs: of an experiment, of ours (True) or of the printed numbers. margin: how much of a
    difference the other way still counts as holding, in the pairs' unit. counted: whether there is no chance in it, so
    that one pair decides. Where pairs name a split (a rank, a step of rank), each split is judged alone, and all must
    hold."""

    words: str
    pairs: Pairs
    margin: float = 0.0
    counted: bool = False


@dataclass(frozen=True)
class Claim:
    """sentence: the assertion, in our words. source: where the papers make it. papers: experiments that are pooled, the
    papers' own setting; own: experiments of this suite's, each a setting of its own. how: what is compared."""

    name: str
    sentence: str
    source: str
    papers: tuple[str, ...]
    own: tuple[str, ...]
    parts: tuple[Part, ...]
    how: str
