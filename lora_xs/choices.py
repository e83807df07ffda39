"""What the eight multiple-choice tests' questions may offer, by test: a question offers all or some of these labels."""

from __future__ import annotations


def _numbered(word: str, count: int) -> tuple[str, ...]:
    return tuple(f"{word}{number}" for number in range(1, count + 1))


LABELS: dict[str, tuple[str, ...]] = {
    "boolq": ("true", "false"),
    "piqa": _numbered("solution", 2),
    "siqa": _numbered("answer", 5),
    "hellaswag": _numbered("ending", 4),
    "winogrande": _numbered("option", 2),
    "arc_easy": _numbered("answer", 5),
    "arc_challenge": _numbered("answer", 5),
    "obqa": _numbered("answer", 5),
}
