"""Fetch all that runs need where there is a connection, and write down what it is: compute nodes then need none.

python scripts/prefetch.py experiment=table01_glue                 # every run of an experiment
python scripts/prefetch.py task=math/metamathqa method=lora_xs     # a single run, as train.py takes it
python scripts/prefetch.py … --to locks/mine.json

Runs given `data.lock=<file>` check what they find against it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lora_xs.errors import UserError
from lora_xs.exit_status import FINISHED, told_in_a_line
from lora_xs.spec import RunSpec


@told_in_a_line
def main(arguments: Sequence[str]) -> int:
    """Resolve and write; exit status 0, or 2 naming all that could not be had."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return FINISHED
    words = list(arguments)
    target = _target(words)
    specs, name = _specs(words)
    from lora_xs.source_lock import resolve, write_lock

    lock = resolve(specs, progress=lambda what: print(what, file=sys.stderr, flush=True))
    path = target or Path("locks") / f"{name}.json"
    write_lock(path, lock)
    print(f"{len(lock['models'])} models, {len(lock['data'])} training sets, {len(lock['tests'])} tests")
    print(path)
    return FINISHED


def _target(words: list[str]) -> Path | None:
    """The file after `--to`, taken out of the words."""
    if "--to" not in words:
        return None
    place = words.index("--to")
    if place + 1 == len(words):
        raise UserError("--to needs a file; give --to <file>")
    _, path = words.pop(place), words.pop(place)
    return Path(path)


def _specs(words: Sequence[str]) -> tuple[list[RunSpec], str]:
    """The runs that are meant, and a name for them."""
    if any(word.startswith("experiment=") for word in words):
        from lora_xs.reporting.asked import experiments_asked
        from lora_xs.sweeps.grid import expand, load_experiment

        names, overrides = experiments_asked(words, ())
        experiments = [load_experiment(name) for name in names]
        specs = [run.spec for experiment in experiments for run in expand(experiment, overrides)]
        return specs, "+".join(experiment.name for experiment in experiments)
    from lora_xs.sweeps.composing import spec_of

    spec = spec_of(words)
    return [spec], f"{spec.task.name.replace('/', '-')}-{spec.model.name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
