"""One page of everything: claims, tables, figures, costs and where each number comes from. Trains nothing.

python scripts/report.py                                          # results/ → its report/index.html, tables/, figures/
python scripts/report.py results=results/runs to=/tmp/page.html   # tables and figures go beside the page
python scripts/report.py experiment=mini_math experiment=mini_glue to=/tmp/some.html
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError
from lora_xs.exit_status import FINISHED, told_in_a_line

REPOSITORY = Path(__file__).resolve().parents[1]
KEYS = ("results", "to", "tables", "figures", "processes", "experiment")


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="One HTML page of all tables, figures, claims and costs.")
    words = (
        "results=FOLDER (default results; repeatable), to=FILE (default results/report/index.html), tables=FOLDER, "
        "figures=FOLDER, experiment=NAME (default all; repeatable; with to= alone), processes=N (default: the cores)"
    )
    parser.add_argument("words", nargs="*", metavar="key=value", help=words)
    return _report(parser.parse_args(arguments).words)


def _report(words: Sequence[str]) -> int:
    from lora_xs.reporting.html.make import Places, make_report
    from lora_xs.reporting.planned import said_once
    from lora_xs.reporting.targets import checked_file, checked_folder

    given = _given(words)
    if given["experiment"] and not given["to"]:
        raise UserError("experiment= makes a part of the page, which would replace the whole; add to=FILE elsewhere")
    page = Path(given["to"][-1]) if given["to"] else REPOSITORY / "results" / "report" / "index.html"
    around = page.parent if given["to"] else REPOSITORY / "results"
    if given["experiment"] and around.resolve() == REPOSITORY / "results":
        raise UserError(
            f"to={page}: a part's tables and claims would replace the whole ones there; name another folder"
        )
    places = Places(
        results=tuple(map(Path, given["results"])) or (REPOSITORY / "results",),
        page=checked_file(page, "to="),
        tables=checked_folder(Path(given["tables"][-1]) if given["tables"] else around / "tables", "tables="),
        figures=checked_folder(Path(given["figures"][-1]) if given["figures"] else around / "figures", "figures="),
        claims=around / "claims.md",
    )
    processes = int(given["processes"][-1]) if given["processes"] else None
    evidence = make_report(places, given["experiment"], processes, said_once())
    for file in evidence.unreadable:
        print(f"warning: {file} is no whole record, passed over", file=sys.stderr)
    print(places.tables / "README.md")
    print(f"{'SYNTHETIC ' if evidence.synthetic else ''}{page}: {page.stat().st_size / 1e6:.2f} MB")
    return FINISHED


def _given(words: Sequence[str]) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {key: [] for key in KEYS}
    for word in words:
        key, _, value = word.partition("=")
        if key not in given or not value:
            raise UserError(f"{word!r} is nothing this command takes; write {'=…, '.join(KEYS)}=…")
        given[key].append(value)
    for count in given["processes"]:
        if not (count.isdecimal() and int(count) > 0):
            raise UserError(f"processes={count} is no count; give 1 or more")
    return given


if __name__ == "__main__":
    sys.exit(main())
