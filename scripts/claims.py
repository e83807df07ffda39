"""What the papers assert in words, tested: by our runs, and by the papers' own numbers. Trains nothing.

python scripts/claims.py                                                # every claim, in every setting that has runs
python scripts/claims.py claim=top_beats_bottom --results results/runs
python scripts/claims.py experiment=mini_glue task.train_rows=500 --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError
from lora_xs.exit_status import FINISHED, told_in_a_line

WORD = "claim="


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="The papers' claims, tested on finished runs and printed numbers.")
    words = "claim=NAME, or experiment=NAME and overrides as scripts/sweep.py takes them"
    parser.add_argument("words", nargs="*", metavar="claim=NAME | experiment=NAME | override", help=words)
    parser.add_argument("--results", type=Path, action="append", help="where records lie (default results; repeatable)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every pair")
    options = parser.parse_intermixed_args(arguments)
    return _claims(options)


def _claims(options: argparse.Namespace) -> int:
    from lora_xs.reporting.asked import evidence_asked, experiments_asked
    from lora_xs.reporting.claims.checklist import CLAIMS
    from lora_xs.reporting.claims.finding import findings
    from lora_xs.reporting.claims.gather import Gatherer
    from lora_xs.reporting.claims.show import print_findings
    from lora_xs.reporting.planned import said_once
    from lora_xs.sweeps.show import console_of_output

    names = [word.removeprefix(WORD) for word in options.words if word.startswith(WORD)]
    known = {claim.name: claim for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise UserError(f"{WORD}{name}: no such claim; choose among {', '.join(known)}")
    rest = [word for word in options.words if not word.startswith(WORD)]
    experiments, overrides = experiments_asked(rest, ())
    tested = {name for claim in CLAIMS for name in (*claim.papers, *claim.own)}
    for name in experiments:
        if name not in tested:
            raise UserError(f"experiment={name}: no claim is tested on it; choose among {', '.join(sorted(tested))}")
    gather = Gatherer(evidence_asked(options.results), said_once())
    chosen = [known[name] for name in names] or list(CLAIMS)
    found = [one for claim in chosen for one in findings(claim, gather, overrides, experiments)]
    if options.json:
        print(json.dumps([one.to_json() for one in found], indent=2, ensure_ascii=False))
    else:
        print_findings(found, console_of_output())
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
