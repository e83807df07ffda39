"""Started by torchrun: run the specs of a JSON file one after the other, in all processes together."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lora_xs.records import Record
from lora_xs.runner import run
from lora_xs.spec import RunSpec


def outcome(record: Record) -> dict[str, object]:
    """What every process must agree on."""
    kept = ("evaluations", "best", "steps", "tokens", "batches_digest")
    return {"status": record.status, **{key: record.train[key] for key in kept}}


if __name__ == "__main__":
    specs = [RunSpec.from_json(values) for values in json.loads(Path(sys.argv[1]).read_text())]
    seen = [outcome(run(spec, command="torchrun")) for spec in specs]
    Path(f"{sys.argv[1]}.{os.environ['RANK']}").write_text(json.dumps(seen))
