"""Scores of stored completions as tables: found in run folders or given as files, scored again, printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lora_xs.errors import UserError
from lora_xs.evaluation.answers.families import SCORERS, Scorer
from lora_xs.evaluation.answers.scores import Scores, score_generations

WIDTH = 148  # characters that a table's lines need
SHOWN = 48  # characters of an answer in a list
FOLDER = "generations"  # of a run, with a file a test


@dataclass(frozen=True)
class Scored:
    """A file's scores; `rows` of the test were to be answered, fewer are there where generation was interrupted."""

    file: Path
    rows: int
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """One object, the file's name first."""
        return {"file": str(self.file), "rows": self.rows, **self.scores.to_json()}


def generation_files(place: Path) -> list[Path]:
    """The files of completions of a run's folder, of a folder of such files, or `place` itself.

    Raises UserError where there is none.
    """
    if place.is_file():
        return [place]
    files = sorted((place / FOLDER).glob("*.jsonl")) or sorted(place.glob("*/" + FOLDER + "/*.jsonl"))
    files = files or (sorted(place.glob("*.jsonl")) if place.name == FOLDER else [])
    if not files:
        raise UserError(f"{place}: no {FOLDER}/<test>.jsonl in it; give a run's folder, or a file of completions")
    return files


def score_files(files: Iterable[Path], scorers: Sequence[Scorer] | None = None) -> list[Scored]:
    """Score each file's completions; raises UserError naming the file for one that is damaged, empty or unknown."""
    from lora_xs.evaluation.generation import read_generations

    scored = []
    for file in files:
        header, generations = read_generations(file)
        try:
            scored.append(Scored(file, header["rows"], score_generations(header["test"], generations, scorers)))
        except UserError as mistake:
            raise UserError(f"{file}: {mistake}") from mistake
    return scored


def print_scores(scored: Sequence[Scored]) -> None:
    """A line a file: rows, points ± standard error of every scorer that was asked, and where they differ.

    `unjudged` are the rows that math_verify gave no verdict on.
    """
    asked = [name for name in SCORERS if any(name in one.scores.points for one in scored)]
    others: list[Scorer] = [name for name in asked if name != "strict"] if "strict" in asked else []
    table = Table(
        "test", "n", *asked, "no answer", *(f"{name} ≠ strict" for name in others), "self-compared", "unjudged"
    )
    for one in scored:
        scores = one.scores
        table.add_row(
            scores.test,
            str(scores.n) if scores.n == one.rows else f"{scores.n} of {one.rows}",
            *(_points(scores, name) for name in asked),
            str(scores.no_answer),
            *(str(scores.differing(name, "strict")) for name in others),
            str(scores.self_compared),
            str(scores.unjudged),
        )
    _wide().print(table)


def print_disagreements(scored: Sequence[Scored]) -> None:
    """A line a row on which the scorers are not of one mind: what was read, what was wanted, who says what and why."""
    rows = [(one, row) for one in scored for row in one.scores.disagreements]
    if not rows:
        _wide().print("no disagreements")
        return
    table = Table("row", "answer", "gold", *(f"{name}" for name in rows[0][1].verdicts), title="disagreements")
    for _, row in rows:
        opinions = (f"{'right' if row.verdicts[name] else 'wrong'}: {row.why[name]}" for name in row.verdicts)
        table.add_row(row.id, _shown(row.answer), _shown(row.gold), *map(_shown, opinions))
    _wide().print(table)


def _points(scores: Scores, name: Scorer) -> str:
    return f"{scores.points[name]:.2f} ± {scores.standard_error[name]:.2f}" if name in scores.points else "-"


def _shown(text: str | None) -> Text:
    """A model's text on one line, not as markup, control characters visible."""
    if text is None:
        return Text("-")
    line = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return Text(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")


def _wide() -> Console:
    console = Console()
    # a pipe, or a narrow terminal: wrapped lines are better than cut words
    return console if console.width >= WIDTH else Console(width=WIDTH)
