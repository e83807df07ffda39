"""Which experiments a command was asked for, and the overrides laid on their runs."""

from __future__ import annotations

from collections.abc import Sequence

from lora_xs.errors import UserError

WORD = "experiment="


def experiments_asked(words: Sequence[str], every: Sequence[str]) -> tuple[list[str], list[str]]:
    """The named experiments, or all of `every`, and the overrides among `words`; a launcher's are left out.

    Raises UserError for a word that is neither, and for overrides that belong to no named experiment.
    """
    named = [word.removeprefix(WORD) for word in words if word.startswith(WORD)]
    rest = [word for word in words if not word.startswith(WORD)]
    for word in rest:
        if "=" not in word:
            raise UserError(f"{word!r} is no override; write key=value, or {WORD}{word}")
    if rest and not named:
        raise UserError(f"{rest[0]} goes with one experiment; add {WORD}NAME")
    return named or list(every), [word for word in rest if not word.lstrip("+~").startswith("launcher")]
