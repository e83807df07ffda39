"""What a command was asked for: which experiments, the overrides laid on their runs, the records they stand on."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lora_xs.errors import UserError
from lora_xs.reporting.evidence import Evidence, read_evidence
from lora_xs.reporting.planned import said_once
from lora_xs.reporting.table import Table, make_table
from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

WORD = "experiment="
RESULTS = Path(__file__).resolve().parents[2] / "results"


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


def evidence_asked(places: Sequence[Path] | None) -> Evidence:
    """All records below `places` (None: this repository's); files passed over are named on standard error."""
    evidence = read_evidence(places or [RESULTS])
    for file in evidence.unreadable:
        print(f"warning: {file} is no whole record, passed over", file=sys.stderr)
    return evidence


def tables_asked(
    words: Sequence[str], places: Sequence[Path] | None, *, statistic: str | None, of: str | None
) -> tuple[Evidence, Iterator[Table]]:
    """The tables that `words` name, each made when it is taken, and their evidence.

    statistic, of: as `make_table` takes them. Raises UserError as `experiments_asked`, for an unknown experiment too.
    """
    names, overrides = experiments_asked(words, experiment_names())
    experiments = [load_experiment(name) for name in names]
    evidence = evidence_asked(places)
    say = said_once()
    return evidence, (
        make_table(one, evidence, overrides, statistic=statistic, of=of, composing=say) for one in experiments
    )
