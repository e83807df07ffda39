"""One page of everything: claims, tables, figures, costs and where each number comes from. Trains nothing.

python scripts/report.py                                          # results/ → its report/index.html, tables/, figures/
python scripts/report.py results=results/runs to=/tmp/page.html   # tables and figures go beside the page
python scripts/report.py experiment=mini_math experiment=mini_glue to=/tmp/some.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError

FINISHED, MISTAKE = 0, 2
REPOSITORY = Path(__file__).resolve().parents[1]
KEYS = ("results", "to", "tables", "figures", "processes", "experiment")


@dataclass(frozen=True)
class Asked:
    """What the command's words say. experiments: all where none is named."""

    results: tuple[Path, ...]
    page: Path
    tables: Path
    figures: Path
    processes: int | None
    experiments: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="One HTML page of all tables, figures, claims and costs.")
    words = (
        "results=FOLDER (default results; repeatable), to=FILE (default results/report/index.html), tables=FOLDER, "
        "figures=FOLDER, experiment=NAME (default all; repeatable), processes=N (default: the cores)"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=words)
    try:
        return _report(_asked(parser.parse_args(arguments).words))
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return MISTAKE


def _asked(words: Sequence[str]) -> Asked:
    given: dict[str, list[str]] = {key: [] for key in KEYS}
    for word in words:
        key, _, value = word.partition("=")
        if key not in given or not value:
            raise UserError(f"{word!r} is nothing this command takes; write {'=…, '.join(KEYS)}=…")
        given[key].append(value)
    count = given["processes"][-1] if given["processes"] else None
    if count is not None and not (count.isdecimal() and int(count) > 0):
        raise UserError(f"processes={count} is no count; give 1 or more")
    page = Path(given["to"][-1]) if given["to"] else REPOSITORY / "results" / "report" / "index.html"
    around = page.parent if given["to"] else REPOSITORY / "results"
    return Asked(
        results=tuple(map(Path, given["results"])) or (REPOSITORY / "results",),
        page=page,
        tables=Path(given["tables"][-1]) if given["tables"] else around / "tables",
        figures=Path(given["figures"][-1]) if given["figures"] else around / "figures",
        processes=int(count) if count is not None else None,
        experiments=tuple(given["experiment"]),
    )


def _report(asked: Asked) -> int:
    from lora_xs.atomic import write_bytes, write_text
    from lora_xs.reporting.claims.checklist import CLAIMS
    from lora_xs.reporting.claims.finding import findings
    from lora_xs.reporting.claims.gather import Gatherer
    from lora_xs.reporting.evidence import read_evidence
    from lora_xs.reporting.figures.files import write_index
    from lora_xs.reporting.html.drawing import draw_all
    from lora_xs.reporting.html.page import page_of
    from lora_xs.reporting.html.render import to_html
    from lora_xs.reporting.material import material_of
    from lora_xs.reporting.table import make_table
    from lora_xs.reporting.written import write_tables
    from lora_xs.sweeps.experiment_file import experiment_names, load_experiment

    every = experiment_names()
    experiments = [load_experiment(name) for name in asked.experiments or every]
    evidence = read_evidence(asked.results)
    for file in evidence.unreadable:
        print(f"warning: {file} is no whole record, passed over", file=sys.stderr)
    say = _once("composing the plans of runs, kept for the next call (all experiments: about 15 s) …")
    tables = [make_table(experiment, evidence, composing=say) for experiment in experiments]
    gather = Gatherer(evidence, say)
    found = [one for claim in CLAIMS for one in findings(claim, gather, only=asked.experiments)]
    drawn = draw_all([material_of(table, evidence) for table in tables], asked.processes)
    for picture in (picture for pictures in drawn.values() for picture in pictures):
        write_bytes(asked.figures / f"{picture.name}.png", picture.png)
    write_index(asked.figures, drawn)
    index = write_tables(tables, evidence, asked.tables, ("md", "tex", "csv"), every, asked.figures)
    text = to_html(page_of(tables, evidence, found, drawn, asked.results))
    write_text(asked.page, text)
    print(index)
    print(f"{'SYNTHETIC ' if evidence.synthetic else ''}{asked.page}: {len(text.encode()) / 1e6:.2f} MB")
    return FINISHED


def _once(text: str) -> Callable[[str], None]:
    said: list[str] = []

    def say(name: str) -> None:
        if not said:
            print(text, file=sys.stderr, flush=True)
        said.append(name)

    return say


if __name__ == "__main__":
    sys.exit(main())
