"""A worker as simple as can be: `--manifest FILE --slice I/N`, one run after another, exit 0 when all are recorded."""

from __future__ import annotations

import sys
from pathlib import Path

from lora_xs.errors import UserError
from lora_xs.sweeps.manifest import parse_slice, read_manifest, take_slice


def main(manifest: str, index_of_count: str) -> int:
    from lora_xs.environment import set_threads

    lines = take_slice(read_manifest(Path(manifest)), *parse_slice(index_of_count))
    set_threads(lines[0].spec.launcher.threads, "passive")
    from lora_xs.runner import run
    from lora_xs.training.preemption import Preempted

    failed = 0
    for line in lines:
        try:
            record = run(line.spec, command="sweep")
            print(record.status, line.spec.folder, flush=True)
        except Preempted as stopped:
            print("stopped", line.spec.folder, flush=True)
            return 128 + stopped.signum
        except (UserError, RuntimeError) as failure:
            print("failed", line.spec.folder, failure, flush=True)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2], sys.argv[4]))
