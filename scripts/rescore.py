"""Score stored completions again: no model, no torch, only the text that a run left behind.

python scripts/rescore.py results/runs/…/s42-…                              # every test of a run, by all scorers
python scripts/rescore.py …/generations/gsm8k.jsonl --disagreements         # and the rows they judge differently
python scripts/rescore.py …/generations/math.jsonl --scorer strict --json   # one scorer, as JSON
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError
from lora_xs.evaluation.answers import SCORERS
from lora_xs.exit_status import FINISHED, told_in_a_line


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Score as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(description="Score stored completions again, without a model.")
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="place", help="a run's folder, or a file of completions"
    )
    parser.add_argument("--scorer", action="append", choices=SCORERS, help="ask only this one (may be repeated)")
    parser.add_argument("--disagreements", action="store_true", help="list the rows that the scorers judge differently")
    parser.add_argument("--json", action="store_true", help="print JSON: all numbers and every disagreement")
    options = parser.parse_args(arguments)
    from lora_xs.evaluation.answers.report import generation_files, print_disagreements, print_scores, score_files

    scorers = list(dict.fromkeys(options.scorer or ())) or None
    if options.disagreements and scorers is not None and len(scorers) < 2:
        raise UserError("--disagreements needs two scorers; leave --scorer out, or repeat it")
    files = [file for place in options.places for file in generation_files(place)]
    scored = score_files(files, scorers)
    if options.json:
        print(json.dumps([one.to_json() for one in scored], indent=2, ensure_ascii=False))
        return FINISHED
    print_scores(scored)
    if options.disagreements:
        print_disagreements(scored)
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
