"""Plan an experiment's runs, and with --submit run them: nothing runs before the plan has been printed.

python scripts/sweep.py experiment=table01_glue                                # states and costs, then stop
python scripts/sweep.py experiment=table01_glue --only task=mrpc,rank=16 --device a100-80
python scripts/sweep.py experiment=demo seed=0 --submit --workers 2            # on this machine
python scripts/sweep.py experiment=table01_glue launcher=slurm --submit        # as SLURM job arrays
python scripts/sweep.py experiment=demo --retry failed --submit                # what failed too
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.command import portable_command
from lora_xs.errors import UserError
from lora_xs.exit_status import FAILED, FINISHED, told_in_a_line

if TYPE_CHECKING:
    from lora_xs.spec.sections import LauncherSpec
    from lora_xs.sweeps.devices import Device
    from lora_xs.sweeps.plan import Choice, Plan


@told_in_a_line
def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the arguments say; exit status 0, 1 where runs are left unfinished after --submit, 2 for a mistake."""
    options = _parser().parse_intermixed_args(arguments)
    return _sweep(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Plan an experiment's runs, and with --submit run them.")
    parser.add_argument("words", nargs="+", metavar="experiment=NAME | override", help="as `train.py` takes them")
    parser.add_argument("--submit", action="store_true", help="hand the runs to launcher=local (default) or slurm")
    parser.add_argument("--retry", action="append", choices=("failed", "diverged"), default=[], help="run these again")
    parser.add_argument("--only", default="", metavar="KEY=VALUE,…", help="runs at these coordinates, e.g. rank=16")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N runs now")
    parser.add_argument("--device", help="what to plan for: h100, a100-80, …, cpu (default: this machine; slurm: h100)")
    parser.add_argument("--workers", type=int, default=1, help="processes of launcher=local (default 1)")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    return parser


def _sweep(options: argparse.Namespace) -> int:
    from lora_xs.sweeps.grid import expand, load_experiment
    from lora_xs.sweeps.launcher import split_launcher
    from lora_xs.sweeps.plan import experiment_in, make_plan
    from lora_xs.sweeps.show import console_of_output, print_plan

    for key, number in (("--limit", options.limit), ("--workers", options.workers)):
        if number is not None and number < 1:
            raise UserError(f"{key} {number} must be at least 1")
    word, words = experiment_in(options.words)
    settings, overrides = split_launcher(words)
    experiment = load_experiment(word)
    runs = expand(experiment, overrides)
    plan = make_plan(experiment.name, runs, _device(options.device, settings)).only(options.only)
    choice = plan.choose(options.retry, options.limit)
    if options.json:
        print(json.dumps(plan.to_json(choice), indent=2, ensure_ascii=False))
    else:
        print_plan(plan, choice, console_of_output())
    plan.check_fit(choice.runs)
    if not options.submit:
        return FINISHED
    command = portable_command([f"experiment={experiment.name}", *words], "python scripts/sweep.py")
    return _submit(plan, choice, settings, options.workers, command)


def _device(name: str | None, settings: LauncherSpec) -> Device:
    from lora_xs.sweeps.devices import device_named, this_machine

    if name is not None:
        return device_named(name)
    return device_named("h100") if settings.name == "slurm" else this_machine()


def _submit(plan: Plan, choice: Choice, settings: LauncherSpec, workers: int, command: str) -> int:
    runs = [entry.run for entry in choice.runs]
    diverged = [entry.run.spec for entry in choice.runs if entry.state == "diverged"]
    left = len(choice.blocked) + sum(entry.state == "failed" and entry not in choice.runs for entry in plan.entries)
    words = f"; {left} failed before (`--retry failed`) or wait for a run that is not chosen" if left else ""
    if not runs:
        print(f"nothing to run{words}", file=sys.stderr)
        return FAILED if left else FINISHED
    if settings.name == "slurm":
        from lora_xs.sweeps.slurm import submit

        submission = submit(runs, settings, name=plan.name, retry=[spec.signature for spec in diverged])
        print(submission.in_words(), file=sys.stderr)
        return FINISHED
    from lora_xs.sweeps.local import launch_local

    outcome = launch_local(runs, workers=workers, threads=settings.threads, command=command, again=diverged)
    for line in outcome.lines():
        print(line, file=sys.stderr)
    if words:
        print(words.removeprefix("; "), file=sys.stderr)
    return FINISHED if outcome.complete and not left else FAILED


if __name__ == "__main__":
    sys.exit(main())
