"""Watch a sweep, and ask why two runs are not the same. Both only read.

python scripts/plan.py status experiment=table01_glue              # live; Ctrl-C stops the watching alone
python scripts/plan.py status experiment=demo --once --json        # one look, for other programs
python scripts/plan.py diff results/runs/…/s0-1b2c… 9f0e1d2c3b4a   # folders or signatures
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.exit_status import FINISHED, told_in_a_line


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, or 2 for a mistake of the user's."""
    options = _parser().parse_args(arguments)
    return _status(options) if options.action == "status" else _diff(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Watch a sweep, or compare two runs.")
    actions = parser.add_subparsers(dest="action", required=True)
    status = actions.add_parser("status", help="what has become of an experiment's runs")
    status.add_argument("words", nargs="+", metavar="experiment=NAME | override", help="as scripts/sweep.py takes them")
    status.add_argument("--only", default="", metavar="KEY=VALUE,…", help="runs at these coordinates")
    status.add_argument("--device", help="whose hours are left (default: this machine)")
    status.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="between two looks (default 5)")
    status.add_argument("--once", action="store_true", help="look once; so it is where no terminal watches")
    status.add_argument("--json", action="store_true", help="look once, print JSON")
    diff = actions.add_parser("diff", help="keys at which two runs' identities differ")
    diff.add_argument("one", help="a run's folder, or its signature")
    diff.add_argument("other")
    diff.add_argument("--results", type=Path, default=Path("results"), help="where signatures are looked for")
    diff.add_argument("--json", action="store_true", help="print JSON: key → [one, other]")
    return parser


def _status(options: argparse.Namespace) -> int:
    from lora_xs.sweeps.devices import device_named, this_machine
    from lora_xs.sweeps.grid import expand, load_experiment
    from lora_xs.sweeps.launcher import split_launcher
    from lora_xs.sweeps.plan import experiment_in
    from lora_xs.sweeps.show import console_of_output
    from lora_xs.sweeps.watch import Watch, picture, watch

    word, overrides = experiment_in(options.words)
    _, overrides = split_launcher(overrides)
    experiment = load_experiment(word)
    device = device_named(options.device) if options.device else this_machine()
    sweep = Watch(experiment.name, expand(experiment, overrides), device)
    console = console_of_output()
    if options.json:
        plan = sweep.look().only(options.only)
        print(json.dumps(plan.to_json(plan.choose()), indent=2, ensure_ascii=False))
    elif options.once or not console.is_terminal:
        console.print(picture(sweep.look().only(options.only)))
    else:
        watch(lambda: sweep.look().only(options.only), console, max(0.2, options.every))
    return FINISHED


def _diff(options: argparse.Namespace) -> int:
    from lora_xs.sweeps.compare import compare

    found = compare(options.one, options.other, options.results)
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif not found:
        print("the same run")
    else:
        for key, (one, other) in found.items():
            print(f"{key}: {json.dumps(one, ensure_ascii=False)} → {json.dumps(other, ensure_ascii=False)}")
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())
